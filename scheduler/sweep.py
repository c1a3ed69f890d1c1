"""The sweep: claim what is due, push its jobs, mark it pushed.

A slot is claimed in one statement together with the check of the leader's token, so that it has one
owner. Whoever dies between claim and mark leaves a slot that the next leader pushes again, with the
same job ids. Live work that nobody pushed in time is skipped and counted: the gap pass heals bars,
and a burst of old work would only delay the new.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from redis import Redis

from core import metrics
from core.errors import GaplessError, LeaseLostError
from core.telemetry import Telemetry
from core.windows import Window
from db import slots
from db.live_settings import LiveSettings
from db.pool import Database
from db.slots import SlotKey
from scheduler import facts
from scheduler.cadence import Slot
from scheduler.filling import fill, key_of
from scheduler.leader import Leader
from scheduler.plan import Plan
from scheduler.planning import Planning
from scheduler.pressure import Pressure, stale_after
from workers.queues import Kind, depths, enqueue_collect, remembers, remind

log = logging.getLogger(__name__)

_LONGEST_REST_S = 0.25
_SHORTEST_REST_S = 0.005
"""Real seconds; slots that fall due closer together than this are claimed together."""
_DEFERRED_REST_S = 0.1
_SAY_SKIPPED_EVERY_S = 5.0
_REMEMBERS_EVERY_S = 1.0
_KINDS = frozenset(kind.value for kind in Kind)


class Sweep:
    """Pushes the plan's slots while this process leads."""

    def __init__(
        self,
        db: Database,
        redis: Redis,
        leader: Leader,
        planning: Planning,
        settings: LiveSettings,
        telemetry: Telemetry,
    ) -> None:
        self._db = db
        self._redis = redis
        self._clock = db.clock
        self._leader = leader
        self._planning = planning
        self._settings = settings
        self._telemetry = telemetry
        self._term: int | None = None
        self._first_ever = False
        self._live_from = db.clock.now()
        self._daily_from = db.clock.now()
        self._deferred: list[Slot] = []
        """Daily slots that are due and wait for room."""
        self._owed: list[Slot] = []
        """Claimed slots whose jobs are not known to be pushed."""
        self._skipped = 0
        self._say_skipped_at = 0.0
        self._looked_at = float("-inf")

    def step(self) -> float:
        """Push what is due now; returns real seconds to rest."""
        token, plan = self._leader.token(), self._planning.current()
        wanted = self._settings.current().local_sweep_enabled
        if token is None or plan is None or not wanted:
            self._term = None
            return _LONGEST_REST_S
        try:
            if token != self._term or self._redis_forgot():
                self._take_over(token, plan)
            self._push_owed(plan)
            self._claim_due(token, plan)
            self._push_owed(plan)
        except GaplessError as error:
            # What was claimed is not known now: the next step asks the database.
            self._term = None
            if isinstance(error, LeaseLostError):
                self._leader.lost()
            raise
        return self._rest(plan)

    def _take_over(self, token: int, plan: Plan) -> None:
        """Begin a term where the last one ended, by what the database knows."""
        now = self._clock.now()
        newest = slots.newest(self._db)
        last = [at for key in plan.rhythms if (at := newest.get(key)) is not None]
        # The first sweep of a database begins with the slots that still run; it missed none.
        self._first_ever = not last
        if last:
            self._live_from = max(min(last), now - facts.MISSED_LOOK_BACK)
        else:
            self._live_from = now - facts.FIRST_LOOK_BACK
        self._daily_from = now - facts.DAILY_CATCH_UP
        self._deferred = []
        self._make_up_for_loss(now)
        claimed = slots.unpushed(self._db, now - facts.DAILY_CATCH_UP - timedelta(days=1))
        found = {
            key: plan.slot(Kind(key.kind), key.tier, key.slot_ts, key.phase)
            for key in claimed
            # A newer version's kind is pushed by a newer leader.
            if key.kind in _KINDS
        }
        self._owed = [slot for slot in found.values() if slot is not None]
        # Slots of an older plan: whom they held is in other phases now.
        self._skip([key for key, slot in found.items() if slot is None])
        self._term = token
        log.info("sweep takes over", extra={"token": token, "owed": len(self._owed)})

    def _redis_forgot(self) -> bool:
        now = self._clock.monotonic()
        if now - self._looked_at < _REMEMBERS_EVERY_S:
            return False
        self._looked_at = now
        return not remembers(self._redis)

    def _make_up_for_loss(self, now: datetime) -> None:
        """Open the daily slots again whose jobs a Redis that forgot everything may have held.

        Lost live bars are found by the gap pass and quotes are asked for again anyway, but nothing
        else would ask for a second reading.
        """
        if remembers(self._redis):
            return
        since = now - timedelta(seconds=facts.DAILY_IN_QUEUE_REAL_S * self._clock.speed)
        again = slots.reopen_daily(self._db, since)
        if again:
            log.warning("Redis forgot its jobs, daily slots go again", extra={"slots": again})
        remind(self._redis)

    def _claim_due(self, token: int, plan: Plan) -> None:
        now, speed = self._clock.now(), self._clock.speed
        live: list[Slot] = []
        if now > self._live_from:
            live = plan.live(Window(self._live_from, now))
        if now > self._daily_from:
            self._deferred += plan.daily(Window(self._daily_from, now))
            self._daily_from = now
        wanted: list[Slot] = []
        skipped: list[Slot] = []
        deferred: list[Slot] = []
        if live or self._deferred:
            pressure = Pressure(plan, depths(self._redis), speed)
            for slot in [*live, *self._deferred]:
                held_back = pressure.yields(slot)
                stale = stale_after(slot, plan, speed) <= now
                if stale and self._first_ever:
                    continue
                if stale or (slot.live and held_back):
                    skipped.append(slot)
                elif held_back:
                    deferred.append(slot)
                else:
                    wanted.append(slot)
                    pressure.took(slot, plan.jobs_of(slot))
            mine = self._claim(token, [*wanted, *skipped])
            self._owed += [slot for slot in wanted if key_of(slot) in mine]
            self._skip([key for slot in skipped if (key := key_of(slot)) in mine])
        self._live_from, self._deferred, self._first_ever = now, deferred, False

    def _claim(self, token: int, due: Sequence[Slot]) -> set[SlotKey]:
        if not due:
            return set()
        return set(slots.claim_slots(self._db, token, [key_of(slot) for slot in due]))

    def _push_owed(self, plan: Plan) -> None:
        if not self._owed:
            return
        now, speed = self._clock.now(), self._clock.speed
        fresh = [slot for slot in self._owed if stale_after(slot, plan, speed) > now]
        jobs = fill(self._db, plan, fresh, speed) if fresh else {}
        enqueue_collect(self._redis, [job for of_slot in jobs.values() for job in of_slot])
        pushed_at = self._clock.now()
        if jobs:
            slots.mark_pushed(self._db, list(jobs), {key: len(js) for key, js in jobs.items()})
        for slot in fresh:
            self._telemetry.count(metrics.SLOTS_PUSHED, slot.kind, slot.tier)
            if slot.live:
                late_s = (pushed_at - slot.due).total_seconds() / speed
                self._telemetry.observe(metrics.SLOT_LATENESS, late_s * 1000)
        late = [key for slot in self._owed if (key := key_of(slot)) not in jobs]
        self._owed = []
        self._skip(late)

    def _skip(self, keys: Sequence[SlotKey]) -> None:
        """Close claimed slots that nobody will push, and count them."""
        if keys:
            slots.mark_pushed(self._db, keys)
            for key in keys:
                self._telemetry.count(metrics.SLOTS_MISSED, key.kind, key.tier)
            self._skipped += len(keys)
        if self._skipped and self._clock.monotonic() >= self._say_skipped_at:
            log.warning("slots skipped: too late or queues behind", extra={"slots": self._skipped})
            self._skipped = 0
            self._say_skipped_at = self._clock.monotonic() + _SAY_SKIPPED_EVERY_S

    def _rest(self, plan: Plan) -> float:
        longest = _DEFERRED_REST_S if self._deferred else _LONGEST_REST_S
        due = plan.next_due(self._live_from - timedelta(microseconds=1))
        if due is None:
            return longest
        left = (due - self._clock.now()).total_seconds()
        real = self._clock.real_seconds(left) if left > 0 else 0.0
        return min(max(real, _SHORTEST_REST_S), longest)
