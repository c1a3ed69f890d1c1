"""A stored history to read from: revisions, two sources, and beside it a table of the newest rows alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from bench.databases import Owner, compress
from bench.run import Place, Run
from bench.storage.market import SOURCE, first_open
from bench.storage.sources import provider_id_of
from core.words import Tier
from db import ranks, universe

SESSION_MINUTES = 390
SECOND_SOURCE = "finnhub"

# Bars of the first source, 5 % of the minutes from the second instead, 3 % restated twelve hours later.
_FILL = """
    INSERT INTO candles_intraday (symbol_id, interval_s, ts, as_of, asked_at, open, high, low, close, volume, vwap,
                                  trade_count, provider_id, status)
    SELECT s, 60, o.ts, o.ts + interval '62 s' + r.version * interval '12 h',
           o.ts + interval '61 s' + r.version * interval '12 h',
           p.cents / 100.0, (p.cents + 9) / 100.0, (p.cents - 7) / 100.0, (p.cents + 2 + r.version) / 100.0,
           100 + p.cents %% 977, (p.cents + 1) / 100.0, p.cents %% 97,
           CASE WHEN p.luck >= 95 THEN %(second)s ELSE %(first)s END, 1 + r.version
    FROM unnest(%(ids)s::int[]) s
    CROSS JOIN generate_series(0, %(days)s - 1) d
    CROSS JOIN generate_series(0, %(minutes)s - 1) m
    CROSS JOIN LATERAL (SELECT %(start)s::timestamptz + make_interval(days => d, mins => m) AS ts) o
    CROSS JOIN LATERAL (
        SELECT 5000 + abs(hashint4(s * 1000 + m)) %% 400 AS cents,
               abs(hashint4(s * 7919 + d * 1009 + m)) %% 100 AS luck) p
    CROSS JOIN LATERAL generate_series(0, CASE WHEN p.luck < 3 THEN 1 ELSE 0 END) r(version)
    ORDER BY 1, 3
"""
_NEWEST = """
    CREATE TABLE newest (
        symbol_id integer NOT NULL, interval_s integer NOT NULL, ts timestamptz NOT NULL, as_of timestamptz NOT NULL,
        open double precision, high double precision, low double precision, close double precision,
        volume double precision, vwap double precision, trade_count integer, provider_id smallint NOT NULL,
        status smallint NOT NULL, PRIMARY KEY (symbol_id, interval_s, ts))
"""
_FILL_NEWEST = """
    INSERT INTO newest
    SELECT DISTINCT ON (symbol_id, ts) symbol_id, interval_s, ts, as_of, open, high, low, close, volume, vwap,
           trade_count, provider_id, status
    FROM candles_intraday ORDER BY symbol_id DESC, ts DESC, provider_id DESC, as_of DESC
"""
_HYPERTABLE = """
    SELECT create_hypertable('newest', by_range('ts', INTERVAL '7 days'), create_default_indexes => false)
"""
_COLUMNSTORE = """
    ALTER TABLE newest SET (timescaledb.enable_columnstore, timescaledb.segmentby = 'symbol_id, interval_s',
                            timescaledb.orderby = 'ts DESC')
"""


@dataclass(frozen=True, slots=True)
class History:
    """What there is to read."""

    names: Sequence[str]
    """All symbols, in the order of their ids."""
    ids: Sequence[int]
    full: int
    """The first so many symbols have whole days, the others the first half hour of each."""
    days: int
    start: datetime
    """Open of the first day."""


def build(run: Run, place: Place, *, symbols: int = 8_000, full: int, days: int) -> History:
    """Fill ``candles_intraday`` and ``newest``; the latter chunked alike on TimescaleDB."""
    names = [f"S{number:05d}" for number in range(symbols)]
    universe.load(place.db, [(name, Tier.T0, "NYSE", "") for name in names], "bench")
    ranks.publish(place.db, "bars_1m", [[SOURCE], [SECOND_SOURCE]])
    with place.db.transaction() as conn:
        members = universe.resolve(conn, names)
    ids = [members[name].symbol_id for name in names]
    start = first_open(run.clock)
    owner = place.owner
    sources = {
        "first": provider_id_of(owner),
        "second": provider_id_of(owner, SECOND_SOURCE),
        "start": start,
        "days": days,
    }
    owner.execute(_FILL, {**sources, "ids": ids[:full], "minutes": SESSION_MINUTES})
    owner.execute(_FILL, {**sources, "ids": ids[full:], "minutes": 30})
    owner.execute(_NEWEST)
    if run.timescale:
        owner.execute(_HYPERTABLE)
        owner.execute(_COLUMNSTORE)
    owner.execute(_FILL_NEWEST)
    owner.execute("GRANT SELECT ON newest TO PUBLIC")
    tidy(owner)
    return History(names, ids, full, days, start)


def compressed(owner: Owner) -> None:
    """Compress both tables."""
    compress(owner, "candles_intraday")
    compress(owner, "newest")
    tidy(owner)


def tidy(owner: Owner) -> None:
    """What autovacuum would do in its time."""
    owner.execute("VACUUM (ANALYZE) candles_intraday, newest")
    owner.execute("CHECKPOINT")
