"""Budgets under any interleaving: many processes, one limit, arrivals counted by the clock of one machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from core.clock import SystemClock, real_timestamp

pytestmark = pytest.mark.integration

HAMMER = """
import json, sys
from core.clock import SystemClock, ReplayClock, Segment, real_timestamp
from core.errors import NoRouteError
from core.words import Share
from providers.base import Limit
from tests.routing_parts import BARS, router, source
url, seconds, units, window, speed, anchor = sys.argv[1], *map(float, sys.argv[2:7])
clock = SystemClock() if speed == 1 else ReplayClock([Segment(anchor, 1.7e9, speed)])
built = router(url, clock, [source("a", Limit("w", int(units), window, "key"))])
end = clock.monotonic() + seconds
arrivals = []
while clock.monotonic() < end:
    try:
        lease = built.acquire(BARS, share=Share.LIVE, deadline=clock.monotonic() + 0.05)
    except NoRouteError:
        continue
    if lease.fresh():
        arrivals.append(real_timestamp())
        lease.answered(0.001, endpoint="x")
    else:
        lease.release()
print(json.dumps(arrivals))
"""


def most_in_a_window(arrivals: list[float], window_s: float) -> int:
    """The largest count of arrivals in any window ``(t - window, t]``."""
    most = first = 0
    for last, arrival in enumerate(arrivals):
        while arrivals[first] <= arrival - window_s:
            first += 1
        most = max(most, last - first + 1)
    return most


def hammer(
    redis_url: str, processes: int, seconds: float, units: int, window: float, speed: float
) -> list[float]:
    words = [redis_url, seconds, units, window, speed, real_timestamp()]
    argv = [sys.executable, "-c", HAMMER, *map(str, words)]
    root = Path(__file__).resolve().parents[2]
    running = [subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=root) for _ in range(processes)]
    arrivals: list[float] = []
    for process in running:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        arrivals += json.loads(output)
    return sorted(arrivals)


def test_four_processes_never_pass_a_two_second_window_and_use_most_of_it(redis_url: str) -> None:
    arrivals = hammer(redis_url, 4, 7.0, 100, 2.0, 1)
    assert most_in_a_window(arrivals, 2.0) <= 100
    assert len(arrivals) >= 150


def test_a_replay_at_sixty_times_keeps_the_market_window(redis_url: str) -> None:
    arrivals = hammer(redis_url, 3, 5.0, 120, 60.0, 60)
    assert most_in_a_window(arrivals, 1.0) <= 120
    assert len(arrivals) >= 240


def test_the_counter_of_this_test_counts() -> None:
    assert most_in_a_window([0.0, 0.5, 1.0, 1.4, 3.0], 1.0) == 3
    assert SystemClock().speed == 1
