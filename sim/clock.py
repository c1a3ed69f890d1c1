"""Market time inside the simulator: the system's clock or a replay that can be exchanged while running."""

from collections.abc import Iterable

from core.clock import Clock, ReplayClock, Segment, SystemClock, real_at, real_timestamp


class MarketTime:
    """One clock for every part of the process; ``replace`` switches all of them at once."""

    def __init__(self, segments: Iterable[Segment] = ()) -> None:
        self._clock: Clock = _clock(tuple(segments))

    def replace(self, segments: Iterable[Segment]) -> None:
        """Follow these segments from now on; none of them means the system's clock."""
        self._clock = _clock(tuple(segments))

    def timestamp(self) -> float:
        """Market time, epoch seconds."""
        return self._clock.timestamp()

    def real(self) -> float:
        """The machine's clock, epoch seconds."""
        return real_timestamp()

    def monotonic(self) -> float:
        """Real seconds from an arbitrary start."""
        return self._clock.monotonic()

    def real_until(self, market: float) -> float:
        """Real seconds until market time reaches ``market``; below zero once it has passed."""
        segments = self._clock.segments()
        real = real_at(segments, market) if segments else market
        return real - real_timestamp()

    @property
    def speed(self) -> float:
        """Market seconds per real second now."""
        return self._clock.speed

    def segments(self) -> tuple[Segment, ...]:
        """The replay's segments, empty on the system's clock."""
        return self._clock.segments()


def _clock(segments: tuple[Segment, ...]) -> Clock:
    return ReplayClock(segments) if segments else SystemClock()
