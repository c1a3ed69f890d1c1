"""The gap pass: expected minus explained becomes backfill rows.

Often it judges the newest stretch of each market, rarely the newest sessions as a whole, so that what
an earlier pass handed over and nobody filled is found again.
"""

import logging
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from core import metrics
from core.settings import Settings
from core.telemetry import Telemetry
from core.windows import Window
from core.words import Capability, Interval, Tier
from db import backfill, capabilities, cursors, gaps, judging, switches
from db.capabilities import SourceFact
from db.gaps import Gap
from db.live_settings import LiveSettings
from db.pool import Database
from scheduler import expectation, facts
from scheduler.gap_rows import Judgement, rows_for
from scheduler.leader import Leader
from scheduler.plan import Plan
from scheduler.planning import Planning, eligible

log = logging.getLogger(__name__)

_IDLE_REST_S = 0.25
_CAPABILITY = {Interval.M1: Capability.BARS_1M, Interval.D1: Capability.BARS_EOD}
_RECENT_PASSES = 5
_RECENT_OPEN = timedelta(hours=20)
"""The frequent pass judges daily bars of sessions that opened since."""


@dataclass(frozen=True, slots=True)
class _Case:
    """What one pass judges by."""

    now: datetime
    settings: Settings
    able: Sequence[SourceFact]
    """What sources can do, without those that an operator has switched off."""
    since: Mapping[int, datetime]


def rest_s(took: Collection[float]) -> float:
    """Real seconds from the begin of a pass to the next, by how long the newest passes took.

    The quickest of them counts: what made the others slow, such as a database that was, may be over.
    """
    usual_s = facts.GAP_DUTY * min(took)
    return max(facts.GAP_EVERY_REAL_S, min(facts.GAP_LONGEST_REST_S, usual_s))


