"""Waits for backfill rows: how far they are, what holds them up, and what they brought."""

import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime

from core.errors import QueueError
from core.words import Tier
from db import backfill, overview
from db.backfill import Progress
from db.pool import Database
from ops.connect import redis_client
from ops.words import counted
from workers.queues import backfill_queue, working

_ENDED = ("done", "failed", "cancelled")
_LOOK_S = 0.5
_CHECK_S = 2.0
_TELL_S = 10.0
"""Real seconds between two lines where a line can't rewrite itself."""


class Waiting:
    """Stays until every row has ended, or until nobody is there to end them.

    Args:
        db: The database.
        redis_url: Where workers register.
        ids: The rows.
        grace_s: Real seconds without a worker or a leader after which waiting makes no sense; a
            restart is shorter.
    """

    def __init__(
        self, db: Database, redis_url: str, ids: Sequence[int], *, grace_s: float = 8.0
    ) -> None:
        self._db = db
        self._redis_url = redis_url
        self._ids = ids
        self._grace_s = grace_s
        self._rewrites = sys.stderr.isatty()
        self._began = db.clock.monotonic()
        self._told: tuple[int, str] = (-1, "")
        self._told_at = 0.0
        self._checked_at = 0.0
        self._alone_since: float | None = None

    def run(self, since: datetime) -> int:
        """Wait; 0 when all are done, 1 when any failed or nobody works on them.

        Args:
            since: Market time before the rows were enqueued; bars stored later count as new.
        """
        while True:
            found = backfill.progress(self._db, self._ids)
            ended = sum(one.rows for one in found if one.state in _ENDED)
            if ended == len(self._ids):
                self._over()
                return self._close(found, since)
            self._tell(found, ended)
            trouble = self._trouble(found)
            if trouble is not None:
                self._over()
                left = counted(len(self._ids) - ended, "row")
                print(f"{trouble}; {left} left queued until then", file=sys.stderr)
                return 1
            self._db.clock.sleep(_LOOK_S)

    def _tell(self, found: Sequence[Progress], ended: int) -> None:
        now = self._db.clock.monotonic()
        reasons = [one.reason for one in found if one.state not in _ENDED and one.reason]
        passed = now - self._began
        rest = len(self._ids) - ended
        eta = f"about {passed / ended * rest:.0f} s left" if ended else "waiting for the first"
        why = f"; {reasons[0]}" if reasons else ""
        line = f"{ended}/{counted(len(self._ids), 'row')} ended, {eta}{why}"
        if self._rewrites:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{line[:width]:<{width}}", end="", file=sys.stderr, flush=True)
        elif (ended, why) != self._told or now - self._told_at >= _TELL_S:
            self._told, self._told_at = (ended, why), now
            print(line, file=sys.stderr, flush=True)

    def _over(self) -> None:
        if self._rewrites:
            print(file=sys.stderr)

    def _trouble(self, found: Sequence[Progress]) -> str | None:
        """Why nobody will end the rows, once that has been so for a while."""
        now = self._db.clock.monotonic()
        open_tiers = {one.tier for one in found if one.state not in (*_ENDED, "paused")}
        if not open_tiers:
            return "the rows left are paused (`ops backfill resume --all`)"
        if now - self._checked_at < _CHECK_S:
            return None
        self._checked_at = now
        reason = self._alone(open_tiers)
        if reason is None:
            self._alone_since = None
            return None
        self._alone_since = self._alone_since or now
        return reason if now - self._alone_since >= self._grace_s else None

    def _alone(self, tiers: set[Tier]) -> str | None:
        try:
            with closing(redis_client(self._redis_url)) as redis:
                workers = working(redis)
        except QueueError as error:
            return str(error)
        idle = sorted(tier for tier in tiers if not workers[backfill_queue(tier)])
        if idle:
            return (
                f"no backfill worker of {', '.join(idle)} is alive; start one (`ops up`, or the "
                "Procfile's; a demo that is kept has none)"
            )
        with self._db.transaction() as conn:
            leader = overview.leader(conn)
        if leader is None or not leader["alive"]:
            return "no scheduler leads, so nothing is handed out; start one (`ops up`, or the Procfile's)"
        return None

    def _close(self, found: Sequence[Progress], since: datetime) -> int:
        counts: Counter[str] = Counter()
        for one in found:
            counts[one.state] += one.rows
        states = ", ".join(f"{rows:,} {state}" for state, rows in sorted(counts.items()))
        bars, new = backfill.stored_bars(self._db, self._ids, since)
        print(f"{states}; {counted(bars, 'bar')} stored in these windows, {new:,} of them new")
        for one in found:
            if one.state == "failed":
                print(f"  failed: {one.reason}", file=sys.stderr)
        if counts["failed"]:
            print("see all with `ops backfill list --state failed`", file=sys.stderr)
        return 1 if counts["failed"] else 0
