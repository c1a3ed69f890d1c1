"""Half-open windows of time and sets of them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """``[start, end)``, aware, UTC, never empty."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise ValueError(
                f"window {self.start} - {self.end} has no time zone; expected aware UTC"
            )
        if self.end <= self.start:
            raise ValueError(
                f"window ends at {self.end.isoformat()}, not after its start {self.start.isoformat()}"
            )

    @property
    def length(self) -> timedelta:
        return self.end - self.start

    def contains(self, instant: datetime) -> bool:
        """True for ``start <= instant < end``."""
        return self.start <= instant < self.end

    def intersect(self, other: "Window") -> "Window | None":
        start, end = max(self.start, other.start), min(self.end, other.end)
        return Window(start, end) if start < end else None

    def chunks(self, span: timedelta) -> Iterator["Window"]:
        """Cut into pieces no longer than ``span``, oldest first."""
        start = self.start
        while start < self.end:
            end = min(start + span, self.end)
            yield Window(start, end)
            start = end

    def __str__(self) -> str:
        return f"[{self.start:%Y-%m-%dT%H:%M:%SZ}, {self.end:%Y-%m-%dT%H:%M:%SZ})"


def merge(windows: Iterable[Window]) -> list[Window]:
    """Union of windows as sorted, disjoint windows; touching ones are joined."""
    merged: list[Window] = []
    for window in sorted(windows):
        if merged and window.start <= merged[-1].end:
            if window.end > merged[-1].end:
                merged[-1] = Window(merged[-1].start, window.end)
        else:
            merged.append(window)
    return merged


def subtract(whole: Iterable[Window], holes: Iterable[Window]) -> list[Window]:
    """What is in ``whole`` and in none of ``holes``, sorted and disjoint."""
    rest: list[Window] = []
    cuts = merge(holes)
    for window in merge(whole):
        start = window.start
        for cut in cuts:
            if cut.end <= start:
                continue
            if cut.start >= window.end:
                break
            if cut.start > start:
                rest.append(Window(start, cut.start))
            start = cut.end
            if start >= window.end:
                break
        if start < window.end:
            rest.append(Window(start, window.end))
    return rest


def runs(instants: Iterable[datetime], step: timedelta) -> list[Window]:
    """Join instants that follow each other by ``step`` into windows: one bar start = ``[t, t + step)``."""
    return merge(Window(instant, instant + step) for instant in instants)


def floor_to(instant: datetime, step: timedelta) -> datetime:
    """The last multiple of ``step`` since 1970-01-01 UTC at or before ``instant``."""
    seconds = int(step.total_seconds())
    return datetime.fromtimestamp(int(instant.timestamp()) // seconds * seconds, UTC)
