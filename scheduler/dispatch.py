"""Backfill rows that are due become queue jobs: at a rate, within each tier's concurrency, T0 first.

The row is the work, the job only says where to look. A job that gets lost is pushed again when the
row's dispatch has run out; one that comes twice finds its rows taken.
"""

import logging

from redis import Redis

from core import metrics
from core.settings import Settings
from core.telemetry import Telemetry
from core.words import Tier
from db import backfill
from db.live_settings import LiveSettings
from db.pool import Database
from scheduler.leader import Leader
from workers.queues import BackfillJob, backfill_queue, depths, enqueue_backfill

log = logging.getLogger(__name__)

_BUSY_REST_S = 0.05
_IDLE_REST_S = 0.25
_BURST_S = 1.0
"""Rows that were not dispatched for want of due ones may follow within this much of the rate."""
_TAKEN_WITHIN_S = 10.0
"""Real seconds after which a pushed row that no worker claimed is pushed again."""
_REAP_EVERY_S = 1.0
_DEPTH_EVERY_S = 2.0
_PUSHES_PER_TERM = 1_000_000


class Dispatch:
    """Pushes due rows while this process leads."""

    def __init__(
        self,
        db: Database,
        redis: Redis,
        leader: Leader,
        settings: LiveSettings,
        telemetry: Telemetry,
    ) -> None:
        self._db = db
        self._redis = redis
        self._clock = db.clock
        self._leader = leader
        self._settings = settings
        self._telemetry = telemetry
        self._pushes = 0
        self._allowance = 0.0
        self._filled_at = db.clock.monotonic()
        self._next_reap = 0.0
        self._next_depth = 0.0

    def step(self) -> float:
        """Push what is due now; returns real seconds to rest."""
        token = self._leader.token()
        if token is None:
            return _IDLE_REST_S
        settings = self._settings.current()
        now = self._clock.monotonic()
        if now >= self._next_reap:
            reaped = backfill.reap(self._db)
            if reaped < backfill.REAPED:
                self._next_reap = now + _REAP_EVERY_S
            if reaped:
                log.info("backfill rows of silent workers taken back", extra={"rows": reaped})
        if now >= self._next_depth:
            self._next_depth = now + _DEPTH_EVERY_S
            self._show_depth()
        return _BUSY_REST_S if self._push_due(settings, token) else _IDLE_REST_S

    def _push_due(self, settings: Settings, token: int) -> int:
        self._refill(settings.backfill_dispatch_rate_per_sec)
        pushed = 0
        for tier in Tier:
            room = int(self._allowance)
            if room <= 0:
                break
            concurrency = settings.backfill_max_concurrency(tier)
            ids = backfill.due(self._db, tier, room, concurrency)
            if not ids:
                continue
            # Where no worker takes them, rows that are pushed again must not pile up in Redis.
            if depths(self._redis)[backfill_queue(tier)] >= 2 * concurrency:
                continue
            # Marked before it is pushed: dying in between costs the rows a wait, never a double push.
            backfill.mark_dispatched(self._db, ids, _TAKEN_WITHIN_S)
            enqueue_backfill(
                self._redis, self._jobs(tier, ids, settings.backfill_batch_size, token)
            )
            self._allowance -= len(ids)
            pushed += len(ids)
        return pushed

    def _jobs(self, tier: Tier, ids: list[int], size: int, token: int) -> list[BackfillJob]:
        jobs: list[BackfillJob] = []
        # One of them may have been their worker's end: alone it takes no other row with it.
        alone = backfill.left_by_the_dead(self._db, ids)
        others = [row for row in ids if row not in alone]
        batches = [others[start : start + size] for start in range(0, len(others), size)]
        for batch in [*batches, *([row] for row in ids if row in alone)]:
            self._pushes += 1
            # The fencing token in front keeps numbers of one leader apart from those of the next.
            push = token * _PUSHES_PER_TERM + self._pushes % _PUSHES_PER_TERM
            jobs.append(BackfillJob(tier=tier, ids=tuple(batch), push=push))
        return jobs

    def _refill(self, rate: float) -> None:
        now = self._clock.monotonic()
        # At least one row: a rate below one a second still has to let one through.
        most = max(rate * _BURST_S, 1.0)
        self._allowance = min(self._allowance + (now - self._filled_at) * rate, most)
        self._filled_at = now

    def _show_depth(self) -> None:
        depth = backfill.depth(self._db)
        ages = [age for _, age in depth.values() if age is not None]
        self._telemetry.set(metrics.BACKFILL_DEPTH, sum(count for count, _ in depth.values()))
        self._telemetry.set(metrics.BACKFILL_OLDEST, max(ages, default=0.0))
