"""Health of one source for one capability: a score in [0, 1] from four terms, each in [0, 1]. Pure.

Health orders the sources of a band and bars those at or below ``ELIGIBLE_ABOVE``; whether a source
is asked at all is the breaker's word. The terms are the fleet's, kept by ``lua/sync.lua``: a sample
pulls its term by ``WEIGHT`` towards itself, and without samples a term returns to 1, half of the way
in every ``HALF_LIFE_S`` real seconds.
"""

import math
from dataclasses import dataclass

from routing.circuit import State

BREAKER, LATENCY, ERRORS, COMPLETENESS = 0.45, 0.25, 0.20, 0.10
ELIGIBLE_ABOVE = 0.55
HALF_LIFE_S = 30.0
WEIGHT = 0.03
"""Pull of one sample: about the last 30 calls make a term."""
_QUICK = 20.0
"""An answer in 1/20 of the time limit is as good as an instant one."""
_SLOW_FACTOR = 8.0
_SLOW_LEAST_S = 0.25
_SLOW_OF_LIMIT = 0.8
_USUALLY_COMPLETE = 0.8
_LEAST_OF_BEST = 0.05
"""Where hardly anything trades, one bar more or less says nothing."""


@dataclass(frozen=True, slots=True)
class Health:
    """The four terms and their weighted sum."""

    breaker: float = 1.0
    """1 closed, 0.5 half-open (a probe is out, or traffic is ramping up), 0 open."""
    latency: float = 1.0
    """Mean of ``latency_sample`` over recent answers and timeouts."""
    errors: float = 1.0
    """Share of recent calls that did not fail by the source's fault; 404s and 429s are no calls here."""
    completeness: float = 1.0
    """What came of what was to come by the calendar and the best of the other sources, by answer."""

    @property
    def score(self) -> float:
        """0.45 breaker + 0.25 latency + 0.20 errors + 0.10 completeness."""
        return (
            BREAKER * self.breaker
            + LATENCY * self.latency
            + ERRORS * self.errors
            + COMPLETENESS * self.completeness
        )

    @property
    def eligible(self) -> bool:
        return self.score > ELIGIBLE_ABOVE


def breaker_term(state: State) -> float:
    """The breaker's part of health."""
    return state.value_shown


def latency_sample(latency_s: float, timeout_s: float) -> float:
    """How good one answer's time was: 1 up to 1/20 of the time limit, 0 at it, log-linear between.

    With a limit of 3 s: 150 ms is 1.0, 0.5 s is 0.6, 1 s is 0.37. A timeout is 0.
    """
    if latency_s <= timeout_s / _QUICK:
        return 1.0
    return max(0.0, math.log(timeout_s / latency_s) / math.log(_QUICK))


def completeness_sample(expected: int, received: int, usual_of_best: float = 1.0) -> float:
    """Share of what the calendar expects that came, as far as any source has it; more is 1.

    Args:
        expected: Bars, or quotes that were to be fresh; above 0.
        received: How many of them came.
        usual_of_best: Share that the most complete source usually has: what nobody has, because
            nothing traded, is no source's fault.
    """
    return min(1.0, received / (expected * max(usual_of_best, _LEAST_OF_BEST)))


def relax(term: float, age_s: float) -> float:
    """A term ``age_s`` real seconds after its last sample."""
    return 1.0 - (1.0 - term) * 2.0 ** (-max(0.0, age_s) / HALF_LIFE_S)


def blend(term: float, mean: float, count: int) -> float:
    """A term after ``count`` samples of this mean."""
    return term + (mean - term) * (1.0 - (1.0 - WEIGHT) ** count)


def is_slow(latency_s: float, timeout_s: float, usual_s: float | None) -> bool:
    """Whether an answer was so slow that the breaker counts it as a failure.

    Args:
        latency_s: How long it took.
        timeout_s: The source's time limit.
        usual_s: The usual latency over the last minutes; None while too few calls tell.
    """
    if latency_s >= _SLOW_OF_LIMIT * timeout_s:
        return True
    return usual_s is not None and latency_s >= max(_SLOW_LEAST_S, _SLOW_FACTOR * usual_s)


def is_hollow(expected: int, received: int, usual: float | None) -> bool:
    """Whether an answer without any of its bars counts as a failure of the source.

    Only where the source is usually complete: a universe of rarely traded symbols is no fault.
    """
    return expected >= 2 and received == 0 and usual is not None and usual >= _USUALLY_COMPLETE
