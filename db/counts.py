"""How much is stored of a window, for people who watch a run."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from core.windows import Window
from db.pool import Connection
from db.sql import sql


@dataclass(frozen=True, slots=True)
class Stored:
    """Exact counts of one window."""

    bars: int
    """Bars of one minute and of one day, each once however many sources and revisions it has."""
    revised: int
    """Later versions of these bars, of every source."""
    quotes: int
    """Whenever they were."""
    found_missing: int
    """Bars that the gap pass found missing, each once."""
    explained: int
    """Of those, the ones that were filled or confirmed empty since."""


@dataclass(frozen=True, slots=True)
class RevisedBar:
    """A one-minute bar that has another value now than at an earlier instant."""

    symbol: str
    ts: datetime
    as_of: datetime
    """Whole second at which ``then`` was known."""
    then: tuple[float, float | None]
    """Close and volume."""
    now: tuple[float, float | None]


def stored(conn: Connection, window: Window) -> Stored:
    """Count bars that start in the window exactly; reads whole tables, so for demos and young databases."""
    edges = {"start": window.start, "end": window.end}
    held = conn.execute(sql("counts", "stored"), edges).fetchone()
    gaps = conn.execute(sql("counts", "gaps"), edges).fetchone()
    assert held is not None, "an aggregate without GROUP BY yields one row"
    assert gaps is not None, "an aggregate without GROUP BY yields one row"
    return Stored(*held, *gaps)


def open_gaps(conn: Connection) -> int:
    """Backfill rows of gaps that have not ended."""
    row = conn.execute(sql("counts", "open_gaps")).fetchone()
    assert row is not None, "an aggregate without GROUP BY yields one row"
    return row[0]


def revised_bar(conn: Connection, window: Window, first: str) -> RevisedBar | None:
    """A bar of the window that was revised, of the symbol ``first`` if there is one; None without any."""
    edges = {"start": window.start, "end": window.end, "first": first}
    for symbol, ts, learnt in conn.execute(sql("counts", "revised_examples"), edges).fetchall():
        as_of = (learnt - timedelta(microseconds=1)).replace(microsecond=0)
        key = {"symbol": symbol, "ts": ts, "as_of": as_of}
        row = conn.execute(sql("counts", "known_then"), key).fetchone()
        if row is not None and row[:2] != row[2:]:
            return RevisedBar(symbol, ts, as_of, (row[0], row[1]), (row[2], row[3]))
    return None
