"""The order that makes as-of reads exact: announce the write, take the row locks, then the as_of.

A reader's horizon stays below the market millisecond of every announced write until it ends, so a
write must be announced before it reads the clock for its as_of. See ``0001_clock.sql``.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from core.errors import StorageError
from db.errors import CLOCK_BEHIND, sqlstate
from db.pool import Connection, Database
from db.sql import sql

T = TypeVar("T")

TICK = timedelta(microseconds=1)
"""The smallest step of knowledge time."""
CLOCK_WAIT_S = 3.0
"""How long a write waits for a market clock that is behind the database's floor, real seconds."""


def announce(conn: Connection) -> None:
    """First statement of a transaction that writes knowledge; never waits."""
    conn.execute(sql("horizon", "write_lock"))


def stamp(conn: Connection) -> datetime:
    """The as_of of an announced write that holds its row locks.

    Raises:
        StorageError: the market clock is behind what was written already; ``patiently`` waits for it.
    """
    row = conn.execute(sql("horizon", "stamp")).fetchone()
    assert row is not None
    return row[0]


def patiently(db: Database, work: Callable[[], T]) -> T:
    """Run ``work``, again while the market clock is behind the floor, for ``CLOCK_WAIT_S`` at most.

    Raises:
        StorageError: the clock is still behind; nothing was written.
    """
    give_up = db.clock.monotonic() + CLOCK_WAIT_S
    while True:
        try:
            return work()
        except StorageError as error:
            if sqlstate(error) != CLOCK_BEHIND or db.clock.monotonic() >= give_up:
                raise
        db.clock.sleep(0.05)


def run(db: Database, work: Callable[[Connection, datetime], T], *, lock: str | None = None) -> T:
    """A small write of knowledge: announced, locked, stamped, retried.

    Args:
        db: Where.
        work: Gets the as_of of its rows; must be idempotent.
        lock: Name of what one writer at a time may change; None for rows that stand alone.
    """

    def attempt(conn: Connection) -> T:
        announce(conn)
        if lock is not None:
            conn.execute(sql("horizon", "lock_name"), {"name": lock})
        return work(conn, stamp(conn))

    return patiently(db, lambda: db.run(attempt))


def end_stuck_writes(db: Database, older_than_s: float = 10) -> list[int]:
    """Terminate write transactions open for longer than that many real seconds (at least 1).

    They hold every reader's horizon. A stopped client answers to no time limit, so its server
    process is ended.

    Returns:
        Process ids of the connections that were ended.
    """
    with db.session() as conn:
        return [pid for (pid,) in conn.execute(sql("horizon", "end_stuck"), {"s": older_than_s})]
