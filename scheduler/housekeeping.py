"""What keeps a running fleet in order: clock, plan, calendars, ranks, stuck writes, retention."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from core import metrics
from core.telemetry import Telemetry
from core.words import Capability
from db import cursors, horizon, ranks
from db.clock import ClockKeeper
from db.expire import Retention, expire
from db.live_settings import POLL_S, LiveSettings
from db.pool import Database
from scheduler.calendar_keeper import CalendarKeeper
from scheduler.leader import Leader
from scheduler.planning import Planning

log = logging.getLogger(__name__)

_REST_S = 0.25
_PLAN_EVERY_S = 1.0
_SETTINGS_EVERY_S = POLL_S
_CALENDARS_EVERY_S = 5.0
_STUCK_EVERY_S = 2.0
_RANKS_EVERY_S = 60.0
_FLOOR_EVERY_S = 1.0
_EXPIRE_EVERY_S = 3600.0
_FOLD_EVERY_S = 3600.0
"""Real seconds. The rows of a day leave in steps over the day; a replay's day is over before."""
STUCK_AFTER_S = 10.0
"""Real seconds for which a write transaction may stand before it is ended."""


@dataclass(slots=True)
class _Chore:
    every_s: float
    work: Callable[[], object]
    leader_only: bool
    next_at: float = float("-inf")


class Housekeeping:
    """Does small things in turn; those that write only while this process leads."""

    def __init__(
        self,
        db: Database,
        leader: Leader,
        planning: Planning,
        settings: LiveSettings,
        telemetry: Telemetry,
    ) -> None:
        self._db = db
        self._clock = db.clock
        self._leader = leader
        self._planning = planning
        self._settings = settings
        self._telemetry = telemetry
        self._clock_keeper = ClockKeeper()
        self._calendars = CalendarKeeper(db)
        self._chores = [
            _Chore(0.0, lambda: self._clock_keeper.refresh(db), leader_only=False),
            _Chore(_SETTINGS_EVERY_S, self._refresh_settings, leader_only=False),
            _Chore(_PLAN_EVERY_S, self._planning.refresh, leader_only=False),
            _Chore(_RANKS_EVERY_S, self.publish_ranks, leader_only=True),
            _Chore(_CALENDARS_EVERY_S, self._refresh_calendars, leader_only=True),
            _Chore(_STUCK_EVERY_S, self._end_stuck, leader_only=True),
            _Chore(_EXPIRE_EVERY_S, self._expire, leader_only=True),
            _Chore(_FOLD_EVERY_S, self._fold, leader_only=True),
            # Last, since it waits and fails while the clock is behind what was written.
            _Chore(_FLOOR_EVERY_S, self._raise_floor, leader_only=True),
        ]

    def step(self) -> float:
        """Do the chores that are due; returns real seconds to rest."""
        leading = self._leader.token() is not None
        self._telemetry.set(metrics.LEADER, float(leading))
        for chore in self._chores:
            now = self._clock.monotonic()
            if now >= chore.next_at and (leading or not chore.leader_only):
                chore.work()
                # Set when it is done: one that fails is tried again at once.
                chore.next_at = now + chore.every_s
        return _REST_S

    def publish_ranks(self) -> None:
        """Make the policies' order the one by which reads choose among sources."""
        settings = self._settings.current()
        for capability in (Capability.BARS_1M, Capability.BARS_EOD, Capability.QUOTES_L1):
            if ranks.publish(self._db, capability, settings.policy(capability)):
                log.info("source ranks published", extra={"capability": capability})

    def _refresh_settings(self) -> None:
        if self._settings.refresh(self._db):
            self._planning.refresh()
            if self._leader.token() is not None:
                self.publish_ranks()

    def _refresh_calendars(self) -> None:
        plan = self._planning.current()
        if plan is not None and self._calendars.refresh(plan):
            self._planning.refresh()

    def _end_stuck(self) -> None:
        ended = horizon.end_stuck_writes(self._db, STUCK_AFTER_S)
        if ended:
            self._telemetry.count(metrics.WRITERS_TERMINATED, amount=len(ended))
            log.warning("stuck writes ended", extra={"pids": ended})

    def _raise_floor(self) -> None:
        """Keep the market clock's floor near now, also while nothing is written."""
        horizon.run(self._db, lambda _conn, _as_of: None)

    def _fold(self) -> None:
        folded = cursors.fold(self._db)
        if folded:
            log.info("coverage of long ago was folded", extra={"cursors": folded})

    def _expire(self) -> None:
        settings = self._settings.current()
        removed = expire(
            self._db,
            Retention(
                payload_days=settings.payload_retention_days,
                quote_days=settings.quote_retention_days,
                candle_days=settings.candle_retention_days,
            ),
        )
        if any(removed.values()):
            log.info("retention ran", extra=dict(removed))
