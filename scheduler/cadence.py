"""When a slot falls due: arithmetic on tier, kind and calendar, no clock and no I/O.

A live kind has a rhythm: cycles of one cadence, aligned to 1970-01-01 UTC, each cut into equal
phases. Every symbol sits in one phase, so it is asked once a cycle. All arithmetic is on whole
microseconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from core.sessions import Calendar
from core.windows import Window, floor_to
from core.words import Tier
from scheduler import facts
from workers.queues import Kind

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
_INSTANT = timedelta(microseconds=1)

_PHASE_STEP_S = 15.0
"""Phases come at least this often where the symbols suffice: budgets like an even load."""
_PHASE_SYMBOLS = 20
"""A phase is not made smaller than this for evenness alone: a job has its own cost."""
_PHASE_SHORTEST_S = 0.25
"""Phases come no faster than this; beyond it a phase holds several batches."""


SWEEP_STRIDE = 100_000
"""Phase number of the first phase of a session's second sweep; no sweep has as many phases."""
LIVE = frozenset({Kind.BARS_1M, Kind.QUOTES_L1})
"""Kinds whose next slot replaces the last: one that comes too late is skipped and counted."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One phase of one cycle: what is claimed, pushed and counted as a whole."""

    kind: Kind
    tier: Tier
    ts: datetime
    """Live: start of the cycle. Daily: the session's close."""
    phase: int
    due: datetime
    """Market time from which it may be pushed."""

    @property
    def live(self) -> bool:
        """Whether the next slot of its kind replaces it."""
        return self.kind in LIVE

    @property
    def first_sweep(self) -> bool:
        """Whether it is of the first sweep of its session; later ones only look for changes."""
        return self.phase < SWEEP_STRIDE


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often one live kind of one tier is asked, and how far an ask looks back."""

    kind: Kind
    tier: Tier
    period: timedelta
    phases: int
    lookback: timedelta = timedelta(0)
    """Bars only: the width of an ask's window."""
    offset: timedelta = timedelta(0)
    """From a phase's nominal instant to its due time."""

    def slots(self, window: Window) -> Iterator[Slot]:
        """Slots due in ``[start, end)``, open market or not, oldest first."""
        first = (window.start - self.offset - EPOCH) // self.period
        last = (window.end - self.offset - EPOCH) // self.period
        for cycle in range(first, last + 1):
            start = EPOCH + cycle * self.period
            for phase in range(self.phases):
                due = self._due(start, phase)
                if window.contains(due):
                    yield Slot(self.kind, self.tier, start, phase, due)

    def slot(self, cycle_start: datetime, phase: int) -> Slot | None:
        """The slot of a cycle that starts at that instant; None when the grid has none there."""
        if phase >= self.phases or (cycle_start - EPOCH) % self.period:
            return None
        return Slot(self.kind, self.tier, cycle_start, phase, self._due(cycle_start, phase))

    def next_due(self, after: datetime) -> datetime:
        """The first grid instant later than ``after``, open market or not."""
        passed = after - self.offset - EPOCH
        start = EPOCH + passed // self.period * self.period
        phase = (passed % self.period) * self.phases // self.period
        # A phase's instant is rounded down, so the one reckoned here may have passed.
        while (due := self._due(start, phase)) <= after:
            phase += 1
        return due

    def _due(self, cycle_start: datetime, phase: int) -> datetime:
        return cycle_start + self.period * phase // self.phases + self.offset

    def asks(self, slot: Slot, calendar: Calendar) -> "Window | None":
        """What the slot asks of a calendar's symbols, None when the exchange has nothing for it.

        Bars: ``[M - lookback, M)`` cut to trading hours, M the last whole minute at the phase's
        nominal instant. So the last minutes of a session are asked once more after they settled,
        and no window reaches across the open. Quotes: one instant, present only while the exchange
        trades.
        """
        if self.kind is Kind.QUOTES_L1:
            trading = calendar.trading(Window(slot.due, slot.due + _INSTANT))
            return trading[0] if trading else None
        minute = floor_to(slot.due - self.offset, MINUTE)
        trading = calendar.trading(Window(minute - self.lookback, minute))
        return Window(trading[0].start, trading[-1].end) if trading else None


def bars_rhythm(
    tier: Tier, cadence_s: float, symbols: int, batch: int, settle: timedelta
) -> Rhythm:
    """The rhythm of a tier's 1m bars.

    T0 is asked all at once when the minute has closed; lower tiers are spread over their cadence.
    The window is one cadence and one settle time wide, so that each bar is asked for soon after its
    end and exactly once after it settled, whatever the symbol's phase.
    """
    period = max(
        _whole_minutes(cadence_s) if tier is Tier.T0 else timedelta(seconds=cadence_s), MINUTE
    )
    phases = 1 if tier is Tier.T0 else phase_count(symbols, period, batch)
    lookback = _whole_minutes(period.total_seconds()) + _whole_minutes(settle.total_seconds())
    return Rhythm(Kind.BARS_1M, tier, period, phases, lookback, facts.ASK_OFFSET)


def quotes_rhythm(tier: Tier, cadence_s: float, symbols: int, batch: int) -> Rhythm:
    """The rhythm of a tier's quotes; a cadence below one second counts as one second."""
    period = timedelta(seconds=max(cadence_s, 1.0))
    return Rhythm(Kind.QUOTES_L1, tier, period, phase_count(symbols, period, batch))


def phase_count(symbols: int, period: timedelta, batch: int) -> int:
    """Into how many phases a cycle is cut: one batch each, more where that evens a small load."""
    seconds = period.total_seconds()
    full = -(-symbols // batch)
    even = min(int(seconds / _PHASE_STEP_S), -(-symbols // _PHASE_SYMBOLS))
    return max(1, min(max(full, even), int(seconds / _PHASE_SHORTEST_S)))


def _whole_minutes(seconds: float) -> timedelta:
    return timedelta(minutes=-(-round(seconds * 1000) // 60_000))
