"""Times of alternating runs, and the order statistics that a figure is made of."""

import gc
import math
from collections.abc import Callable, Sequence
from statistics import median
from typing import TypeVar

from core.clock import Clock

_T = TypeVar("_T")


class Stopwatch:
    """Seconds by name. The garbage of whoever ran before is collected outside of each time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._taken: dict[str, list[float]] = {}

    def time(self, name: str, work: Callable[[], _T], *, collect: bool = True) -> _T:
        """Run ``work`` and keep how long it took."""
        if collect:
            gc.collect()
        started = self._clock.monotonic()
        result = work()
        self._taken.setdefault(name, []).append(self._clock.monotonic() - started)
        return result

    def alternate(self, turn: int, **runs: Callable[[], object]) -> None:
        """Time each of the runs once, in the other order every other turn."""
        names = list(runs) if turn % 2 == 0 else list(reversed(runs))
        for name in names:
            self.time(name, runs[name])

    def median(self, name: str) -> float:
        return median(self._taken[name])

    def p95(self, name: str) -> float:
        return percentile(self._taken[name], 0.95)

    def rate(self, name: str, count: int) -> float:
        """Pieces a second in the median run."""
        return count / self.median(name)

    def count(self, name: str) -> int:
        return len(self._taken[name])

    def worst(self, name: str) -> float:
        return max(self._taken[name])


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1]
