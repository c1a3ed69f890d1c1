"""The plan: one universe, one set of calendars and cadences, and what is due of it.

Pure, and never changed once built. Whoever builds a plan from the same rows gets the same slots
with the same symbols in them, so that a new leader pushes exactly what the old one had claimed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from core.sessions import Calendar
from core.settings import Settings
from core.windows import Window
from core.words import Capability, Tier
from db.universe import Member
from scheduler import daily, facts
from scheduler.cadence import (
    LIVE,
    SWEEP_STRIDE,
    Rhythm,
    Slot,
    bars_rhythm,
    phase_count,
    quotes_rhythm,
)
from scheduler.partition import batches, deal, longest_waiting, shuffled, waiting_rank
from workers.queues import Kind

_KIND_ORDER = {kind: index for index, kind in enumerate(Kind)}
_LONGEST_CLOSURE = timedelta(days=10)
"""A session's last end-of-day sweep comes before the next open, and no exchange closes for
longer."""

Suppliers = Mapping[int, Sequence[str]]
"""Symbol id to the sources that supplied its bars."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One job of a slot: symbols of one calendar and the window asked, None for quotes."""

    part: int
    """Number of its batch in the slot; the jobs of a re-read share it and differ by provider."""
    symbols: tuple[str, ...]
    window: Window | None
    provider: str | None = None


