"""Questions of people: what is covered, what is missing, how fresh everything is."""

from collections.abc import Sequence
from typing import Any

from psycopg.rows import dict_row

from core.windows import Window
from core.words import Tier
from db.pool import Connection
from db.sql import sql

Row = dict[str, Any]


def coverage(
    conn: Connection, symbols: Sequence[str], window: Window, interval: str | None
) -> list[Row]:
    """Stretches of the symbols that touch the window, as the ``coverage`` view shows them.

    What was said of the same stretch several times is one row: ``times``, and the last ``as_of``.
    """
    edges = {"symbols": list(symbols), "start": window.start, "end": window.end}
    return _rows(conn, "coverage", {**edges, "interval": interval})


def gaps(conn: Connection, tier: Tier | None, limit: int) -> list[Row]:
    """Gaps that have not ended, newest first; ``age_s`` is market seconds since the gap's end."""
    return _rows(conn, "gaps", {"tier": tier, "limit": limit})


def asked_by_hand(conn: Connection) -> list[Row]:
    """Backfill rows that no gap pass made and that have not ended well: ``state`` and ``count``."""
    return _rows(conn, "asked_by_hand", {})


def freshness(conn: Connection) -> list[Row]:
    """One row a tier."""
    return _rows(conn, "freshness", {})


def by_source(conn: Connection) -> list[Row]:
    """One row a source and interval."""
    return _rows(conn, "by_source", {})


def estimates(conn: Connection) -> Row:
    """Rows and bytes, estimated, whatever the size."""
    return _rows(conn, "estimates", {})[0]


def recent_failures(conn: Connection) -> list[Row]:
    """What went wrong most in the last market hour."""
    return _rows(conn, "recent_failures", {})


def leader(conn: Connection) -> Row | None:
    """The scheduler that leads: holder, token, whether its lease is alive."""
    rows = _rows(conn, "leader", {})
    return rows[0] if rows else None


def _rows(conn: Connection, name: str, parameters: dict[str, Any]) -> list[Row]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(sql("overview", name), parameters or None).fetchall()
