"""Whether a source misses more than it usually does, as one process sees it.

A share of what should have come is missing nearly always: rarely traded symbols have no bar in most
minutes, and their quotes are old. So a share says nothing by itself. What is usual is learnt slowly,
and the last ten seconds are held against it. Real time; not thread-safe, the caller locks.
"""

import math

_RECENT_S = 10
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
        self._seconds: dict[int, tuple[int, int]] = {}
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
        second = int(now)
        had = self._seconds.get(second, (0, 0))
        self._seconds[second] = (had[0] + expected, had[1] + missed)
        if len(self._seconds) > _RECENT_S:
            self._seconds = {at: v for at, v in self._seconds.items() if at > second - _RECENT_S}
        share = missed / expected
        step_s = min(_LONGEST_STEP_S, max(0.0, now - self._at))
        weight = 1 - math.exp(-step_s / _SLOW_S)
        if self._count < _YOUNG:
            # The plain mean at first, or what came by chance would be habit for minutes.
            weight = max(weight, expected / (self._count + expected))
        self._usual += (share - self._usual) * weight
        self._count += expected
        self._at = now

    def unusual(self, now: float) -> bool:
        """Whether more is missing lately than chance and habit explain."""
        if self._count < _LEARNT:
            return False
        second = int(now)
        recent = [v for at, v in self._seconds.items() if second - _RECENT_S < at <= second]
        expected, missed = sum(v[0] for v in recent), sum(v[1] for v in recent)
        return expected >= _LEAST and lower_bound(missed, expected) > borne(self._usual)
