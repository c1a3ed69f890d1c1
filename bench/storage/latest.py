"""The latest bar of 8,000 symbols through the public function, at the horizon."""

from bench.report import at_most
from bench.run import Place, Run
from bench.storage.history import History, build, compressed
from db.reading import safe_as_of

_LATEST = """
    SELECT symbol, ts, open, high, low, close, volume, vwap, trade_count, provider, status, as_of
    FROM latest_as_of(NULL, '1m', %(as_of)b, %(as_of)b - %(start)b)
"""
_PEER = """
    SELECT n.name, c.ts, c.open, c.high, c.low, c.close, c.volume, c.vwap, c.trade_count, s.name,
           gapless_status(c.status), c.as_of
    FROM symbol_names n
    CROSS JOIN LATERAL (
        SELECT * FROM newest c WHERE c.symbol_id = n.symbol_id AND c.interval_s = 60 AND c.ts >= %(start)b
        ORDER BY c.ts DESC LIMIT 1
    ) c
    JOIN sources s ON s.provider_id = c.provider_id
"""


def measure(run: Run) -> None:
    """From rows, then from compressed chunks where there are any."""
    with run.place() as place:
        history = build(run, place, full=run.size(1_000, 300), days=run.size(5, 2))
        _latest(run, place, history, "latest_8000", "plain", 100)
        if run.timescale:
            compressed(place.owner)
            _latest(run, place, history, "latest_8000_compressed", "compressed chunks", 300)


def _latest(
    run: Run, place: Place, history: History, key: str, where: str, bound_ms: float
) -> None:
    watch = run.stopwatch()
    with place.db.session() as conn:
        parameters = {"as_of": safe_as_of(conn), "start": history.start}

        def ours() -> list[tuple[object, ...]]:
            return conn.execute(_LATEST, parameters, binary=True).fetchall()

        def peer() -> list[tuple[object, ...]]:
            return conn.execute(_PEER, parameters, binary=True).fetchall()

        assert sorted(map(str, ours())) == sorted(map(str, peer()))
        for number in range(run.size(15, 7)):
            watch.alternate(number, ours=ours, peer=peer)
    what = f"latest bar of {len(history.names):,} symbols, {where}"
    taken_ms = 1000 * watch.median("ours")
    run.report.number(f"{key}_ms", what, taken_ms, "ms", at_most(bound_ms))
    run.report.ratio(
        f"{key}_ratio", "the same against the newest rows alone", taken_ms,
        1000 * watch.median("peer"), "ms",
    )  # fmt: skip
