"""The two clocks: market time (real or replayed) and monotonic real time.

Market time stamps bars, knowledge, slots, budgets and ages. Monotonic time measures what happens on
this machine: timeouts, leases, latencies. Nothing else in the project reads a clock.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What every part asks for the time."""

    def now(self) -> datetime:
        """Market time, aware, UTC."""
        ...

    def timestamp(self) -> float:
        """Market time in seconds since 1970-01-01 UTC."""
        ...

    def monotonic(self) -> float:
        """Real seconds from an arbitrary start; never goes back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Sleep real seconds; a number below zero returns at once."""
        ...

    def real_seconds(self, market_seconds: float) -> float:
        """How long a stretch of market time, starting now, lasts in real seconds."""
        ...

    @property
    def speed(self) -> float:
        """Market seconds per real second now; 1.0 outside a replay."""
        ...

    def segments(self) -> "tuple[Segment, ...]":
        """The replay's segments in force, oldest first; empty when the market clock is the system's."""
        ...


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a replay with one speed, in force from ``real_start`` until the next segment's."""

    real_start: float
    """Epoch seconds of the machine's clock at which the segment begins, inclusive."""
    market_start: float
    """Epoch seconds of market time at that instant."""
    speed: float
    """Market seconds per real second; 0 is refused."""

    def __post_init__(self) -> None:
        if self.speed <= 0:
            raise ValueError(f"replay speed is {self.speed!r}; expected a number above 0")


def market_at(segments: Sequence[Segment], real: float) -> float:
    """Map a real epoch second to market time.

    Args:
        segments: At least one, sorted by ``real_start``.
        real: Epoch seconds of the machine's clock.
    """
    chosen = segments[0]
    for segment in segments:
        if segment.real_start <= real:
            chosen = segment
    return chosen.market_start + (real - chosen.real_start) * chosen.speed


def real_at(segments: Sequence[Segment], market: float) -> float:
    """Map a market epoch second to the machine's clock; the inverse of ``market_at``."""
    chosen = segments[0]
    for segment in segments:
        if segment.market_start <= market:
            chosen = segment
    return chosen.real_start + (market - chosen.market_start) / chosen.speed


class SystemClock:
    """Market time is the machine's time."""

    speed = 1.0

    def now(self) -> datetime:
        return datetime.now(UTC)

    def timestamp(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        if seconds > 0:
            time.sleep(seconds)

    def real_seconds(self, market_seconds: float) -> float:
        return market_seconds

    def segments(self) -> tuple[Segment, ...]:
        return ()


class ReplayClock:
    """Market time mapped from the machine's clock by segments that every process shares.

    A change of speed is a new segment that lies in the future when it is announced, so that all
    processes switch at the same instant. ``update`` replaces the tuple in one step, so readers in
    other threads see the old list or the new one, never a mixture.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = _checked(segments)

    def update(self, segments: Sequence[Segment]) -> None:
        """Take the list now in force (the newest copy of the database's rows)."""
        self._segments = _checked(segments)

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.timestamp(), UTC)

    def timestamp(self) -> float:
        return market_at(self._segments, time.time())

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        if seconds > 0:
            time.sleep(seconds)

    def real_seconds(self, market_seconds: float) -> float:
        now = time.time()
        market = market_at(self._segments, now)
        return real_at(self._segments, market + market_seconds) - now

    def segments(self) -> tuple[Segment, ...]:
        return self._segments

    @property
    def speed(self) -> float:
        now = time.time()
        return next(
            (s.speed for s in reversed(self._segments) if s.real_start <= now),
            self._segments[0].speed,
        )


def real_timestamp() -> float:
    """Epoch seconds of the machine's clock, for whoever anchors or re-speeds a replay."""
    return time.time()


def _checked(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    ordered = tuple(sorted(segments, key=lambda s: s.real_start))
    if not ordered:
        raise ValueError("a replay clock needs at least one segment, got none")
    return ordered
