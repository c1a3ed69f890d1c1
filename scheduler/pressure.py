"""Who yields when queues are behind: lower tiers before higher ones, quotes before bars.

A queue is behind when more jobs wait in it than two cadences of its tier push; in a fast replay two
cadences are a moment, so a few real seconds of work are allowed as well. Pure.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from core.words import Tier
from scheduler import facts
from scheduler.cadence import Slot
from scheduler.plan import Plan
from workers.queues import Kind, collect_queue

_FIRST = 1.0
"""Quotes, and all that can wait, yield when a queue holds this many times its allowance."""
_SECOND = 1.5
"""Bars yield to a more important tier."""
_LAST = 2.0
"""Bars yield to their own tier's backlog: what was pushed now would be stale on arrival."""
_DAILY_JOBS = 2
"""End-of-day jobs wait here rather than in the queue while it holds this many."""


class Pressure:
    """How far each tier's queue is behind, from one look at the queues."""

    def __init__(self, plan: Plan, depths: Mapping[str, int], speed: float) -> None:
        """Judge.

        Args:
            plan: Says how many jobs a cadence pushes.
            depths: Jobs waiting by queue name.
            speed: Market seconds per real second now.
        """
        self._waiting = {tier: depths.get(collect_queue(tier), 0) for tier in Tier}
        self._behind = {
            tier: self._waiting[tier] / max(allowance(plan, tier, speed), 1.0) for tier in Tier
        }

    def yields(self, slot: Slot) -> bool:
        """Whether the slot makes room now: a live one is skipped, a daily one waits."""
        own = self._behind[slot.tier]
        above = max((self._behind[tier] for tier in Tier if tier < slot.tier), default=0.0)
        if slot.kind is Kind.BARS_1M:
            return above > _SECOND or own > _LAST
        if slot.kind is Kind.QUOTES_L1:
            return above > _FIRST or own > _FIRST
        return above > _FIRST or self._waiting[slot.tier] >= _DAILY_JOBS

    def took(self, slot: Slot, jobs: int) -> None:
        """Count what was pushed since the look, so that one tick does not flood a queue."""
        self._waiting[slot.tier] += jobs


def allowance(plan: Plan, tier: Tier, speed: float) -> float:
    """Jobs that may wait in a tier's queue before it counts as behind."""
    grace = timedelta(seconds=facts.BEHIND_REAL_S * speed)
    return sum(
        plan.jobs_per_cycle(kind, of) * max(2.0, grace / rhythm.period)
        for (kind, of), rhythm in plan.rhythms.items()
        if of is tier
    )


def stale_after(slot: Slot, plan: Plan, speed: float) -> datetime:
    """Market time after which the slot's jobs are worthless and dropped.

    Live: until the next ask of the same symbols, and at least some real seconds, since at 160x a
    cadence of a minute lasts 0.4 s. Daily: a day; the gap pass asks for what was dropped.
    """
    if not slot.live:
        return slot.due + facts.DAILY_CATCH_UP
    real = facts.LIVE_STALE_REAL_S if slot.kind is Kind.BARS_1M else facts.QUOTE_STALE_REAL_S
    rhythm = plan.rhythms[slot.kind, slot.tier]
    return slot.due + max(rhythm.period, timedelta(seconds=real * speed))
