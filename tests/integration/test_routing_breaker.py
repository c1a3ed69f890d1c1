"""The fleet's breaker: many processes and threads, one state, one probe."""

import json
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from typing import Any

import pybreaker
import pytest

from core.clock import SystemClock
from core.errors import (
    AuthRejectedError,
    BadDataError,
    NoRouteError,
    ProviderUnavailableError,
    RateLimitedError,
    SymbolNotFoundError,
)
from core.words import Share
from routing.lease import Lease
from routing.router import Router
from tests.routing_parts import BARS, router, source, start
from tests.servers import WaitUntil

pytestmark = pytest.mark.integration

CLOCK = SystemClock()


@pytest.fixture
def built(redis_url: str) -> Iterator[Router]:
    with closing(router(redis_url, CLOCK, [source("a"), source("b")])) as one:
        yield one


@pytest.fixture
def other(redis_url: str) -> Iterator[Router]:
    """Another process's."""
    with closing(router(redis_url, CLOCK, [source("a"), source("b")])) as one:
        yield one


def lease(router_: Router, **words: Any) -> Lease:
    return router_.acquire(BARS, **{"share": Share.LIVE, "deadline": CLOCK.monotonic()} | words)


def fail(router_: Router, times: int, error: Any = None) -> None:
    for _ in range(times):
        wrong = error or ProviderUnavailableError("refused")
        lease(router_, pinned="a").failed(wrong, 0.01, endpoint="chart")


def state(router_: Router) -> str:
    router_.status()
    return router_.breaker("a", BARS).current_state


def test_a_source_that_refuses_four_times_in_a_row_is_left_by_the_fleet(
    built: Router, other: Router
) -> None:
    assert lease(other).source == "a"
    fail(built, 4)
    assert lease(built).source == "b"
    other.status()
    assert lease(other).source == "b"
    with pytest.raises(
        NoRouteError, match=r"breaker open for \d.\d s: 4 failures in a row"
    ) as caught:
        lease(other, pinned="a")
    assert caught.value.retry_at is not None, "it will be probed"


def test_after_its_first_failure_a_process_lets_only_a_few_more_go(built: Router) -> None:
    flying = [lease(built, pinned="a") for _ in range(20)]
    flying[0].failed(ProviderUnavailableError("refused"), 0.01, endpoint="x")
    more = 0
    while lease(built).source == "a":
        more += 1
    assert more == 3
    flying[1].answered(0.01, endpoint="x")
    assert lease(built).source == "a"


def test_unknown_symbols_and_throttles_never_open_it(built: Router) -> None:
    fail(built, 40, SymbolNotFoundError("no such symbol"))
    fail(built, 40, RateLimitedError("slow down"))
    assert state(built) == pybreaker.STATE_CLOSED
    assert lease(built).source == "a"


def test_three_auth_errors_open_it_at_once_with_their_reason(built: Router) -> None:
    fail(built, 3, AuthRejectedError("key expired"))
    assert state(built) == pybreaker.STATE_OPEN
    status = built.status()[0]
    assert status.opened_for == "auth"
    assert status.last_error == "auth: key expired"


def test_stale_data_opens_it_like_failures(built: Router) -> None:
    for _ in range(10):
        lease(built, pinned="a").answered(0.01, endpoint="x")
    for _ in range(40):
        try:
            one = lease(built, pinned="a")
        except NoRouteError:
            break
        one.failed(BadDataError("the newest bar is an hour old"), 0.01, endpoint="x")
    assert state(built) == pybreaker.STATE_OPEN


def test_answers_ten_times_slower_than_usual_open_it(built: Router) -> None:
    for _ in range(30):
        lease(built, pinned="a").answered(0.04, endpoint="x")
    CLOCK.sleep(0.65)
    for _ in range(60):
        try:
            lease(built, pinned="a").answered(0.4, endpoint="x")
        except NoRouteError:
            break
        CLOCK.sleep(0.01)
    assert state(built) == pybreaker.STATE_OPEN


def test_empty_answers_of_a_source_that_is_usually_complete_open_it(built: Router) -> None:
    for _ in range(30):
        lease(built, pinned="a").answered(0.01, endpoint="x", expected=3, received=3)
    CLOCK.sleep(0.65)
    for _ in range(60):
        try:
            lease(built, pinned="a").answered(0.01, endpoint="x", expected=3, received=0)
        except NoRouteError:
            break
        CLOCK.sleep(0.01)
    assert state(built) == pybreaker.STATE_OPEN


def test_a_third_of_random_errors_opens_nothing(built: Router) -> None:
    for turn in range(600):
        one = lease(built, pinned="a", deadline=CLOCK.monotonic() + 5)
        if (turn * 7919) % 10 < 3:
            one.failed(ProviderUnavailableError("503", status=503), 0.01, endpoint="x")
        else:
            one.answered(0.01, endpoint="x")
    assert state(built) == pybreaker.STATE_CLOSED
    assert built.breaker("a", BARS).pair.view.standing.version == 0


def test_one_probe_goes_and_success_brings_the_traffic_back_by_a_ramp(
    built: Router, other: Router, wait_until: WaitUntil
) -> None:
    fail(built, 4)
    probes: list[Lease] = []

    def probing() -> bool:
        for each in (built, other):
            one = lease(each)
            if one.source == "a":
                probes.append(one)
            else:
                one.answered(0.01, endpoint="x")
        return bool(probes)

    wait_until(probing, seconds=5)
    assert [one.probe for one in probes] == [True]
    for each in (built, other):
        for _ in range(50):
            one = lease(each)
            assert one.source == "b"
            one.answered(0.01, endpoint="x")
    probes[0].answered(0.05, endpoint="x")
    CLOCK.sleep(0.65)
    assert state(other) == pybreaker.STATE_HALF_OPEN
    assert other.status()[0].share == 0.01

    def shared(percent: float) -> bool:
        return other.status()[0].share == percent

    for percent, least, most in ((0.10, 8, 12), (0.50, 45, 55)):
        wait_until(lambda percent=percent: shared(percent), seconds=5)
        taken = 0
        for _ in range(100):
            one = lease(other)
            one.answered(0.01, endpoint="x")
            taken += one.source == "a"
        assert least <= taken <= most
    wait_until(lambda: shared(1.0), seconds=7)
    assert state(other) == pybreaker.STATE_CLOSED


def test_a_probe_that_was_not_sent_is_due_again_at_once(
    built: Router, wait_until: WaitUntil
) -> None:
    fail(built, 4)
    one: list[Lease] = []

    def probing() -> bool:
        one.append(lease(built))
        return one[-1].source == "a"

    wait_until(probing, seconds=5)
    one[-1].release()
    assert lease(built).probe


def test_eight_processes_send_one_probe_at_a_time_and_few_calls_before(redis_url: str) -> None:
    wish = {
        "redis": redis_url,
        "limits": [],
        "share": "live",
        "seconds": 4,
        "down": True,
        "threads": 4,
    }
    running = [start(wish) for _ in range(8)]
    calls: list[tuple[float, int]] = []
    for process in running:
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        calls += [
            (float(at), int(probe)) for at, probe in (line.split() for line in output.splitlines())
        ]
    calls.sort()
    probes = [at for at, probe in calls if probe]
    # A call takes 50 ms: each process had at most one on its way in each of its 4 threads, and 4 after.
    assert len(calls) - len(probes) <= 8 * (4 + 4), json.dumps(calls)
    assert 1 <= len(probes) <= 3
    assert all(later - earlier >= 0.7 for earlier, later in pairwise(probes))