class Plan:
    """What is due when, and which symbols a slot holds."""

    def __init__(
        self,
        members: Sequence[Member],
        calendars: Mapping[str, Calendar],
        settings: Settings,
        settle_1m: timedelta = facts.SETTLE_1M,
    ) -> None:
        named = {member.calendar for member in members}
        self.members = tuple(members)
        self.calendars = {name: calendars[name] for name in sorted(named & calendars.keys())}
        self.batch = settings.live_batch_size
        self.settle_1m = settle_1m
        self._sweeps = {Tier.T0: 1, Tier.T1: 1, Tier.T2: settings.cadence_t2.eod}
        self._groups = {tier: self._by_calendar(tier) for tier in Tier}
        self.rhythms = {(r.kind, r.tier): r for r in self._rhythms(settings, settle_1m)}
        self._dealt = {key: self._deal(key[1], r.phases) for key, r in self.rhythms.items()}
        self._daily: dict[datetime, list[Slot]] = {}

    def live(self, window: Window) -> list[Slot]:
        """Live slots due in ``[start, end)`` for which a market has something to ask."""
        slots = [
            slot
            for rhythm in self.rhythms.values()
            for slot in rhythm.slots(window)
            if any(rhythm.asks(slot, self.calendars[name]) for name in self._phase(slot))
        ]
        return sorted(slots, key=_urgency)

    def daily(self, window: Window) -> list[Slot]:
        """End-of-day and re-read slots that fall due in ``[start, end)``."""
        reach = Window(window.start - _LONGEST_CLOSURE, window.end)
        slots = [
            slot
            for close in daily.closings(self.calendars.values(), reach)
            for slot in self._overlapping(close, window)
            if window.contains(slot.due)
        ]
        return sorted(slots, key=_urgency)

    def daily_of(self, close: datetime) -> list[Slot]:
        """End-of-day and re-read slots of the sessions that close at this instant, by due time."""
        if close not in self._daily:
            # Only a cache: one entry a session, dropped with the plan.
            self._daily[close] = sorted(self._daily_slots(close), key=lambda slot: slot.due)
        return self._daily[close]

    def next_due(self, after: datetime) -> datetime | None:
        """The next instant at which a live slot may fall due; None when nothing is asked live."""
        return min((rhythm.next_due(after) for rhythm in self.rhythms.values()), default=None)

    def slot(self, kind: Kind, tier: Tier, ts: datetime, phase: int) -> Slot | None:
        """The slot of these words; None when this plan has no such slot."""
        if kind not in LIVE:
            slots = self.daily_of(ts)
            return next(
                (s for s in slots if (s.kind, s.tier, s.phase) == (kind, tier, phase)), None
            )
        rhythm = self.rhythms.get((kind, tier))
        return None if rhythm is None else rhythm.slot(ts, phase)

    def jobs_of(self, slot: Slot) -> int:
        """How many jobs the slot is likely to push."""
        return sum(1 for _ in self._batches(slot))

    def members_of(self, slot: Slot) -> list[Member]:
        """Everybody whom the slot may ask, open market or not."""
        return [member for group in self._phase(slot).values() for member in group]

    def asks(
        self, slot: Slot, answered: Mapping[int, datetime], suppliers: Suppliers | None = None
    ) -> list[Ask]:
        """The jobs of a slot, those first whose symbols have waited longest.

        Which symbols share a job and its part number depend on the plan alone; ``answered`` decides
        only the order of jobs and of symbols inside a job.

        Args:
            slot: One of this plan's slots.
            answered: Symbol id to its newest answer; the absent have never been answered.
            suppliers: For a re-read, who is asked again; else the router chooses.
        """
        ranked: list[tuple[tuple[float, ...], Ask]] = []
        for number, (window, batch) in enumerate(self._batches(slot)):
            if slot.kind is Kind.REREAD:
                for source, asked in _by_supplier(batch, suppliers or {}).items():
                    ranked.append(_ranked(number, asked, answered, window, source))
            else:
                ranked.append(_ranked(number, batch, answered, window, None))
        return [ask for _, ask in sorted(ranked, key=lambda pair: pair[0])]

    def jobs_per_cycle(self, kind: Kind, tier: Tier) -> int:
        """Jobs that one cycle of a live kind pushes while all its markets are open."""
        dealt = self._dealt.get((kind, tier), [])
        return sum(len(batches(group, self.batch)) for phase in dealt for group in phase.values())

    def _batches(self, slot: Slot) -> Iterator[tuple[Window | None, list[Member]]]:
        for name, members in self._phase(slot).items():
            window = self._window(slot, self.calendars[name])
            if window is not None:
                asked = None if slot.kind is Kind.QUOTES_L1 else window
                yield from ((asked, batch) for batch in batches(members, self.batch))

    def _window(self, slot: Slot, calendar: Calendar) -> Window | None:
        if slot.live:
            return self.rhythms[slot.kind, slot.tier].asks(slot, calendar)
        return daily.session_window(calendar, slot.ts)

    def _phase(self, slot: Slot) -> dict[str, list[Member]]:
        if slot.live:
            dealt = self._dealt.get((slot.kind, slot.tier), [])
            return dealt[slot.phase] if slot.phase < len(dealt) else {}
        groups = self._closing(slot.tier, slot.ts)
        phases = self._daily_phases(groups)
        index = slot.phase % SWEEP_STRIDE
        if index >= phases:
            return {}
        return {
            name: part for name, group in groups.items() if (part := deal(group, phases)[index])
        }

    def _overlapping(self, close: datetime, window: Window) -> list[Slot]:
        slots = self.daily_of(close)
        near = slots and slots[0].due < window.end and slots[-1].due >= window.start
        return slots if near else []

    def _daily_slots(self, close: datetime) -> Iterator[Slot]:
        for tier in Tier:
            groups = self._closing(tier, close)
            phases = self._daily_phases(groups)
            calendars = [self.calendars[name] for name in groups]
            starts = daily.sweep_starts(close, calendars, self._sweeps[tier]) if groups else []
            yield from daily.slots(Kind.BARS_EOD, tier, close, starts, phases)
            if tier is not Tier.T2:
                yield from daily.slots(Kind.REREAD, tier, close, starts[:1], phases)

    def _closing(self, tier: Tier, close: datetime) -> dict[str, list[Member]]:
        return {
            name: group
            for name, group in self._groups[tier].items()
            if daily.session_window(self.calendars[name], close) is not None
        }

    def _daily_phases(self, groups: Mapping[str, Sequence[Member]]) -> int:
        return phase_count(sum(map(len, groups.values())), facts.DAILY_SPREAD, self.batch)

    def _rhythms(self, settings: Settings, settle: timedelta) -> Iterator[Rhythm]:
        for tier in Tier:
            count = sum(len(group) for group in self._groups[tier].values())
            bars = settings.cadence_s(tier, Capability.BARS_1M)
            quotes = settings.cadence_s(tier, Capability.QUOTES_L1)
            if count and bars is not None:
                yield bars_rhythm(tier, bars, count, self.batch, settle)
            if count and quotes is not None:
                yield quotes_rhythm(tier, quotes, count, self.batch)

    def _by_calendar(self, tier: Tier) -> dict[str, list[Member]]:
        groups = {
            name: shuffled(m for m in self.members if m.tier is tier and m.calendar == name)
            for name in self.calendars
        }
        return {name: group for name, group in groups.items() if group}

    def _deal(self, tier: Tier, phases: int) -> list[dict[str, list[Member]]]:
        dealt = {name: deal(group, phases) for name, group in self._groups[tier].items()}
        return [
            {name: parts[i] for name, parts in dealt.items() if parts[i]} for i in range(phases)
        ]


def _by_supplier(batch: Sequence[Member], suppliers: Suppliers) -> dict[str, list[Member]]:
    asked: dict[str, list[Member]] = {}
    for member in batch:
        for source in suppliers.get(member.symbol_id, ()):
            asked.setdefault(source, []).append(member)
    return asked


def _ranked(
    part: int,
    batch: Sequence[Member],
    answered: Mapping[int, datetime],
    window: Window | None,
    provider: str | None,
) -> tuple[tuple[float, ...], Ask]:
    symbols = tuple(member.symbol for member in longest_waiting(batch, answered))
    return waiting_rank(batch, answered), Ask(part, symbols, window, provider)


def _urgency(slot: Slot) -> tuple[datetime, Tier, int, int]:
    return (slot.due, slot.tier, _KIND_ORDER[slot.kind], slot.phase)
