"""What every provider promises before anything is sent: its facts, and calls that fit them."""

from datetime import timedelta

import pytest

from core.errors import BadRequestError, NotEntitledError
from core.windows import Window, merge
from core.words import Capability
from providers.base import NotConfigured, Request
from tests.contract.conftest import NOW, SYMBOLS, Case, MakeCase, between

HOUR = between("2024-03-07T14:30", "2024-03-07T15:30")
MONTHS = Window(NOW - timedelta(days=28), NOW)


def bars_of(case: Case) -> list[Capability]:
    return [c for c in case.provider.specs() if c.interval is not None]


def test_facts_agree_with_each_other(case: Case) -> None:
    limits = case.provider.limits()
    names = {limit.name for limit in limits}

    assert len(names) == len(limits)
    assert all(limit.units > 0 and limit.window_s > 0 for limit in limits)
    for capability, spec in case.provider.specs().items():
        assert spec.capability is capability
        assert spec.cost.keys() == names
        assert spec.batch >= 1
        assert spec.timeout_s > 0
        assert spec.span > timedelta(0)
        assert spec.settle >= timedelta(0)


def test_calls_cover_the_window_without_overlap_and_fit_the_span(case: Case) -> None:
    for capability in bars_of(case):
        calls = case.provider.plan(Request(capability, SYMBOLS, MONTHS))
        for symbol in SYMBOLS:
            windows = [call.window for call in calls if symbol in call.symbols and call.window]
            assert merge(windows) == [MONTHS]
            assert windows == sorted(windows)
            assert sum((w.length for w in windows), timedelta(0)) == MONTHS.length
            assert all(w.length <= case.provider.specs()[capability].span for w in windows)


def test_calls_fit_the_batch_and_name_each_symbol_once(case: Case) -> None:
    many = tuple(f"S{n:03d}" for n in range(250))
    for capability, spec in case.provider.specs().items():
        window = None if capability.interval is None else HOUR
        calls = case.provider.plan(Request(capability, many + many[:7], window))
        assert [symbol for call in calls for symbol in call.symbols] == list(many)
        assert all(len(call.symbols) <= spec.batch for call in calls)
        assert len(calls) == -(-len(many) // spec.batch)


def test_planning_twice_gives_the_same_calls(case: Case) -> None:
    for capability in bars_of(case):
        request = Request(capability, SYMBOLS, HOUR)
        assert case.provider.plan(request) == case.provider.plan(request)


def test_calls_hold_no_secret(case: Case) -> None:
    for capability in case.provider.specs():
        window = None if capability.interval is None else HOUR
        for call in case.provider.plan(Request(capability, SYMBOLS, window)):
            assert call.source == case.name
            assert case.name.split(".")[0] == case.provider.name
            assert not {"token", "crumb", "apikey"} & call.params.keys()
            assert call.endpoint.isidentifier()


@pytest.mark.parametrize(
    ("capability", "symbols", "window", "words"),
    [
        (Capability.BARS_1M, (), HOUR, "no symbol; name one"),
        (Capability.BARS_1M, ("BUSY",), None, "without a window; give one"),
        (
            Capability.BARS_1M,
            ("BUSY",),
            between("2024-03-08T14:30", "2024-03-08T15:00"),
            "lies in the future; it is 2024-03-07T16:0",
        ),
        (Capability.OPTIONS_CHAIN, ("BUSY",), None, "does not serve options_chain; it serves bars"),
    ],
)
def test_what_can_not_be_asked_is_refused_with_the_mend(
    case: Case, capability: Capability, symbols, window, words: str
) -> None:
    with pytest.raises(BadRequestError, match=words) as caught:
        case.provider.plan(Request(capability, symbols, window))

    assert case.provider.name in str(caught.value)


def test_a_window_beyond_the_look_back_is_refused_with_the_earliest_start(case: Case) -> None:
    old = between("2023-06-01T14:30", "2023-06-01T15:30")
    for capability, spec in case.provider.specs().items():
        if capability.interval is None:
            continue
        if spec.lookback is None:
            assert case.provider.plan(Request(capability, ("BUSY",), old))
            continue
        words = r"for the last 29 days, .* starts earlier; ask from 2024-02-07T16:0"
        with pytest.raises(BadRequestError, match=words):
            case.provider.plan(Request(capability, ("BUSY",), old))


def test_quotes_take_no_window(wired: Case) -> None:
    with pytest.raises(BadRequestError, match="quotes are of now and take no window"):
        wired.provider.plan(Request(Capability.QUOTES_L1, ("BUSY",), HOUR))


def test_a_key_without_candles_is_told_before_anything_is_sent(make_case: MakeCase) -> None:
    free = make_case("finnhub", finnhub_premium=False)

    assert list(free.provider.specs()) == [Capability.QUOTES_L1]
    with pytest.raises(NotEntitledError, match="FINNHUB_PREMIUM=true"):
        free.provider.plan(Request(Capability.BARS_1M, ("BUSY",), HOUR))


def test_limits_are_the_operators_and_shared_by_key_or_address(make_case: MakeCase) -> None:
    finnhub = make_case("finnhub", finnhub_limits="300/60s,30/1s,280/60s").provider
    yahoo = make_case("yfinance", yfinance_limits="2000/60s").provider

    assert [(i.name, i.units, i.window_s, i.scope) for i in finnhub.limits()] == [
        ("60s", 280, 60.0, "key"),
        ("1s", 30, 1.0, "key"),
    ]
    assert [(i.name, i.units, i.window_s, i.scope) for i in yahoo.limits()] == [
        ("60s", 2000, 60.0, "ip")
    ]


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("finnhub", {"finnhub_api_key": ""}, "FINNHUB_API_KEY is not set"),
        ("csv", {"csv_dir": ""}, "CSV_DIR is not set; name a folder"),
        ("csv", {"csv_dir": "/nowhere/at/all"}, "/nowhere/at/all is no folder; create it"),
        ("yfinance", {"yahoo_base_url": "localhost:80"}, "expected http://host:port/path"),
        ("yfinance", {"yahoo_base_url": "https://sim/yahoo"}, "expected http://host:port/path"),
    ],
)
def test_a_provider_that_is_not_set_up_says_which_setting_mends_it(
    make_case: MakeCase, name: str, settings, words: str
) -> None:
    with pytest.raises(NotConfigured, match=words) as caught:
        make_case(name, **settings)

    assert caught.value.reason == str(caught.value)
