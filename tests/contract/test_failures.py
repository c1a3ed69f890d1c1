"""What goes wrong at a provider, in our words: the right error, at once, and never sent again."""

import json
import traceback

import pytest

from core.clock import SystemClock
from core.errors import (
    AuthRejectedError,
    MalformedPayloadError,
    NotEntitledError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitedError,
    SymbolNotFoundError,
)
from core.words import Capability
from providers.base import Request
from sim.server import start
from tests.contract.conftest import KEY, NEW_YORK, VENDORS, Case, MakeCase, World, between

HOUR = between("2024-03-07T14:30", "2024-03-07T15:30")
REQUEST = Request(Capability.BARS_1M, ("BUSY",), HOUR)


def ask(case: Case, timeout_s: float = 5.0, request: Request = REQUEST) -> object:
    (call,) = case.provider.plan(request)
    return case.provider.parse(call, case.provider.send(call, timeout_s), NEW_YORK)


def failure(case: Case, timeout_s: float = 5.0, request: Request = REQUEST) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        ask(case, timeout_s, request)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert KEY not in shown
    return caught.value


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "5xx", "status": 503}, ProviderUnavailableError),
        ({"kind": "5xx", "status": 502}, ProviderUnavailableError),
        ({"kind": "429"}, RateLimitedError),
        ({"kind": "throttle_200"}, RateLimitedError),
        ({"kind": "reset"}, ProviderUnavailableError),
        ({"kind": "garbage", "variant": "truncated"}, MalformedPayloadError),
        ({"kind": "garbage", "variant": "html"}, MalformedPayloadError),
        ({"kind": "garbage", "variant": "empty"}, MalformedPayloadError),
        ({"kind": "garbage", "variant": "wrong_type"}, MalformedPayloadError),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else None,
)
@pytest.mark.parametrize("warm", [False, True], ids=["new connection", "kept connection"])
def test_each_fault_has_its_error_and_is_sent_once(
    wired: Case, world: World, fault, error: type[ProviderError], warm: bool, wait_until
) -> None:
    if warm:
        ask(wired)
    before = len(world.served(wired.source))
    world.fault(source=wired.source, **fault)

    found = failure(wired)

    assert type(found) is error
    assert "BUSY" in str(found) or "127.0.0.1" in str(found)
    wait_until(lambda: len(world.served(wired.source)) > before)
    assert len(world.served(wired.source)) == before + 1
    if "status" in fault:
        assert isinstance(found, ProviderUnavailableError)
        assert found.status == fault["status"]


def test_a_hanging_provider_is_given_up_in_time(wired: Case, world: World) -> None:
    world.fault(source=wired.source, kind="hang")
    clock = SystemClock()
    begun = clock.monotonic()

    found = failure(wired, timeout_s=0.4)

    assert isinstance(found, ProviderTimeoutError)
    assert "within 0.4 s" in str(found)
    assert 0.3 < clock.monotonic() - begun < 1.5


def test_a_refusing_provider_is_unavailable_and_comes_back(wired: Case, world: World) -> None:
    world.fault(source=wired.source, kind="refuse")
    assert isinstance(failure(wired), ProviderUnavailableError)

    world.post("/admin/faults", {"clear": "all"})

    assert ask(wired)


def test_the_wait_that_a_provider_asks_for_is_passed_on(wired: Case, world: World) -> None:
    world.fault(source=wired.source, kind="429", retry_after_s=7)

    found = failure(wired)

    assert isinstance(found, RateLimitedError)
    assert found.retry_after_s == 7.0


def test_a_provider_that_recovers_answers_the_next_call(wired: Case, world: World) -> None:
    world.fault(source=wired.source, kind="reset")
    failure(wired)
    world.post("/admin/faults", {"clear": "all"})

    assert ask(wired)


def test_as_many_requests_arrive_as_calls_were_planned(wired: Case, world: World) -> None:
    before = len(world.served(wired.source))
    calls = wired.provider.plan(Request(Capability.BARS_1M, ("BUSY", "CALM", "DULL"), HOUR))

    for call in calls * 4:
        wired.provider.send(call, 5.0)

    assert len(world.served(wired.source)) == before + 4 * len(calls)