class GapPass:
    """Finds gaps while this process leads."""

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
        self._term: int | None = None
        self._judged_until: datetime | None = None
        """Every deadline of the last pass lies at or after this."""
        self._took: deque[float] = deque(maxlen=_RECENT_PASSES)
        """Real seconds of the newest passes."""
        self._next_market = 0.0
        self._next_real = 0.0
        self._next_full_market = 0.0
        self._next_full_real = 0.0

    def step(self) -> float:
        """Run a pass if one is due; returns real seconds to rest."""
        token, plan = self._leader.token(), self._planning.current()
        if token is None or plan is None:
            return _IDLE_REST_S
        if token != self._term:
            self._term, self._judged_until = token, None
        began, market = self._clock.monotonic(), self._clock.timestamp()
        if began < self._next_real or market < self._next_market:
            left = self._clock.real_seconds(max(self._next_market - market, 0.0))
            return min(max(left, self._next_real - began, 0.01), _IDLE_REST_S)
        full = self._judged_until is None or (
            began >= self._next_full_real and market >= self._next_full_market
        )
        self.run(plan, full=full)
        took = self._clock.monotonic() - began
        self._telemetry.observe(metrics.GAP_PASS_SECONDS, took, "full" if full else "newest")
        self._next_market = market + facts.GAP_EVERY_MARKET_S
        self._took.append(took)
        self._next_real = began + rest_s(self._took)
        if full:
            self._next_full_market = market + facts.GAP_FULL_EVERY.total_seconds()
            self._next_full_real = began + facts.GAP_FULL_EVERY_REAL_S
        return 0.0

    def run(self, plan: Plan, *, full: bool) -> int:
        """One pass over everything that is due for judgement; returns bars newly found missing."""
        now = self._clock.now()
        settings = self._settings.current()
        with self._db.transaction() as conn:
            known = capabilities.current(conn)
            off = switches.disabled(conn)
            listed = judging.listed_since(conn)
        case = _Case(
            now=now,
            settings=settings,
            able=[fact for fact in known if fact.provider not in off],
            since=expectation.since(plan, listed),
        )
        # Before that nobody was listed, so nothing is expected of anybody.
        oldest = recent = min(case.since.values(), default=now)
        if not full and self._judged_until is not None:
            recent = max(oldest, self._judged_until - facts.GAP_OVERLAP)
        deadlines = expectation.deadlines(plan, now, self._clock.speed)
        minutes = expectation.minutes(plan, now, recent)
        found = self._judge(Interval.M1, minutes, deadlines, case)
        self._judged_until = min(deadlines.values(), default=now)
        recent = oldest if full else max(oldest, now - _RECENT_OPEN)
        for tier, sessions in self._sessions(plan, now, recent).items():
            found += self._judge(Interval.D1, sessions, {tier: now}, case)
        return found

    def _judge(
        self,
        interval: Interval,
        expected: Mapping[str, list[Window]],
        deadline: Mapping[Tier, datetime],
        case: "_Case",
    ) -> int:
        settings = case.settings
        windows = [window for hours in expected.values() for window in hours]
        if not windows or not deadline:
            return 0
        whole = Window(min(w.start for w in windows), max(w.end for w in windows))
        capability = _CAPABILITY[interval]
        names = eligible(case.able, settings, capability)
        if names:
            gaps.confirm_empty(
                self._db, interval=interval, since=case.now - expectation.REACH, eligible=names
            )
        policy = [name for band in settings.policy(capability) for name in band]
        missing = gaps.find(
            self._db, interval=interval, expected=expected, deadline=deadline, sources=policy
        )
        if not missing:
            return 0
        answered = self._answered(interval, missing, whole)
        with self._db.transaction() as conn:
            held = judging.held(conn, interval, whole)
        judgement = Judgement(
            now=case.now,
            chunk=timedelta(minutes=settings.backfill_chunk_minutes),
            max_attempts=settings.backfill_max_attempts,
            sources=len(names),
            since=case.since,
        )
        rows = rows_for(missing, held, answered, judgement)
        judging.stretch(self._db, sorted(rows.wider.items()))
        for tier in Tier:
            jobs = [job for job in rows.new if job.tier is tier]
            added = backfill.enqueue(self._db, jobs)
            if added:
                self._telemetry.count(metrics.BACKFILL_ENQUEUED, tier, amount=len(added))
        if rows.found:
            self._telemetry.count(metrics.GAPS_FOUND, interval, amount=rows.found)
            log.info(
                "gaps found",
                extra={
                    "interval": interval,
                    "bars": rows.found,
                    "rows": len(rows.new),
                    "stretched": len(rows.wider),
                },
            )
        return rows.found

    def _answered(
        self, interval: Interval, missing: list[Gap], whole: Window
    ) -> dict[int, list[Window]]:
        ids = sorted({gap.symbol_id for gap in missing})
        found: dict[int, list[Window]] = {}
        with self._db.transaction() as conn:
            covered = cursors.covered(conn, ids, interval, whole)
        for (symbol_id, _), windows in covered.items():
            found.setdefault(symbol_id, []).extend(windows)
        return found

    def _sessions(
        self, plan: Plan, now: datetime, not_before: datetime
    ) -> dict[Tier, dict[str, list[Window]]]:
        """Sessions whose daily bars are due by tier and calendar: those that the sweep is through."""
        closed = expectation.closed_sessions(plan, now, not_before)
        oldest = min((w.end for hours in closed.values() for w in hours), default=None)
        if oldest is None:
            return {}
        with self._db.transaction() as conn:
            pushed = judging.end_of_day(conn, oldest)
        due: dict[Tier, dict[str, list[Window]]] = {}
        for tier in Tier:
            for name, sessions in closed.items():
                through = [
                    window
                    for window in sessions
                    if expectation.is_through(
                        plan,
                        tier,
                        window.end,
                        now,
                        pushed.get((window.end, tier), {}),
                        speed=self._clock.speed,
                        sweeping=self._settings.current().local_sweep_enabled,
                    )
                ]
                if through:
                    due.setdefault(tier, {})[name] = through
        return due
