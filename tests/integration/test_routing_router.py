"""The router on a real Redis-compatible server: order, reasons, breaker, budgets, outages."""

from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pybreaker
import pytest
import redis as redis_client

from core.clock import SystemClock
from core.errors import (
    AuthRejectedError,
    NoRouteError,
    NotEntitledError,
    ProviderError,
    ProviderUnavailableError,
    RateLimitedError,
    SymbolNotFoundError,
)
from core.words import Share
from ops.embedded.valkey import ValkeyServer
from providers.base import Limit
from routing.router import Router
from routing.sources import Source
from tests.routing_parts import BARS, router, source
from tests.servers import MakeHome, WaitUntil

pytestmark = pytest.mark.integration

CLOCK = SystemClock()
MINUTE = Limit("minute", 60, 60, "key")


@pytest.fixture
def two(redis_url: str) -> Iterator[Router]:
    with closing(router(redis_url, CLOCK, [source("a"), source("b")])) as built:
        yield built


def lease(built: Router, **words: object):
    return built.acquire(BARS, share=Share.LIVE, deadline=CLOCK.monotonic(), **words)  # type: ignore[arg-type]


def fail(built: Router, name: str, times: int, error: ProviderError | None = None) -> None:
    others = {"a", "b"} - {name}
    for _ in range(times):
        lease(built, exclude=others).failed(
            error or ProviderUnavailableError("refused"), 0.01, endpoint="chart"
        )


def test_the_first_band_takes_the_call(two: Router) -> None:
    assert [lease(two).source for _ in range(3)] == ["a", "a", "a"]


def test_a_source_that_refuses_five_times_in_a_row_is_left_for_the_next(two: Router) -> None:
    fail(two, "a", 5)
    assert lease(two).source == "b"
    with pytest.raises(pybreaker.CircuitBreakerError):
        two.breaker("a", BARS).require()
    assert two.breaker("a", BARS).current_state == pybreaker.STATE_OPEN


def test_unknown_symbols_and_throttles_never_open_the_breaker(redis_url: str) -> None:
    with closing(router(redis_url, CLOCK, [source("a"), source("b")])) as built:
        fail(built, "a", 30, SymbolNotFoundError("no such symbol"))
        fail(built, "a", 30, RateLimitedError("slow down"))
        assert built.breaker("a", BARS).ask().state == "closed"


def test_three_auth_errors_open_it_at_once_with_their_reason(two: Router) -> None:
    fail(two, "a", 3, AuthRejectedError("key expired"))
    permit = two.breaker("a", BARS).ask()
    assert not permit.allowed
    assert "key expired" in permit.reason


def test_a_capability_that_the_plan_lacks_is_off_and_the_breaker_untouched(two: Router) -> None:
    fail(two, "a", 1, NotEntitledError("You don't have access to this resource."))
    assert lease(two).source == "b"
    assert two.eligible(BARS) == ["b"]
    assert two.breaker("a", BARS).ask().state == "closed"


def test_exactly_one_probe_is_let_through_and_success_ramps_up(
    two: Router, wait_until: WaitUntil
) -> None:
    fail(two, "a", 5)
    probes: list[object] = []

    def one_more() -> bool:
        permit = two.breaker("a", BARS).ask()
        if permit.allowed:
            probes.append(permit)
        return bool(probes)

    wait_until(one_more, seconds=5)
    assert not any(two.breaker("a", BARS).ask().allowed for _ in range(50))
    two.breaker("a", BARS).tell(probes[0], None, 0.05, 1, 1)  # type: ignore[arg-type]
    shares = [two.breaker("a", BARS).ask().allowed for _ in range(100)]
    assert 5 <= sum(shares) <= 20

    def closed() -> bool:
        permit = two.breaker("a", BARS).ask()
        if permit.allowed and permit.state == "ramp":
            two.breaker("a", BARS).tell(permit, None, 0.05, 1, 1)
        return permit.state == "closed"

    wait_until(closed, seconds=10)


def test_no_route_says_why_for_every_source(redis_url: str) -> None:
    sources = [
        source("a", Limit("minute", 1, 60, "key")),
        Source("alphavantage", None, "not installed yet"),
    ]
    with closing(router(redis_url, CLOCK, sources)) as built:
        lease(built).answered(0.01, endpoint="chart")
        with pytest.raises(NoRouteError) as caught:
            lease(built)
    assert caught.value.refusals == {"a": "budget used up", "alphavantage": "not installed yet"}
    assert caught.value.retry_at is not None


def test_what_the_budget_refuses_goes_to_the_next_source(redis_url: str) -> None:
    sources = [source("a", Limit("minute", 2, 60, "key")), source("b")]
    with closing(router(redis_url, CLOCK, sources)) as built:
        assert [lease(built).source for _ in range(4)] == ["a", "a", "b", "b"]


def test_the_hint_goes_first_only_where_overriding_is_allowed(redis_url: str) -> None:
    sources = [source("a"), source("b")]
    with closing(router(redis_url, CLOCK, sources)) as built:
        assert lease(built, hint="b").source == "a"
    with closing(router(redis_url, CLOCK, sources, allow_override=True)) as built:
        assert lease(built, hint="b").source == "b"


def test_backfill_leaves_the_live_share_alone(redis_url: str) -> None:
    with closing(router(redis_url, CLOCK, [source("a", MINUTE)])) as built:
        for _ in range(20):
            lease(built).answered(0.01, endpoint="chart")
        granted = 0
        with suppress(NoRouteError):
            for granted in range(100):  # noqa: B007 - counts what was granted before the refusal
                built.acquire(BARS, share=Share.BACKFILL, deadline=CLOCK.monotonic())
        assert 0 < granted <= 40
        assert lease(built).source == "a"


def test_a_429_pauses_the_source_for_as_long_as_it_asked(redis_url: str) -> None:
    with closing(router(redis_url, CLOCK, [source("a", MINUTE)])) as built:
        lease(built).failed(RateLimitedError("slow down", retry_after_s=30), 0.01, endpoint="chart")
        with pytest.raises(NoRouteError, match="asked to wait by the provider"):
            lease(built)


class _UsedBefore:
    """Stands for PostgreSQL's memory that a source was asked before."""

    def take(self, source: str, name: str, units: int, window_s: float, wanted: int) -> int:
        return wanted

    def seen(self, source: str) -> bool:
        return True


def test_after_a_flushall_a_short_window_counts_as_full_once(redis_url: str) -> None:
    sources = [source("a", Limit("short", 5, 2, "key"))]
    with closing(router(redis_url, CLOCK, sources, long_windows=_UsedBefore())) as built:
        with pytest.raises(NoRouteError, match="budget used up"):
            lease(built)
        late = built.acquire(BARS, share=Share.LIVE, deadline=CLOCK.monotonic() + 6)
        assert late.source == "a"


def test_redis_away_blocks_no_call_for_long_and_recovers_by_itself(
    make_home: MakeHome, tmp_path: Path, wait_until: WaitUntil
) -> None:
    home = make_home()
    server = ValkeyServer.start(home)
    port = server.port
    with closing(router(server.url, CLOCK, [source("a", MINUTE), source("b")])) as built:
        lease(built).answered(0.01, endpoint="chart")
        server.stop()
        slowest = 0.0
        for _ in range(20):
            began = CLOCK.monotonic()
            assert lease(built).source == "b"
            slowest = max(slowest, CLOCK.monotonic() - began)
        assert slowest < 0.5
        server = ValkeyServer.start(home, port=port)
        try:
            redis_client.Redis.from_url(server.url).ping()
            wait_until(lambda: lease(built).source == "a", seconds=5)
        finally:
            server.stop()
