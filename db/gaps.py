"""Expected minus explained: which bars are missing, and which are missing for good reason.

A bar is explained by one source of the policy that answered its time after settle, by a stored bar
of any source, by a confirmation that nothing traded, or by a halt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from core.windows import Window
from core.words import Interval, Tier
from db import horizon
from db.pool import Connection, Database
from db.sql import sql

APART = timedelta(minutes=15)
"""Market time between two answers of the only eligible source that make an absence certain."""
_CHUNK = 500
"""Symbols a transaction: it holds their cursors, and every reader's horizon."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A maximal run of missing bars of one symbol; a daily gap is one session."""

    symbol_id: int
    interval: Interval
    window: Window
    tier: Tier


def find(
    db: Database,
    *,
    interval: Interval,
    expected: Mapping[str, Sequence[Window]],
    deadline: Mapping[Tier, datetime],
    sources: Sequence[str],
) -> list[Gap]:
    """Missing bars of the active universe, by symbol and time.

    Args:
        db: Where.
        interval: ``1m`` or ``1d``.
        expected: Calendar -> trading time to judge; for ``1d`` one window a session, open to close.
        deadline: Tier -> judge only bars that end at or before this; tiers that are absent are not
            judged. The caller puts settle, cadence and grace into it.
        sources: Whose answers explain a bar: those of the policy.
    """
    windows = [(calendar, window) for calendar, hours in expected.items() for window in hours]
    if not windows or not deadline:
        return []
    parameters: dict[str, Any] = {
        "interval_s": interval.seconds,
        "step": interval.delta,
        "calendars": [calendar for calendar, _ in windows],
        "starts": [window.start for _, window in windows],
        "ends": [window.end for _, window in windows],
        "low": min(window.start for _, window in windows),
        "high": max(window.end for _, window in windows),
        "tiers": [str(tier) for tier in deadline],
        "untils": list(deadline.values()),
        "sources": list(sources),
    }
    name = "daily" if interval is Interval.D1 else "intraday"
    with db.transaction() as conn:
        rows = conn.execute(sql("gaps", name), parameters, binary=True).fetchall()
    return [
        Gap(symbol_id, interval, Window(start, end), Tier(tier))
        for symbol_id, tier, start, end in rows
    ]


def confirm_empty(
    db: Database, *, interval: Interval, since: datetime, eligible: Sequence[str]
) -> int:
    """Confirm what nobody has: lacked after settle by two eligible sources, or by the only one twice.

    Args:
        db: Where.
        interval: ``1m`` or ``1d``.
        since: Evidence asked for before this is not looked at (only for the only source's two asks).
        eligible: Sources that could answer in principle.

    Returns:
        Windows confirmed now; run again, none.
    """
    parameters: dict[str, Any] = {
        "interval_s": interval.seconds,
        "step": interval.delta,
        "eligible": list(eligible),
        "since": since,
        "apart": APART,
    }
    with db.transaction() as conn:
        symbols = [
            symbol_id for (symbol_id,) in conn.execute(sql("gaps", "lacking_symbols"), parameters)
        ]

    def confirm(chunk: Sequence[int]) -> int:
        return db.run(lambda conn: _confirm(conn, {**parameters, "symbols": chunk}))

    return sum(
        horizon.patiently(db, partial(confirm, symbols[start : start + _CHUNK]))
        for start in range(0, len(symbols), _CHUNK)
    )


def _confirm(conn: Connection, parameters: dict[str, Any]) -> int:
    horizon.announce(conn)
    locked = conn.execute(sql("gaps", "lock_lacked"), parameters, binary=True).fetchall()
    if not locked:
        return 0
    parameters["ids"] = [symbol_id for symbol_id, _ in locked]
    parameters["provider_ids"] = [provider_id for _, provider_id in locked]
    parameters["as_of"] = horizon.stamp(conn)
    row = conn.execute(sql("gaps", "confirm_empty"), parameters).fetchone()
    assert row is not None
    return row[0]