def settled(world: World, source: str | None, wait_until) -> int:
    """Requests served so far, once those that earlier tests gave up on are over too."""
    counts = [-1]

    def same_as_before() -> bool:
        SystemClock().sleep(0.3)
        counts.append(len(world.served(source)))
        return counts[-1] == counts[-2]

    wait_until(same_as_before, what="the simulator's log stands still")
    return counts[-1]


@pytest.mark.parametrize("share", [0.5])
def test_requests_stay_counted_where_every_other_one_is_reset(
    wired: Case, world: World, share: float, wait_until
) -> None:
    before = settled(world, wired.source, wait_until)
    world.fault(source=wired.source, kind="reset", share=share)
    (call,) = wired.provider.plan(REQUEST)
    outcomes: list[str] = []

    for _ in range(40):
        try:
            wired.provider.send(call, 5.0)
            outcomes.append("answered")
        except ProviderUnavailableError:
            outcomes.append("reset")

    assert set(outcomes) == {"answered", "reset"}
    wait_until(lambda: len(world.served(wired.source)) >= before + 40)
    assert len(world.served(wired.source)) == before + 40


@pytest.mark.parametrize("name", VENDORS)
def test_a_limit_that_is_overrun_is_backpressure(
    make_case: MakeCase, world: World, name: str
) -> None:
    vendor = VENDORS[name]
    limited = {"limits": [{"units": 2 * vendor.weight, "seconds": 60}]}
    with start(world.config(**{vendor.sim: limited})) as sim:
        case = make_case(name, **{vendor.url: world.base_url(vendor.sim, sim)})
        ask(case)
        ask(case)
        found = failure(case)

    assert isinstance(found, RateLimitedError)
    if name in {"finnhub", "alpaca.iex", "alpaca.sip", "binance"}:
        # They say when their window has room again.
        assert found.retry_after_s is not None
        assert 55 < found.retry_after_s <= 61


def test_a_plan_without_candles_is_an_entitlement_not_a_failure(
    make_case: MakeCase, world: World
) -> None:
    with start(world.config(finnhub={"premium": False})) as sim:
        free = make_case("finnhub", finnhub_base_url=world.base_url("finnhub", sim))

        found = failure(free)
        (call,) = free.provider.plan(Request(Capability.QUOTES_L1, ("BUSY",), None))
        free.provider.send(call, 5.0)

    assert isinstance(found, NotEntitledError)
    assert "FINNHUB_PREMIUM=false" in str(found)


def test_a_key_that_is_refused_is_said_without_the_key(make_case: MakeCase, world: World) -> None:
    with start(world.config(finnhub={"keys": ["another"]})) as sim:
        wrong = make_case("finnhub", finnhub_base_url=world.base_url("finnhub", sim))
        found = failure(wrong)

    assert isinstance(found, AuthRejectedError)
    assert "check FINNHUB_API_KEY" in str(found)


def test_a_base_url_that_leads_elsewhere_is_no_word_about_the_symbol(
    make_case: MakeCase, world: World
) -> None:
    wrong = make_case("finnhub", finnhub_base_url=world.base_url("finnhub") + "/elsewhere")
    found = failure(wrong)

    assert isinstance(found, ProviderUnavailableError)
    assert "check FINNHUB_BASE_URL" in str(found)


def test_yahoo_names_a_symbol_that_it_does_not_know(make_case: MakeCase) -> None:
    request = Request(Capability.BARS_1M, ("NOPE",), HOUR)

    found = failure(make_case("yfinance"), request=request)

    assert isinstance(found, SymbolNotFoundError)
    assert "NOPE" in str(found)
    assert "may be delisted" in str(found)


def test_the_stored_reply_is_the_reply_byte_for_byte(wired: Case) -> None:
    (call,) = wired.provider.plan(REQUEST)

    raw = wired.provider.send(call, 5.0)

    assert raw.status == 200
    assert raw.headers["content-type"].startswith("application/json")
    assert json.loads(raw.body)
    assert KEY not in raw.body.decode()
