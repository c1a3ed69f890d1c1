"""As-of reads through the public function, names and ranks resolved, against the best direct query.

The direct query reads a table that holds the newest rows alone. It returns the same columns with the
same words in them; what it takes with bare keys instead is stated beside it.
"""

import random
from datetime import timedelta
from typing import Any, LiteralString

from bench.report import at_most
from bench.run import Place, Run
from bench.storage.history import SESSION_MINUTES, History, build, compressed
from db.pool import Connection
from db.reading import safe_as_of

OURS = """
    SELECT symbol, "interval", ts, open, high, low, close, volume, vwap, trade_count, provider, status, as_of
    FROM candles_as_of(%(names)b, '1m', %(start)b, %(end)b, %(as_of)b)
"""
_PEER_ONE = """
    SELECT %(name)b::text, '1m'::text, c.ts, c.open, c.high, c.low, c.close, c.volume, c.vwap, c.trade_count::bigint,
           s.name, gapless_status(c.status), c.as_of
    FROM newest c JOIN sources s ON s.provider_id = c.provider_id
    WHERE c.symbol_id = %(id)b AND c.interval_s = 60 AND c.ts >= %(start)b AND c.ts < %(end)b
"""
_PEER_MANY = """
    SELECT n.name, '1m'::text, c.ts, c.open, c.high, c.low, c.close, c.volume, c.vwap, c.trade_count::bigint,
           s.name, gapless_status(c.status), c.as_of
    FROM newest c
    JOIN symbol_names n ON n.symbol_id = c.symbol_id
    JOIN sources s ON s.provider_id = c.provider_id
    WHERE c.symbol_id = ANY (%(ids)b) AND c.interval_s = 60 AND c.ts >= %(start)b AND c.ts < %(end)b
"""
_BARE_MANY = """
    SELECT c.symbol_id, c.ts, c.open, c.high, c.low, c.close, c.volume, c.vwap, c.trade_count, c.provider_id, c.status,
           c.as_of
    FROM newest c
    WHERE c.symbol_id = ANY (%(ids)b) AND c.interval_s = 60 AND c.ts >= %(start)b AND c.ts < %(end)b
"""


def measure(run: Run) -> None:
    """Rows first, then compressed chunks where there are any."""
    with run.place() as place:
        history = build(run, place, full=run.size(1_000, 600), days=run.size(5, 2))
        worst = _one_and_many(run, place, history, "")
        if run.timescale:
            compressed(place.owner)
            worst = max(worst, _one_and_many(run, place, history, "compressed_"))
        run.report.values["asof_p95_ratio"] = round(worst, 4)


def _one_and_many(run: Run, place: Place, history: History, kind: str) -> float:
    where = ", compressed" if kind else ""
    one = _compare(run, place, history, 1, run.size(300, 100), _PEER_ONE)
    many = _compare(run, place, history, min(500, history.full), run.size(25, 9), _PEER_MANY)
    bare = _compare(run, place, history, min(500, history.full), run.size(11, 5), _BARE_MANY)
    report = run.report
    report.ratio(f"asof_1_{kind}ratio", f"one symbol-day{where}, p95", *one, "ms", at_most(1.5))
    report.ratio(f"asof_500_{kind}ratio", f"500 symbol-days{where}, p95", *many, "ms", at_most(1.5))
    report.ratio(
        f"asof_500_bare_{kind}ratio", f"500 symbol-days{where}, peer returns keys, p95", *bare, "ms"
    )
    return max(one[0] / one[1], many[0] / many[1])


def _compare(
    run: Run, place: Place, history: History, symbols: int, reads: int, peer: LiteralString
) -> tuple[float, float]:
    """p95 of ours and of the peer's read in ms, over random symbols and days, alternating."""
    chooser = random.Random(symbols)
    watch = run.stopwatch()
    same = peer is not _BARE_MANY
    with place.db.session() as conn:
        as_of = safe_as_of(conn)
        for number in range(reads + 2):
            chosen = chooser.sample(range(history.full), symbols)
            start = history.start + timedelta(days=chooser.randrange(history.days))
            parameters = {
                "names": [history.names[place] for place in chosen],
                "ids": [history.ids[place] for place in chosen],
                "name": history.names[chosen[0]],
                "id": history.ids[chosen[0]],
                "start": start,
                "end": start + timedelta(minutes=SESSION_MINUTES),
                "as_of": as_of,
            }
            if number < 2:
                # Both once outside of the figures: caches warm, answers the same.
                found = [_read(conn, query, parameters) for query in (OURS, peer)]
                assert len(found[0]) == len(found[1]) == symbols * SESSION_MINUTES
                assert not same or sorted(found[0]) == sorted(found[1])
                continue
            watch.alternate(
                number,
                ours=lambda p=parameters: _read(conn, OURS, p),
                peer=lambda p=parameters: _read(conn, peer, p),
            )
    return 1000 * watch.p95("ours"), 1000 * watch.p95("peer")


def _read(conn: Connection, query: LiteralString, parameters: dict[str, Any]) -> list[Any]:
    return conn.execute(query, parameters, binary=True).fetchall()
