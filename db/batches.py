"""What workers hand to the write path, and what it reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from operator import lt

from core.bars import Bar
from core.errors import UsageError
from core.windows import Window, floor_to, merge
from core.words import Interval
from db.backfill import Finish
from db.evidence import Failure, Payload, Refusal


@dataclass(frozen=True, slots=True)
class Answer:
    """What a source answered for one symbol and one window."""

    symbol_id: int
    window: Window
    asked_at: datetime
    """When the request was sent, market time."""
    bars: Sequence[Bar]
    """Ascending, no time twice, all inside the window."""
    settled_until: datetime
    """The source could no longer change what ends at or before this; covered grows up to here."""
    lacking: Sequence[Window] = ()
    """Expected trading time in the window, before ``asked_at``, for which there was no bar."""

    def settled_lacking(self) -> list[Window]:
        """The part of ``lacking`` that the source could no longer change."""
        return [
            Window(w.start, min(w.end, self.settled_until))
            for w in merge(self.lacking)
            if w.start < self.settled_until
        ]

    def open_lacking(self) -> list[Window]:
        """The part of ``lacking`` that may still come."""
        return [
            Window(max(w.start, self.settled_until), w.end)
            for w in merge(self.lacking)
            if w.end > self.settled_until
        ]

    def in_whole_bars(self, interval: Interval) -> "Answer":
        """The same answer with its edges on bars: a window speaks of the bars that start in it.

        Daily bars have no grid; their answers stay as they are.
        """
        if interval is Interval.D1:
            return self
        window, until = self.window, self.settled_until
        if interval is Interval.M1 and not (
            window.start.second
            or window.start.microsecond
            or window.end.second
            or window.end.microsecond
            or until.second
            or until.microsecond
        ):
            return self
        step = interval.delta
        start, end = _ceil(self.window.start, step), _ceil(self.window.end, step)
        settled = floor_to(self.settled_until, step)
        if (start, end, settled) == (self.window.start, self.window.end, self.settled_until):
            return self
        if start == end:
            # Less than a bar, and no bar starts in it.
            end = start + step
            settled = min(settled, start)
        return replace(self, window=Window(start, end), settled_until=settled)

    def check(self, interval: Interval) -> None:
        """Refuse what the write path takes for granted.

        Raises:
            UsageError: bars outside of the window or not ascending, a daily bar without a session.
        """
        bars, window = self.bars, self.window
        if len(bars) == 1 and window.start <= bars[0].ts < window.end and interval is Interval.M1:
            return
        if not bars:
            return
        times = [bar.ts for bar in bars]
        if not all(map(lt, times, times[1:])):
            raise UsageError(
                f"bars of symbol {self.symbol_id} over {self.window} are not ascending"
            )
        if times[0] < window.start or times[-1] >= window.end:
            raise UsageError(
                f"bars of symbol {self.symbol_id} reach from {times[0]} to {times[-1]}, "
                f"outside of the window that was asked, {self.window}"
            )
        if interval is Interval.D1 and any(bar.session is None for bar in self.bars):
            raise UsageError(f"a daily bar of symbol {self.symbol_id} has no session date")


@dataclass(frozen=True, slots=True)
class Batch:
    """Answers of one source and interval that are written in one transaction."""

    source: str
    interval: Interval
    answers: Sequence[Answer]
    failures: Sequence[Failure] = ()
    refusals: Sequence[Refusal] = ()
    payloads: Sequence[Payload] = ()
    inbox: Mapping[int, Sequence[str]] = field(default_factory=dict[int, Sequence[str]])
    """Coordinator element -> symbols answered by this batch."""
    finished_jobs: Sequence[Finish] = ()
    """Backfill rows whose outcome commits together with their bars."""
    reason: str | None = None
    """Why stored bars change, where it is known (split, repair); goes to revised rows."""


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What one write added."""

    as_of: datetime
    final: int
    revised: int
    partial: int
    withdrawn: int
    unchanged: int
    """Bars of the batch that were known already."""


@dataclass(slots=True)
class Series:
    """All that a batch holds for one symbol; never changed, but a frozen one takes thrice the time."""

    symbol_id: int
    window: Window
    """Hull of everything that was asked."""
    answers: tuple[Answer, ...]
    """In the order in which they were asked; empty when all asks failed."""


def _ceil(instant: datetime, step: timedelta) -> datetime:
    floor = floor_to(instant, step)
    return floor if floor == instant else floor + step
