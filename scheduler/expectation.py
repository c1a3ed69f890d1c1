"""Which bars are due for judgement: trading time, deadlines and sessions by tier. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from core.sessions import Calendar
from core.windows import Window
from core.words import Tier
from scheduler import facts
from scheduler.plan import Plan
from workers.queues import Kind

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE = timedelta(minutes=1)

REACH = timedelta(days=facts.GAP_HORIZON_SESSIONS * 2 + 10)
"""Holds the sessions of the horizon and the longest closure that an exchange has."""


def deadlines(plan: Plan, now: datetime, speed: float) -> dict[Tier, datetime]:
    """Until when 1m bars are judged: live answers to younger ones may still be on their way.

    That is settle, cadence and grace ago; in a fast replay, where these are a moment, at least some
    real seconds.
    """
    found: dict[Tier, datetime] = {}
    for (kind, tier), rhythm in plan.rhythms.items():
        if kind is Kind.BARS_1M:
            patience = rhythm.period + facts.GAP_GRACE
            patience = max(patience, timedelta(seconds=facts.GAP_REAL_S * speed))
            found[tier] = now - plan.settle_1m - patience
    return found


def minutes(plan: Plan, now: datetime, not_before: datetime) -> dict[str, list[Window]]:
    """Trading time of the horizon by calendar, none of it before an instant.

    A minute that began before that instant is left out whole: a window between two minutes holds no
    bar, and would be asked for in vain.
    """
    expected: dict[str, list[Window]] = {}
    not_before = -((_EPOCH - not_before) // _MINUTE) * _MINUTE + _EPOCH
    for name, calendar in plan.calendars.items():
        start = horizon(calendar, now)
        if start is not None and max(start, not_before) < now:
            expected[name] = calendar.trading(Window(max(start, not_before), now))
    return {name: hours for name, hours in expected.items() if hours}


def closed_sessions(plan: Plan, now: datetime, not_before: datetime) -> dict[str, list[Window]]:
    """Settled sessions of the horizon by calendar, those that opened at or after an instant."""
    closed: dict[str, list[Window]] = {}
    for name, calendar in plan.calendars.items():
        start = horizon(calendar, now)
        if start is not None and start < now:
            closed[name] = [
                Window(session.open, session.close)
                for session in calendar.between(Window(start, now))
                if session.close + facts.SETTLE_1D <= now and session.open >= not_before
            ]
    return {name: sessions for name, sessions in closed.items() if sessions}


def is_through(
    plan: Plan,
    tier: Tier,
    close: datetime,
    now: datetime,
    pushed: Mapping[int, datetime],
    *,
    speed: float,
    sweeping: bool,
) -> bool:
    """Whether the daily bars of a session have been asked for and had time to come.

    Args:
        plan: Says which slots the session's end-of-day sweep has.
        tier: Whose daily bars.
        close: The session's close.
        now: Market time.
        pushed: Phases of that sweep that are pushed, and when.
        speed: Market seconds per real second.
        sweeping: Whether a sweep of ours asks for them at all.
    """
    patience = facts.DAILY_PATIENCE if sweeping else facts.SETTLE_1D * 2
    if now >= close + patience:
        return True
    answer = max(facts.DAILY_ANSWER, timedelta(seconds=facts.GAP_REAL_S * speed))
    first = {
        slot.phase
        for slot in plan.daily_of(close)
        if slot.kind is Kind.BARS_EOD and slot.tier is tier and slot.first_sweep
    }
    return (
        sweeping
        and first <= pushed.keys()
        and all(pushed[phase] + answer <= now for phase in first)
    )


def horizon(calendar: Calendar, now: datetime) -> datetime | None:
    """Open of the oldest session that is judged; None where the calendar has none yet."""
    sessions = list(calendar.between(Window(now - REACH, now)))[-facts.GAP_HORIZON_SESSIONS :]
    return sessions[0].open if sessions else None


def since(plan: Plan, listed: Mapping[int, datetime]) -> dict[int, datetime]:
    """From when each symbol's bars are expected: the open of the session in which it was listed."""
    found: dict[int, datetime] = {}
    for member in plan.members:
        calendar, at = plan.calendars.get(member.calendar), listed.get(member.symbol_id)
        if calendar is not None and at is not None:
            session = calendar.session_at(at)
            found[member.symbol_id] = session.open if session is not None else at
    return found
