"""Long rolling windows of provider budgets, leased in blocks from PostgreSQL.

Redis holds the pool that calls draw on; here stands what it was filled with, so that losing every
key in Redis forgets no daily cap.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from core.words import Share
from db.pool import Connection, Database
from db.sql import sql


@dataclass(frozen=True, slots=True)
class Block:
    """Units of one window, leased for a while."""

    block_id: int
    """0 when nothing could be leased."""
    units: int
    frees_in_s: float
    """Market seconds until the next units leave the window; 0 when some were leased."""


class LongWindowLedger:
    """Counts windows longer than a minute; exact for any number of processes."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def first_use(self, scope: str) -> bool:
        """Whether nobody ever spent from this scope; from now on somebody did.

        Raises:
            StorageError: the database can't say.
        """

        def work(conn: Connection) -> bool:
            return (
                conn.execute(sql("budgets", "first_use"), {"scope": scope}).fetchone() is not None
            )

        # Not run again after a lost commit: the second answer would be no, which is the safe one,
        # but somebody who waits for the database waits for budget.
        return self._db.run(work, attempts=1)

    def lease(
        self,
        scope: str,
        *,
        share: Share,
        units: int,
        window_s: float,
        wanted: int,
        least: int,
        hold_s: float,
        linger_s: float,
    ) -> Block:
        """Lease ``least`` to ``wanted`` units of a rolling window, or none.

        They are counted until ``window_s`` after the last moment at which they can be used. A commit
        whose answer is lost leaves them counted and unused.

        Args:
            scope: The limit.
            share: Live work takes what is free; backfill also leaves what live work used within
                ``linger_s`` before the window.
            units: Units per window.
            window_s: Market seconds.
            wanted: At most so many.
            least: At least so many, else none.
            hold_s: Market seconds from now within which they reach the provider, if ever.
            linger_s: Market seconds.

        Raises:
            StorageError: the database can't say.
        """
        linger = timedelta(seconds=linger_s)

        def work(conn: Connection) -> Block:
            row: dict[str, Any] = {"scope": scope, "share": share.value, "linger": linger}
            now = _one(conn, "lock", row)[0]
            row["now"] = now
            live, lingering, backfill = _one(conn, "used", row)
            free = units - backfill - (live if share is Share.LIVE else lingering)
            if free < least:
                return Block(0, 0, _seconds_until(_one(conn, "frees", row)[0], now))
            row["units"] = min(wanted, free)
            row["until"] = now + timedelta(seconds=hold_s + window_s)
            booked = conn.execute(sql("budgets", "reuse"), row).fetchone()
            block_id = booked[0] if booked is not None else _one(conn, "book", row)[0]
            return Block(block_id, row["units"], 0.0)

        return self._db.run(work, attempts=1)

    def refund(self, block_id: int, units: int) -> None:
        """Give back units of a block that nobody used; a block that counts no more is left alone.

        Raises:
            StorageError: the database is away; the units stay counted.
        """

        def work(conn: Connection) -> None:
            conn.execute(sql("budgets", "refund"), {"block_id": block_id, "units": units})

        self._db.run(work, attempts=1)

    def used(self, scope: str) -> tuple[int, int]:
        """Units that count now, live and backfill, pools in Redis included."""

        def work(conn: Connection) -> tuple[int, int]:
            now = conn.execute("SELECT gapless_now()").fetchone()
            assert now is not None, "a SELECT without FROM has a row"
            row = {"scope": scope, "now": now[0], "linger": timedelta(0)}
            live, _, backfill = _one(conn, "used", row)
            return live, backfill

        return self._db.run(work)


def _one(conn: Connection, name: str, row: dict[str, Any]) -> tuple[Any, ...]:
    found = conn.execute(sql("budgets", name), row).fetchone()
    assert found is not None, f"statement {name} yields a row"
    return found


def _seconds_until(then: datetime | None, now: datetime) -> float:
    return 0.0 if then is None else max(0.0, (then - now).total_seconds())
