"""Retention: old rows leave through ``gapless_expire()``, the only delete there is."""

from dataclasses import dataclass

from db.pool import Database
from db.sql import sql

_ROWS = 10_000
"""Rows a statement: short transactions, so that no reader's horizon waits."""
_WORK_DAYS = 7


@dataclass(frozen=True, slots=True)
class Retention:
    """How long things stay, days of market time; 0 keeps them for ever."""

    payload_days: int
    quote_days: int
    candle_days: int = 0


def expire(db: Database, keep: Retention) -> dict[str, int]:
    """Delete what is older than its retention, in short steps; returns rows (chunks) by kind.

    Finished jobs, slots and coordinator elements go after a week.
    """
    kinds = {
        "payloads": keep.payload_days,
        "quotes": keep.quote_days,
        "candles": keep.candle_days,
        "work": _WORK_DAYS,
    }
    return {kind: _expire(db, kind, days) for kind, days in kinds.items() if days > 0}


def _expire(db: Database, kind: str, days: int) -> int:
    total = 0
    while True:
        with db.session() as conn:
            row = conn.execute(
                sql("expire", "expire"), {"kind": kind, "days": days, "rows": _ROWS}
            ).fetchone()
        assert row is not None
        total += row[0]
        if row[0] < _ROWS:
            return total
