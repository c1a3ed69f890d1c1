"""Thirty simulated minutes of 30 % random errors, without any flapping of the breaker.

The rules of one process that is on its own (``routing.pair``, ``routing.guard``, ``routing.circuit``) are
run on a clock of the measure's own; the fleet's scripts hold the same rules, by a property test.
"""

import random

from bench.report import at_most
from bench.run import Run
from core.errors import ProviderUnavailableError
from core.words import Capability
from routing.circuit import State
from routing.pair import Pair

_MINUTES, _PER_S, _ERRORS = 30, 15.0, 0.3
_LATENCY_S = 0.05
_SEEDS = 8


def measure(run: Run) -> None:
    """Openings of a source that fails at random, in several runs."""
    seeds = run.size(_SEEDS, 3)
    openings = [_openings(seed) for seed in range(seeds)]
    run.report.number(
        "flap_openings_max",
        f"openings in {_MINUTES} simulated minutes at {_ERRORS:.0%} random errors, worst of {seeds}",
        max(openings),
        "",
        at_most(1),
    )


def _openings(seed: int) -> int:
    draws, now = random.Random(seed), 1000.0
    pair = Pair("source", Capability.BARS_1M, 3.0)
    pair.alone(now, None)
    openings, error = 0, ProviderUnavailableError("503", status=503)
    end = now + 60 * _MINUTES
    while now < end:
        now += draws.expovariate(_PER_S)
        before = pair.view.standing.state
        pair.alone(now, None)
        standing = pair.view.standing
        openings += standing.state is State.OPEN and before is not State.OPEN
        probe = ""
        if standing.share <= 0:
            if not (standing.probe_due and pair.claim_alone(now, "probe", 5.0)):
                continue
            probe = "probe"
        elif draws.random() >= standing.share:
            continue
        call = pair.begin(now, probe)
        if draws.random() < _ERRORS:
            pair.failed(call, now + _LATENCY_S, error, _LATENCY_S)
        else:
            pair.answered(call, now + _LATENCY_S, _LATENCY_S, 0, 0)
    return openings
