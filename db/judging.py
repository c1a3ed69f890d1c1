"""What the gap pass asks beside the gaps: since when a symbol counts, which windows are in hand."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from core.windows import Window
from core.words import Interval, Tier
from db.backfill import PARKED_S
from db.pool import Connection, Database
from db.sql import sql


@dataclass(frozen=True, slots=True)
class Held:
    """A backfill row that has its window in hand, or gave it up lately."""

    job_id: int
    symbol_id: int
    window: Window
    not_before: datetime | None
    elastic: bool
    """It waits, and nobody but a gap pass asked for it: it may take in its neighbours."""


def listed_since(conn: Connection) -> dict[int, datetime]:
    """When each active symbol joined the universe, by knowledge time."""
    return dict(conn.execute(sql("judging", "listed_since")).fetchall())


def held(conn: Connection, interval: Interval, window: Window) -> list[Held]:
    """Rows of an interval that touch a window and are open, or were given up lately."""
    parameters = {
        "interval_s": interval.seconds,
        "start": window.start,
        "end": window.end,
        "parked_s": PARKED_S,
    }
    rows = conn.execute(sql("judging", "held"), parameters, binary=True)
    return [
        Held(job_id, symbol_id, Window(start, end), not_before, elastic)
        for job_id, symbol_id, start, end, not_before, elastic in rows
    ]


def stretch(db: Database, wider: Sequence[tuple[int, Window]]) -> int:
    """Give waiting rows wider windows; those that were taken meanwhile stay as they are.

    Returns:
        Rows changed.
    """
    if not wider:
        return 0
    parameters = {
        "ids": [job_id for job_id, _ in wider],
        "starts": [window.start for _, window in wider],
        "ends": [window.end for _, window in wider],
    }

    def work(conn: Connection) -> int:
        # Else an enqueue at the same moment could give a new row the same window.
        conn.execute(sql("judging", "lock_enqueue"))
        return conn.execute(sql("judging", "stretch"), parameters).rowcount

    return db.run(work)


def end_of_day(
    conn: Connection, since: datetime
) -> dict[tuple[datetime, Tier], dict[int, datetime]]:
    """Pushed end-of-day slots by (session's close, tier): phase to the time of its push."""
    found: dict[tuple[datetime, Tier], dict[int, datetime]] = {}
    rows = conn.execute(sql("judging", "end_of_day"), {"since": since})
    for close, tier, phase, pushed_at in rows:
        found.setdefault((close, Tier(tier)), {})[phase] = pushed_at
    return found
