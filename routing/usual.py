"""Whether a source misses more than it usually does, as one process sees it.

A share of what should have come is missing nearly always: rarely traded symbols have no bar in most
minutes, and their quotes are old. So a share says nothing by itself. What is usual is learnt slowly
from what is past, and the newest answers are held against it. Real time; the caller locks.
"""

import math
from collections import deque

_RECENT_S, _RECENT = 10.0, 60
"""Recent is what should have come in the last ten seconds, and the last so many pieces of it."""
_SLOW_S = 300.0
"""Time constant of what is usual."""
_LONGEST_STEP_S = 60.0
"""Silence longer than this teaches no more than this."""
_LEARNT = 50
"""What should have come before anything is called usual, or unusual."""
_YOUNG = 500
_LEAST = 20
_Z = 3.0
"""Standard deviations by which the recent share must lie above what is borne."""
_FACTOR, _FLOOR, _PART = 1.5, 0.05, 0.5


def borne(usual: float) -> float:
    """Share missing that is still no news: half as much again and a twentieth, at most half way to all."""
    return min(_FACTOR * usual + _FLOOR, usual + (1 - usual) * _PART)


def lower_bound(missed: int, count: int) -> float:
    """Wilson's lower bound of a share (E. B. Wilson, 1927) at three standard deviations."""
    p, z2 = missed / count, _Z * _Z
    reach = _Z * math.sqrt(p * (1 - p) / count + z2 / (4 * count * count))
    return max(0.0, (p + z2 / (2 * count) - reach) / (1 + z2 / count)) if missed else 0.0


class Missing:
    """How much was to come and did not, lately and usually."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, int, int]] = deque()
        self._expected = self._missed = 0
        self._usual = 0.0
        self._count = 0
        self._at = math.inf

    @property
    def usual(self) -> float | None:
        """Share that is usually missing; None while too little was seen."""
        return self._usual if self._count >= _LEARNT else None

    def add(self, now: float, expected: int, missed: int) -> None:
        """Take one answer.

        Args:
            now: Monotonic seconds.
            expected: What should have come.
            missed: How much of it did not.
        """
        if expected <= 0:
            return
        self._recent.append((now, expected, missed))
        self._expected += expected
        self._missed += missed
        self._settle(now)

    def unusual(self, now: float) -> bool:
        """Whether more is missing lately than chance and habit explain."""
        self._settle(now)
        return self._out_of_line()

    def _out_of_line(self) -> bool:
        return (
            self._count >= _LEARNT
            and self._expected >= _LEAST
            and lower_bound(self._missed, self._expected) > borne(self._usual)
        )

    def _settle(self, now: float) -> None:
        """What is no longer recent becomes part of what is usual."""
        recent = self._recent
        while recent and (
            now - recent[0][0] > _RECENT_S or self._expected - recent[0][1] >= _RECENT
        ):
            at, expected, missed = recent.popleft()
            self._expected -= expected
            self._missed -= missed
            step_s = min(_LONGEST_STEP_S, max(0.0, at - self._at))
            weight = 1 - math.exp(-step_s / _SLOW_S)
            if self._count < _YOUNG and not self._out_of_line():
                # The plain mean at first, or what came by chance would be habit for minutes.
                weight = max(weight, expected / (self._count + expected))
            self._usual += (missed / expected - self._usual) * weight
            self._count += expected
            self._at = at
