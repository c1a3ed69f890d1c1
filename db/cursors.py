"""How far each series has been asked of each source."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from core.windows import Window, floor_to
from core.words import Interval
from db.pool import Connection, Database
from db.sql import sql

FOLD_AFTER = timedelta(days=28)
"""Market time; gap passes and re-reads look back less."""
_DAY = timedelta(days=1)
_FOLD_EVERY = timedelta(days=7)
"""So much has gathered beyond the cut before a cursor is folded."""
_FOLD_ROWS = 500

Covered = dict[tuple[int, str], list[Window]]


def covered(
    conn: Connection,
    symbol_ids: Sequence[int],
    interval: Interval,
    window: Window | None = None,
) -> Covered:
    """What was asked, answered and settled, by (symbol, source); cut to ``window`` where given."""
    parameters = {
        "ids": list(symbol_ids),
        "interval_s": interval.seconds,
        "start": window.start if window else None,
        "end": window.end if window else None,
    }
    found: Covered = {}
    for symbol_id, source, start, end in conn.execute(
        sql("cursors", "covered"), parameters, binary=True
    ):
        found.setdefault((symbol_id, source), []).append(Window(start, end))
    return found


def last_answered(
    conn: Connection, interval: Interval | None, symbol_ids: Sequence[int] | None = None
) -> dict[int, datetime]:
    """When each symbol was last answered by any source; those never answered are left out.

    Args:
        conn: Any transaction.
        interval: Of the bars; None for quotes.
        symbol_ids: None: every symbol.
    """
    ids = None if symbol_ids is None else list(symbol_ids)
    if interval is None:
        return dict(conn.execute(sql("cursors", "last_quoted"), {"ids": ids}).fetchall())
    parameters = {"ids": ids, "interval_s": interval.seconds}
    return dict(conn.execute(sql("cursors", "last_answered"), parameters).fetchall())


def suppliers(conn: Connection, symbol_ids: Sequence[int], window: Window) -> dict[int, list[str]]:
    """Sources that supplied one-minute bars of each symbol in a window, by name."""
    parameters = {"ids": list(symbol_ids), "start": window.start, "end": window.end}
    found: dict[int, list[str]] = {}
    for symbol_id, source in conn.execute(sql("cursors", "suppliers"), parameters, binary=True):
        found.setdefault(symbol_id, []).append(source)
    return found


def fold(db: Database) -> int:
    """Put coverage aside that ended over ``FOLD_AFTER`` ago; returns how many cursors were folded.

    A sweep rewrites its cursors each time, so they should hold the sessions of now only. What is
    covered stays the same; a second run, or one that dies, changes nothing.
    """
    cut = floor_to(db.clock.now() - FOLD_AFTER, _DAY)
    parameters = {"to": cut, "from": cut - _FOLD_EVERY, "rows": _FOLD_ROWS}
    total = 0
    while True:
        folded = db.run(lambda conn: conn.execute(sql("cursors", "fold"), parameters).rowcount)
        total += folded
        if folded < _FOLD_ROWS:
            return total
