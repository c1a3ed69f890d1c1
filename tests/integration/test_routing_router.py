"""The router on a real Redis-compatible server: order, reasons, entitlement, health, retries."""

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pybreaker
import pytest

from core.clock import SystemClock
from core.errors import (
    BadDataError,
    NoRouteError,
    NotEntitledError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    SymbolNotFoundError,
)
from core.words import Capability, Share
from routing.lease import Lease
from routing.router import Router
from routing.sources import Source
from tests.routing_parts import BARS, limit, router, source

pytestmark = pytest.mark.integration

CLOCK = SystemClock()


@pytest.fixture
def two(redis_url: str) -> Iterator[Router]:
    with closing(router(redis_url, CLOCK, [source("a"), source("b")])) as built:
        yield built


def lease(built: Router, **words: Any) -> Lease:
    return built.acquire(BARS, **{"share": Share.LIVE, "deadline": CLOCK.monotonic()} | words)


def answer(built: Router, times: int = 1, latency_s: float = 0.01, **words: Any) -> None:
    for _ in range(times):
        lease(built, pinned="a").answered(latency_s, endpoint="chart", **words)


def fail(built: Router, times: int, error: Any = None) -> None:
    for _ in range(times):
        wrong = error or ProviderUnavailableError("refused")
        lease(built, pinned="a").failed(wrong, 0.01, endpoint="chart")


def refusal(built: Router, name: str = "a", **words: Any) -> str:
    with pytest.raises(NoRouteError) as caught:
        lease(built, pinned=name, **words)
    return caught.value.refusals[name]


def status(built: Router, name: str = "a") -> Any:
    return next(entry for entry in built.status() if entry.source == name)


def test_the_first_band_takes_the_call(two: Router) -> None:
    assert [lease(two).source for _ in range(3)] == ["a", "a", "a"]


def test_within_a_band_the_healthier_takes_the_call(redis_url: str) -> None:
    sources = [source("a"), source("b")]
    with closing(router(redis_url, CLOCK, sources, bands=(("a", "b"),))) as built:
        assert lease(built).source == "a"
        answer(built, 30, latency_s=1.0)
        CLOCK.sleep(0.65)
        assert lease(built).source == "b"


def test_the_next_source_takes_what_the_first_may_not(two: Router) -> None:
    assert lease(two, exclude={"a"}).source == "b"


def test_no_route_says_why_for_every_source(redis_url: str) -> None:
    sources = [source("a", limit(1, 60)), Source("alphavantage", None, "not installed yet")]
    with closing(router(redis_url, CLOCK, sources)) as built:
        lease(built).answered(0.01, endpoint="chart")
        with pytest.raises(NoRouteError) as caught:
            lease(built)
    assert list(caught.value.refusals) == ["a", "alphavantage"]
    assert caught.value.refusals["a"].startswith("budget used up: 1 per 60 s, frees in ")
    assert caught.value.refusals["alphavantage"] == "not installed yet"
    assert caught.value.retry_at is not None
    left_s = (caught.value.retry_at - CLOCK.now()).total_seconds()
    assert 55 < left_s < 62


def test_waiting_that_can_not_help_is_not_done(redis_url: str) -> None:
    sources = [Source("alphavantage", None, "not installed yet"), source("a", limit(1, 60))]
    with closing(router(redis_url, CLOCK, sources)) as built:
        lease(built)
        began = CLOCK.monotonic()
        with pytest.raises(NoRouteError) as caught:
            lease(built, exclude={"a"}, deadline=began + 30)
        assert caught.value.retry_at is None
        with pytest.raises(NoRouteError) as caught:
            lease(built, deadline=began + 30)
        assert caught.value.retry_at is not None, "the budget frees, but not by the deadline"
        assert CLOCK.monotonic() - began < 1


def test_a_capability_that_no_policy_names_has_no_route(two: Router) -> None:
    with pytest.raises(NoRouteError, match="the policy names none"):
        two.acquire(Capability.QUOTES_L1, share=Share.LIVE, deadline=CLOCK.monotonic())


def test_a_capability_that_a_source_does_not_offer_is_its_reason(two: Router) -> None:
    with pytest.raises(NoRouteError, match="a: does not offer quotes_l1"):
        two.acquire(Capability.QUOTES_L1, share=Share.LIVE, pinned="a", deadline=CLOCK.monotonic())


