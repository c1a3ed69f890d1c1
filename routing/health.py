"""Health of a source for one capability: a score in [0, 1] from four terms, each in [0, 1]. Pure.

The sums behind the terms are the fleet's and fade with a half-life of 30 real seconds
(``lua/report.lua``), so that a term without new samples returns to 1.
"""

from dataclasses import dataclass

BREAKER, LATENCY, ERRORS, COMPLETENESS = 0.45, 0.25, 0.20, 0.10
ELIGIBLE_ABOVE = 0.55
GOOD_LATENCY_MS = 300.0
BAD_LATENCY_MS = 3000.0
_PRIOR = 2.0
"""As many good samples are always assumed, so that one failure in an idle hour is not the end."""

_BREAKER_TERM = {"closed": 1.0, "ramp": 1.0, "half_open": 0.5, "open": 0.0}


@dataclass(frozen=True, slots=True)
class Sums:
    """Faded sums of recent calls."""

    calls: float = 0.0
    failures: float = 0.0
    timed: float = 0.0
    latency_ms: float = 0.0
    expected: float = 0.0
    received: float = 0.0


@dataclass(frozen=True, slots=True)
class Health:
    """The four terms and their weighted sum."""

    breaker: float
    """1 closed or ramping up, 0.5 half-open, 0 open."""
    latency: float
    """1 up to 300 ms on the average, falling to 0 at 3 s, on a straight line."""
    errors: float
    """1 minus the share of calls that failed."""
    completeness: float
    """Share of the bars that had to come and came."""

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


def judge(state: str, sums: Sums) -> Health:
    """Score a source by its breaker's state and the faded sums."""
    mean_ms = (sums.latency_ms + _PRIOR * GOOD_LATENCY_MS) / (sums.timed + _PRIOR)
    latency = 1 - (mean_ms - GOOD_LATENCY_MS) / (BAD_LATENCY_MS - GOOD_LATENCY_MS)
    return Health(
        breaker=_BREAKER_TERM[state],
        latency=_clamp(latency),
        errors=_clamp(1 - sums.failures / (sums.calls + _PRIOR)),
        completeness=_clamp((sums.received + _PRIOR) / (sums.expected + _PRIOR)),
    )


def _clamp(value: float) -> float:
    return max(0.0, min(1.0, value))
