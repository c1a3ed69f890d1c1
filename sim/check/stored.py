"""What the database holds: every revision, mark and gap row, read by the checker's own SQL."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg

from sim.check.truth import Values

WITHDRAWN, REVISED, FINAL, PARTIAL = 3, 2, 1, 0

_INTRADAY = """
SELECT n.name, 60, EXTRACT(EPOCH FROM c.ts)::bigint, s.name, EXTRACT(EPOCH FROM c.as_of)::float8,
       EXTRACT(EPOCH FROM c.asked_at)::float8, c.status, c.open, c.high, c.low, c.close, c.volume
FROM candles_intraday c JOIN symbol_names n USING (symbol_id) JOIN sources s USING (provider_id)
WHERE c.interval_s = 60 AND c.ts >= to_timestamp(%(start)s) AND c.ts < to_timestamp(%(end)s)
ORDER BY 1, 3, 4, 5
"""
_DAILY = """
SELECT n.name, 86400, EXTRACT(EPOCH FROM c.ts)::bigint, s.name, EXTRACT(EPOCH FROM c.as_of)::float8,
       EXTRACT(EPOCH FROM c.asked_at)::float8, c.status, c.open, c.high, c.low, c.close, c.volume
FROM candles_eod c JOIN symbol_names n USING (symbol_id) JOIN sources s USING (provider_id)
WHERE c.ts >= to_timestamp(%(start)s) AND c.ts < to_timestamp(%(end)s)
ORDER BY 1, 3, 4, 5
"""
_EMPTY = """
SELECT n.name, CASE c.interval_s WHEN 60 THEN '1m' ELSE '1d' END,
       EXTRACT(EPOCH FROM c.start_ts)::bigint, EXTRACT(EPOCH FROM c.end_ts)::bigint
FROM confirmed_empty c JOIN symbol_names n USING (symbol_id)
"""
_GAPS = """
SELECT n.name, CASE b.interval_s WHEN 60 THEN '1m' ELSE '1d' END,
       EXTRACT(EPOCH FROM b.start_ts)::bigint, EXTRACT(EPOCH FROM b.end_ts)::bigint, b.state
FROM backfill_jobs b JOIN symbol_names n USING (symbol_id) WHERE b.origin = 'gap'
"""
_TIERS = "SELECT symbol, tier FROM universe WHERE active"
_FIRST = "SELECT EXTRACT(EPOCH FROM min(as_of))::float8 FROM universe_versions"
_LISTED = """
SELECT n.name, EXTRACT(EPOCH FROM min(u.as_of))::float8
FROM symbol_universe u JOIN symbol_names n USING (symbol_id) GROUP BY 1
"""
_QUOTES = """
SELECT s.name, n.name, EXTRACT(EPOCH FROM q.ts)::bigint, EXTRACT(EPOCH FROM q.as_of)::float8
FROM quotes_l1 q JOIN symbol_names n USING (symbol_id) JOIN sources s USING (provider_id)
"""

BarKey = tuple[str, str, int]
"""Interval, symbol, start in epoch seconds."""


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One revision."""

    provider: str
    as_of: float
    asked_at: float
    status: int
    values: Values


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open window of a symbol, epoch seconds."""

    interval: str
    symbol: str
    start: int
    end: int
    state: str = ""


@dataclass(slots=True)
class Stored:
    """Everything of one run."""

    bars: dict[BarKey, list[StoredRow]]
    """Every revision, oldest first within a provider."""
    empty: list[Span]
    gaps: list[Span]
    tiers: dict[str, str]
    quotes: list[tuple[str, str, int, float]]
    """Source, symbol, event second, knowledge time."""
    listed: dict[str, float]
    """When each symbol first joined the universe, epoch seconds."""


def connect(url: str) -> psycopg.Connection[Any]:
    """A connection of the checker's own."""
    return psycopg.connect(url, autocommit=True, application_name="gapless-check")


def first_known(conn: psycopg.Connection[Any]) -> float | None:
    """When the database learnt its first thing, the universe; epoch seconds, None when it is empty."""
    row = conn.execute(_FIRST).fetchone()
    assert row is not None
    return row[0]


def read_stored(conn: psycopg.Connection[Any], start: float, end: float) -> Stored:
    """Read every revision whose bar starts in ``[start, end)``, and all marks and gap rows."""
    bars: dict[BarKey, list[StoredRow]] = defaultdict(list)
    edges = {"start": start, "end": end}
    queries: tuple[tuple[LiteralString, str], ...] = ((_INTRADAY, "1m"), (_DAILY, "1d"))
    for query, interval in queries:
        for name, _seconds, ts, provider, as_of, asked_at, status, *values in conn.execute(
            query, edges
        ):
            o, h, l, c, v = values  # noqa: E741 - the market's own letters
            bars[(interval, name, int(ts))].append(
                StoredRow(provider, as_of, asked_at, status, (o, h, l, c, v))
            )
    return Stored(
        bars=dict(bars),
        empty=[Span(interval, name, s, e) for name, interval, s, e in conn.execute(_EMPTY)],
        gaps=[
            Span(interval, name, s, e, state) for name, interval, s, e, state in conn.execute(_GAPS)
        ],
        tiers=dict(conn.execute(_TIERS).fetchall()),
        quotes=[
            (provider, name, int(ts), as_of) for provider, name, ts, as_of in conn.execute(_QUOTES)
        ],
        listed=dict(conn.execute(_LISTED).fetchall()),
    )