def test_what_the_budget_refuses_goes_to_the_next_source(redis_url: str) -> None:
    with closing(router(redis_url, CLOCK, [source("a", limit(2, 60)), source("b")])) as built:
        assert [lease(built).source for _ in range(4)] == ["a", "a", "b", "b"]


def test_acquire_waits_for_budget_until_the_deadline(redis_url: str) -> None:
    with closing(router(redis_url, CLOCK, [source("a", limit(1, 0.5))])) as built:
        lease(built)
        began = CLOCK.monotonic()
        assert lease(built, deadline=began + 5).source == "a"
        assert 0.45 <= CLOCK.monotonic() - began <= 1.5


def test_the_hint_goes_first_only_where_overriding_is_allowed(redis_url: str) -> None:
    sources = [source("a"), source("b")]
    with closing(router(redis_url, CLOCK, sources)) as built:
        assert lease(built, hint="b").source == "a"
    with closing(router(redis_url, CLOCK, sources, allow_override=True)) as built:
        assert lease(built, hint="b").source == "b"
        assert lease(built, hint="b", exclude={"b"}).source == "a"
        assert lease(built, hint="nobody").source == "a"


def test_a_pinned_source_is_asked_and_no_other_even_outside_of_the_policy(redis_url: str) -> None:
    sources = [source("a"), source("b", limit(1, 60)), source("c")]
    with closing(router(redis_url, CLOCK, sources, bands=(("a",), ("b",)))) as built:
        assert lease(built, pinned="b").source == "b"
        assert "budget used up" in refusal(built, "b")
        assert lease(built, pinned="c").source == "c"
        assert refusal(built, "x") == "unknown: no such provider"


def test_a_switched_off_source_is_not_asked_and_comes_back(redis_url: str) -> None:
    off = {"a": "looks wrong"}
    with closing(
        router(redis_url, CLOCK, [source("a"), source("b")], disabled=lambda: off)
    ) as built:
        assert lease(built).source == "b"
        assert built.eligible(BARS) == ["b"]
        assert refusal(built) == "disabled by the operator: looks wrong"
        off.clear()
        CLOCK.sleep(1.1)
        assert lease(built).source == "a"


def test_a_capability_that_the_plan_lacks_is_off_for_the_fleet_and_the_breaker_untouched(
    two: Router, redis_url: str
) -> None:
    fail(two, 1, NotEntitledError("You don't have access to this resource."))
    with closing(router(redis_url, CLOCK, [source("a"), source("b")])) as other:
        for each in (two, other):
            assert lease(each).source == "b"
            assert each.eligible(BARS) == ["b"]
            assert refusal(each) == "not entitled: You don't have access to this resource."
            assert each.breaker("a", BARS).current_state == pybreaker.STATE_CLOSED
            assert status(each).health == pytest.approx(1.0)


def test_one_symbol_outside_of_the_plan_does_not_turn_a_working_source_off(two: Router) -> None:
    answer(two)
    fail(two, 1, NotEntitledError("You don't have access to this resource."))
    assert lease(two).source == "a"
    fail(two, 2, NotEntitledError("You don't have access to this resource."))
    assert lease(two).source == "b"


def test_health_is_the_fleet_s(two: Router, redis_url: str) -> None:
    answer(two, 40, latency_s=1.0, expected=10, received=5)
    with closing(router(redis_url, CLOCK, [source("a"), source("b")])) as other:
        two.close()
        seen = status(other)
        assert seen.terms.latency < 0.7
        assert seen.terms.completeness < 0.7
        assert seen.terms.errors == pytest.approx(1.0)
        assert seen.health == pytest.approx(seen.terms.score)


def test_a_source_whose_health_is_too_low_is_passed_over_and_says_so(two: Router) -> None:
    for _ in range(40):
        # Three failures among four calls are not yet enough for the breaker in so few.
        answer(two, 3, latency_s=2.9, expected=10, received=0)
        fail(two, 1, ProviderTimeoutError("3 s are over"))
    two.status()
    if two.breaker("a", BARS).current_state == pybreaker.STATE_CLOSED:
        assert "health" in refusal(two)
    assert lease(two).source == "b"


