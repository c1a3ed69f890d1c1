"""Trading sessions as sorted arrays: pure look-ups, no calendar library at run time.

The arrays are built once from pandas-market-calendars (``core.sessions_build``, in a process of its
own), published in the database with a version, and read from there by everybody.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from core.errors import UsageError
from core.windows import Window, merge


@dataclass(frozen=True, slots=True)
class Session:
    """One trading day of an exchange."""

    label: date
    """The exchange's local date."""
    segments: tuple[Window, ...]
    """Trading hours, UTC; more than one where there is a lunch break."""

    @property
    def open(self) -> datetime:
        return self.segments[0].start

    @property
    def close(self) -> datetime:
        return self.segments[-1].end


class Calendar:
    """Sessions of one exchange, sorted, with the dates between which they are known."""

    def __init__(
        self,
        name: str,
        version: int,
        known_from: date,
        known_until: date,
        sessions: Sequence[Session],
    ) -> None:
        self.name = name
        self.version = version
        self.known_from = known_from
        """First date that the arrays speak of, inclusive."""
        self.known_until = known_until
        """Last date that the arrays speak of, inclusive; beyond it nothing is expected or refused."""
        self.sessions = tuple(sorted(sessions, key=lambda s: s.open))
        self._opens = [s.open for s in self.sessions]
        self._labels = [s.label for s in self.sessions]

    def session(self, label: date) -> Session:
        """The session of that date.

        Raises:
            UsageError: the exchange is closed that day, or the calendar does not reach that far.
        """
        if not self.known_from <= label <= self.known_until:
            raise UsageError(
                f"{self.name} is known from {self.known_from} to {self.known_until}, "
                f"{label} is outside; publish a wider calendar with `ops calendar publish`"
            )
        index = bisect_left(self._labels, label)
        if index == len(self._labels) or self._labels[index] != label:
            near = self._labels[min(index, len(self._labels) - 1)] if self._labels else None
            raise UsageError(f"{self.name} has no session on {label}; the next one is {near}")
        return self.sessions[index]

    def session_at(self, instant: datetime) -> Session | None:
        """The session whose trading hours hold the instant (``open <= t < close``), breaks included."""
        index = bisect_right(self._opens, instant) - 1
        if index < 0:
            return None
        session = self.sessions[index]
        return session if instant < session.close else None

    def last_closed(self, instant: datetime) -> Session | None:
        """The newest session whose close is at or before the instant."""
        index = bisect_right(self._opens, instant) - 1
        while index >= 0:
            if self.sessions[index].close <= instant:
                return self.sessions[index]
            index -= 1
        return None

    def next_open(self, instant: datetime) -> datetime | None:
        """The first open after the instant, None beyond the arrays."""
        index = bisect_right(self._opens, instant)
        return self._opens[index] if index < len(self._opens) else None

    def between(self, window: Window) -> Iterator[Session]:
        """Sessions whose hours overlap the window, oldest first."""
        index = max(bisect_right(self._opens, window.start) - 1, 0)
        while index < len(self.sessions) and self.sessions[index].open < window.end:
            if self.sessions[index].close > window.start:
                yield self.sessions[index]
            index += 1

    def trading(self, window: Window) -> list[Window]:
        """Trading hours inside the window, sorted and disjoint."""
        parts = (
            segment.intersect(window)
            for session in self.between(window)
            for segment in session.segments
        )
        return merge(part for part in parts if part is not None)

    def expected(self, window: Window, step: timedelta) -> list[datetime]:
        """Starts of the bars of length ``step`` that lie in the window's trading hours."""
        starts: list[datetime] = []
        for hours in self.trading(window):
            start = hours.start
            while start < hours.end:
                starts.append(start)
                start += step
        return starts

    def bar_end(self, start: datetime, step: timedelta) -> datetime:
        """``least(start + step, the session's close)``; plain ``start + step`` outside of sessions."""
        session = self.session_at(start)
        end = start + step
        return min(end, session.close) if session else end


def utc(epoch: float) -> datetime:
    """Epoch seconds as an aware UTC datetime."""
    return datetime.fromtimestamp(epoch, UTC)
