"""The limit that writes are held against: psycopg's binary COPY into the same table, nothing else."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from bench.databases import Owner
from core.bars import Bar

Row = tuple[Any, ...]

COPY = """
    COPY candles_intraday (symbol_id, interval_s, ts, as_of, asked_at, open, high, low, close, volume, vwap,
                           trade_count, provider_id, status, reason)
    FROM STDIN (FORMAT BINARY)
"""
_TYPES = (
    *("int4", "int4", "timestamptz", "timestamptz", "timestamptz"),
    *["float8"] * 6,
    *("int4", "int2", "int2", "text"),
)

# What is already there when the measure begins: so many symbols, days and minutes a day.
_HISTORY = """
    INSERT INTO candles_intraday (symbol_id, interval_s, ts, as_of, asked_at, open, high, low, close, volume, vwap,
                                  trade_count, provider_id, status)
    SELECT s, 60, o.ts, o.ts + interval '62 s', o.ts + interval '61 s', p.cents / 100.0, (p.cents + 9) / 100.0,
           (p.cents - 7) / 100.0, (p.cents + 2) / 100.0, 100 + p.cents %% 977, (p.cents + 1) / 100.0, p.cents %% 97,
           %(provider_id)s, 1
    FROM unnest(%(ids)s::int[]) s
    CROSS JOIN generate_series(0, %(days)s - 1) d
    CROSS JOIN generate_series(0, %(minutes)s - 1) m
    CROSS JOIN LATERAL (SELECT %(start)s::timestamptz + make_interval(days => d, mins => m) AS ts) o
    CROSS JOIN LATERAL (SELECT 5000 + abs(hashint4(s * 1000 + m)) %% 400 AS cents) p
    ORDER BY 1, 3
"""


def copy(owner: Owner, rows: Iterable[Row]) -> None:
    """Commit rows that are ready made, by one COPY."""
    with owner.transaction(), owner.cursor().copy(COPY) as writing:
        writing.set_types(_TYPES)
        write_row = writing.write_row
        for row in rows:
            write_row(row)


def rows(
    symbol_id: int, bars: Iterable[Bar], *, as_of: datetime, asked_at: datetime, provider_id: int
) -> list[Row]:
    """What the table should hold of these bars, in key order."""
    return [
        (
            *(symbol_id, 60, bar.ts, as_of, asked_at, bar.open, bar.high, bar.low, bar.close),
            *(bar.volume, bar.vwap, bar.trade_count, provider_id, 1, None),
        )
        for bar in bars
    ]


def fill(
    owner: Owner,
    ids: Sequence[int],
    start: datetime,
    *,
    days: int,
    minutes: int,
    provider_id: int,
) -> int:
    """Give the table a past, so that nothing is measured on an empty one; how many rows."""
    owner.execute(
        _HISTORY,
        {
            "ids": list(ids),
            "start": start,
            "days": days,
            "minutes": minutes,
            "provider_id": provider_id,
        },
    )
    owner.execute("VACUUM (ANALYZE) candles_intraday")
    owner.execute("CHECKPOINT")
    return len(ids) * days * minutes


def count(owner: Owner, ids: Sequence[int]) -> int:
    """Stored versions of these symbols."""
    row = owner.execute(
        "SELECT count(*) FROM candles_intraday WHERE symbol_id = ANY (%s)", [list(ids)]
    ).fetchone()
    assert row is not None
    return row[0]