def test_retries_are_limited_to_a_fifth_of_the_calls_beside_ten(two: Router) -> None:
    answer(two, 100)
    last = lease(two)
    last.failed(BadDataError("stale"), 0.01, endpoint="chart")
    allowed = sum(last.retry_allowed() for _ in range(100))
    assert 28 <= allowed <= 31


def test_a_lease_counts_once_whatever_is_said_after(two: Router) -> None:
    one = lease(two)
    one.answered(0.01, endpoint="chart")
    one.answered(0.01, endpoint="chart")
    one.failed(ProviderUnavailableError("refused"), 0.01, endpoint="chart")
    one.release()
    seen = status(two)
    assert seen.terms.errors == pytest.approx(1.0)
    assert seen.last_error == ""


def test_status_tells_all_that_people_ask(redis_url: str) -> None:
    sources = [
        source("a", limit(4, 60)),
        source("b"),
        Source("alphavantage", None, "not installed yet"),
    ]
    with closing(router(redis_url, CLOCK, sources, bands=(("a", "alphavantage"), ("b",)))) as built:
        answer(built, 3)
        fail(built, 1, SymbolNotFoundError("XX"))
        lease(built, pinned="b").failed(
            ProviderUnavailableError("http://u:secret@x/?token=k is down"), 0.01, endpoint="x"
        )
        a, missing, b = built.status()
    assert [(s.source, s.band, s.installed) for s in (a, missing, b)] == [
        ("a", 1, True),
        ("alphavantage", 1, False),
        ("b", 2, True),
    ]
    assert (a.state, a.circuit, a.share, a.opens_in_s) == ("closed", 1.0, 1.0, 0.0)
    (use,) = a.budgets
    assert (use.live, use.backfill, use.left, use.share) == (4, 0, 0, 1.0)
    assert a.why_not == "budget used up: 4 per 60 s"
    assert a.last_error == ""
    assert a.traffic == pytest.approx(3 / 4)
    assert a.last_answer_s is not None
    assert a.asked
    assert missing.why_not == "not installed yet"
    assert (missing.state, missing.health) == ("ineligible", None)
    assert b.why_not is None
    assert b.last_error == "unavailable: http://u:***@x/?token=*** is down"
    assert 0 <= (b.last_error_s or 0) < 5
    assert b.last_answer_s is None
    assert b.asked


def test_a_source_that_nobody_asked_or_that_is_off_says_so(redis_url: str) -> None:
    with closing(
        router(redis_url, CLOCK, [source("a"), source("b")], disabled=lambda: {"b": "drill"})
    ) as built:
        a, b = built.status()
    assert (a.state, a.asked, a.why_not) == ("closed", False, None)
    assert (b.state, b.why_not) == ("disabled", "disabled by the operator: drill")


class Heard(pybreaker.CircuitBreakerListener):
    """One of pybreaker's own listeners."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def before_call(self, cb: Any, func: Any, *args: Any, **kwargs: Any) -> None:
        self.events.append(f"before {cb.name}")

    def success(self, cb: Any) -> None:
        self.events.append(f"success {cb.name}")

    def failure(self, cb: Any, exc: BaseException) -> None:
        self.events.append(f"failure {exc}")

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        self.events.append(f"{old_state.name} -> {new_state.name}")


def test_pybreaker_s_listeners_hear_calls_and_changes(two: Router) -> None:
    heard = Heard()
    two.add_listener(heard)
    answer(two)
    assert heard.events == ["before a:bars_1m", "success a:bars_1m"]
    heard.events.clear()
    fail(two, 4)
    assert heard.events.count("failure refused") == 4
    assert heard.events.count("closed -> open") == 1


def test_the_breaker_guards_plain_functions_side_by_side(two: Router) -> None:
    breaker = two.breaker("a", BARS)
    together = threading.Barrier(4, timeout=5)
    threads = [threading.Thread(target=breaker.call, args=(together.wait,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not together.broken

    def refused() -> None:
        raise ProviderUnavailableError("refused")

    for _ in range(4):
        with pytest.raises(ProviderUnavailableError):
            breaker.call(refused)
    with pytest.raises(pybreaker.CircuitBreakerError, match="a:bars_1m is open"), breaker.calling():
        pass
    assert breaker.current_state == pybreaker.STATE_OPEN
