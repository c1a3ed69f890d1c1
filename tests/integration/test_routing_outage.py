"""Redis away: nobody waits for it, no limit is broken, and it is back in use without a restart."""

import os
import signal
from contextlib import closing
from typing import Any

import pytest

from core.clock import SystemClock
from core.errors import NoRouteError, ProviderUnavailableError
from core.words import Share
from ops.embedded.home import Home
from ops.embedded.valkey import ValkeyServer
from routing.router import Router
from tests.routing_parts import BARS, limit, router, source
from tests.servers import MakeHome, WaitUntil

pytestmark = pytest.mark.integration

CLOCK = SystemClock()


@pytest.fixture
def home(make_home: MakeHome) -> Home:
    return make_home()


def lease(built: Router, **words: Any):
    return built.acquire(BARS, **{"share": Share.LIVE, "deadline": CLOCK.monotonic()} | words)


def blocked(built: Router, seconds: float) -> list[float]:
    """How long each call was kept, longest last; all of them go to the source without limits."""
    kept: list[float] = []
    end = CLOCK.monotonic() + seconds
    while (began := CLOCK.monotonic()) < end:
        one = lease(built, deadline=began + 5)
        assert one.source == "b"
        one.answered(0.01, endpoint="x")
        kept.append(CLOCK.monotonic() - began)
        CLOCK.sleep(0.005)
    return sorted(kept)


def test_a_stopped_redis_keeps_no_call_and_is_used_again_when_it_goes_on(
    home: Home, wait_until: WaitUntil
) -> None:
    server = ValkeyServer.start(home)
    with closing(router(server.url, CLOCK, [source("a", limit(60, 10)), source("b")])) as built:
        assert lease(built).source == "a"
        CLOCK.sleep(0.3)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            kept = blocked(built, 2.0)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        # One call in a quarter second finds out that Redis is still away; 0.1 s, and slack for the machine.
        assert kept[-3] < 0.15
        assert kept[-1] < 0.3
        wait_until(lambda: lease(built).source == "a", seconds=3)


def test_without_redis_only_tokens_in_hand_are_spent_and_the_reason_is_said(home: Home) -> None:
    server = ValkeyServer.start(home)
    with closing(router(server.url, CLOCK, [source("a", limit(60, 60))])) as built:
        for _ in range(5):
            lease(built).answered(0.001, endpoint="x")
        server.stop()
        spent, began = 0, CLOCK.monotonic()
        refused: NoRouteError | None = None
        while refused is None:
            try:
                lease(built, deadline=began + 5)
                spent += 1
            except NoRouteError as error:
                refused = error
        assert spent <= 7
        assert refused.refusals == {"a": "Redis does not answer, no tokens in hand"}
        assert CLOCK.monotonic() - began < 0.3, "nobody waits for a budget that nobody can give"
        assert refused.retry_at is not None


def test_a_killed_redis_comes_back_with_its_windows(home: Home, wait_until: WaitUntil) -> None:
    server = ValkeyServer.start(home)
    with closing(router(server.url, CLOCK, [source("a", limit(5, 60))])) as built:
        for _ in range(5):
            lease(built).answered(0.001, endpoint="x")
        port = server.port
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.alive())
        ValkeyServer.start(home, port=port)

        def refused() -> bool:
            with pytest.raises(NoRouteError) as caught:
                lease(built)
            return "5 per 60 s" in caught.value.refusals["a"]

        wait_until(refused, seconds=3)


def test_without_redis_a_process_opens_and_probes_on_its_own(
    home: Home, wait_until: WaitUntil
) -> None:
    server = ValkeyServer.start(home)
    with closing(router(server.url, CLOCK, [source("a"), source("b")])) as built:
        assert lease(built).source == "a"
        server.stop()
        for _ in range(4):
            lease(built, pinned="a").failed(ProviderUnavailableError("refused"), 0.01, endpoint="x")
        assert lease(built).source == "b"
        found: list[bool] = []

        def probing() -> bool:
            one = lease(built)
            if one.source == "a":
                found.append(one.probe)
                one.answered(0.01, endpoint="x")
            return bool(found)

        wait_until(probing, seconds=4)
        assert found == [True]


def test_a_process_may_start_while_redis_is_away(home: Home, wait_until: WaitUntil) -> None:
    server = ValkeyServer.start(home)
    url, port = server.url, server.port
    server.stop()
    with closing(router(url, CLOCK, [source("a", limit(5, 60)), source("b")])) as built:
        assert lease(built).source == "b"
        assert [entry.source for entry in built.status()] == ["a", "b"]
        ValkeyServer.start(home, port=port)
        wait_until(lambda: lease(built).source == "a", seconds=3)
