"""Fills slots with jobs: who is asked, for what, in which order, until when."""

from collections.abc import Sequence
from datetime import datetime

from core.words import Interval
from db import cursors
from db.pool import Connection, Database
from db.slots import SlotKey
from scheduler import daily
from scheduler.cadence import Slot
from scheduler.plan import Ask, Plan, Suppliers
from scheduler.pressure import stale_after
from workers.queues import CollectJob, Kind


def key_of(slot: Slot) -> SlotKey:
    """The slot's identity in the database."""
    return SlotKey(slot.kind.value, slot.tier, slot.ts, slot.phase)


def fill(
    db: Database, plan: Plan, slots: Sequence[Slot], speed: float
) -> dict[SlotKey, list[CollectJob]]:
    """The jobs of each slot, those first whose symbols have waited longest.

    Args:
        db: Knows who was answered last, and which sources supplied a session.
        plan: The slots' plan.
        slots: What is to be pushed.
        speed: Market seconds per real second.
    """
    jobs: dict[SlotKey, list[CollectJob]] = {}
    with db.transaction() as conn:
        answered = _answered(conn, plan, slots)
        for slot in slots:
            suppliers = _suppliers(conn, plan, slot) if slot.kind is Kind.REREAD else None
            not_after = stale_after(slot, plan, speed)
            asks = plan.asks(slot, answered[_interval(slot)], suppliers)
            jobs[key_of(slot)] = [_job(slot, ask, not_after) for ask in asks]
    return jobs


def _answered(
    conn: Connection, plan: Plan, slots: Sequence[Slot]
) -> dict[Interval | None, dict[int, datetime]]:
    ids: dict[Interval | None, set[int]] = {}
    for slot in slots:
        members = plan.members_of(slot)
        ids.setdefault(_interval(slot), set()).update(member.symbol_id for member in members)
    return {
        interval: cursors.last_answered(conn, interval, sorted(asked))
        for interval, asked in ids.items()
    }


def _suppliers(conn: Connection, plan: Plan, slot: Slot) -> Suppliers:
    by_calendar: dict[str, list[int]] = {}
    for member in plan.members_of(slot):
        by_calendar.setdefault(member.calendar, []).append(member.symbol_id)
    found: dict[int, Sequence[str]] = {}
    for name, ids in by_calendar.items():
        window = daily.session_window(plan.calendars[name], slot.ts)
        if window is not None:
            found |= cursors.suppliers(conn, ids, window)
    return found


def _interval(slot: Slot) -> Interval | None:
    """Whose answers tell how long the slot's symbols have waited; None: quotes'."""
    if slot.kind is Kind.QUOTES_L1:
        return None
    return Interval.D1 if slot.kind is Kind.BARS_EOD else Interval.M1


def _job(slot: Slot, ask: Ask, not_after: datetime) -> CollectJob:
    return CollectJob(
        kind=slot.kind,
        tier=slot.tier,
        slot=slot.ts,
        symbols=ask.symbols,
        not_after=not_after,
        start=ask.window.start if ask.window else None,
        end=ask.window.end if ask.window else None,
        provider=ask.provider,
        phase=slot.phase,
        part=ask.part,
    )
