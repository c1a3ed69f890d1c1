"""The market clock that a database is marked with, and how a replay reaches every process."""

from collections.abc import Sequence
from datetime import UTC, datetime

from core.clock import Clock, ReplayClock, Segment, SystemClock
from core.errors import ClockMismatchError
from db.pool import Connection, Database, connect
from db.sql import sql

POLL_S = 0.25
"""How often a process looks for announced segments, real seconds."""


def connect_clock(url: str) -> Clock:
    """The clock that this database belongs to.

    Raises:
        StorageError: unreachable or not migrated.
        ClockMismatchError: marked as a replay that nobody has started.
    """
    with connect(url) as conn:
        row = conn.execute(sql("clock", "mark")).fetchone()
        if row is not None and row[0] == "system":
            return SystemClock()
        segments = read_segments(conn)
    if not segments:
        raise ClockMismatchError(
            "the database is marked as a replay without a segment; "
            "whoever started the replay must call set_replay"
        )
    return ReplayClock(segments)


def read_segments(conn: Connection) -> tuple[Segment, ...]:
    """The replay's segments, oldest first; empty in a database that keeps the system's time."""
    return tuple(Segment(*row) for row in conn.execute(sql("clock", "segments")))


def set_replay(conn: Connection, replay_id: str, segments: Sequence[Segment]) -> None:
    """Mark a fresh database as a replay's. The same call again changes nothing.

    Raises:
        ClockMismatchError: the database belongs to another replay, or holds something written in
            system time.
    """
    conn.execute(sql("clock", "mark_replay"), {"replay_id": replay_id})
    row = conn.execute(sql("clock", "mark")).fetchone()
    if row is None or row[:2] != ("replay", replay_id):
        raise ClockMismatchError(
            f"the database belongs to {_mark_text(row)}, not to replay {replay_id!r}; "
            "a replay needs a fresh database of its own"
        )
    for segment in segments:
        announce_segment(conn, segment)


def announce_segment(conn: Connection, segment: Segment) -> None:
    """Add a stretch with another speed.

    Its ``real_start`` should lie at least 1 s ahead, so that all processes switch at once.
    """
    conn.execute(
        sql("clock", "add_segment"),
        {
            "real_start": datetime.fromtimestamp(segment.real_start, UTC),
            "market_start": datetime.fromtimestamp(segment.market_start, UTC),
            "speed": segment.speed,
        },
    )


class ClockKeeper:
    """Brings announced segments to this process's replay clock; idle on the system's clock."""

    def __init__(self) -> None:
        self._next_look = 0.0

    def refresh(self, db: Database) -> None:
        """Look for new segments, at most every ``POLL_S`` real seconds; call it at will."""
        clock = db.clock
        if not isinstance(clock, ReplayClock) or clock.monotonic() < self._next_look:
            return
        self._next_look = clock.monotonic() + POLL_S
        with db.session() as conn:
            segments = read_segments(conn)
        if segments and segments != clock.segments():
            clock.update(segments)


def _mark_text(row: tuple[object, ...] | None) -> str:
    if row is None or row[0] == "system":
        return "the system's clock"
    return f"replay {row[1]!r}"
