"""Finnhub's replies: candles in columns, zeros for the unknown, words that decide."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson
import pytest

from core.clock import ReplayClock, Segment, real_timestamp
from core.errors import (
    AuthRejectedError,
    BadDataError,
    MalformedPayloadError,
    NotEntitledError,
    ProviderError,
    RateLimitedError,
    SymbolNotFoundError,
)
from core.sessions import Calendar, Session
from core.windows import Window
from core.words import Capability
from providers.base import Call, Page, Raw, Request
from providers.finnhub import Finnhub

NOW = datetime(2024, 3, 7, 16, tzinfo=UTC)
OPEN = datetime(2024, 3, 6, 14, 30, tzinfo=UTC)
HOURS = Window(OPEN, OPEN + timedelta(hours=6.5))
NEW_YORK = Calendar(
    "XNYS", 1, date(2024, 1, 1), date(2024, 12, 31), [Session(date(2024, 3, 6), (HOURS,))]
)
CLOCK = ReplayClock([Segment(real_timestamp(), NOW.timestamp(), 1.0)])
PROVIDER = Finnhub(CLOCK, key="a-key", base_url="http://127.0.0.1:1", premium=True, limits=())


def read(
    body: Any, capability: Capability = Capability.BARS_1M, window: Window | None = HOURS
) -> Page:
    if capability is Capability.QUOTES_L1:
        window = None
    (call,) = PROVIDER.plan(Request(capability, ("AAPL",), window))
    return PROVIDER.parse(call, Raw(200, orjson.dumps(body), {}), NEW_YORK)


def candles(*rows: tuple[Any, ...]) -> dict[str, Any]:
    columns = zip(*rows, strict=True)
    return {"s": "ok"} | {name: list(c) for name, c in zip("tohlcv", columns, strict=True)}


def test_a_minute_call_includes_both_its_ends_and_so_stops_a_second_early() -> None:
    (call,) = PROVIDER.plan(Request(Capability.BARS_1M, ("AAPL",), HOURS))

    assert call.params == {
        "symbol": "AAPL",
        "resolution": "1",
        "from": "1709735400",
        "to": "1709758799",
    }


def test_a_daily_call_starts_at_the_midnight_that_stamps_its_first_candle() -> None:
    (call,) = PROVIDER.plan(Request(Capability.BARS_EOD, ("AAPL",), HOURS))

    assert call.params["from"] == str(int(datetime(2024, 3, 6, tzinfo=UTC).timestamp()))
    assert call.params["resolution"] == "D"


def test_a_month_of_minutes_is_one_call_and_a_day_more_is_two() -> None:
    month = Window(OPEN - timedelta(days=30), OPEN)

    assert len(PROVIDER.plan(Request(Capability.BARS_1M, ("AAPL",), month))) == 1
    longer = Window(month.start - timedelta(days=1), OPEN)
    assert len(PROVIDER.plan(Request(Capability.BARS_1M, ("AAPL",), longer))) == 2


def test_intraday_is_raw_and_daily_is_adjusted_for_splits() -> None:
    specs = PROVIDER.specs()

    assert specs[Capability.BARS_1M].adjustment == "raw"
    assert specs[Capability.BARS_EOD].adjustment == "split"


def test_candles_are_read_by_column() -> None:
    page = read(candles((1709735400, 1.0, 2.0, 0.5, 1.5, 900), (1709735460, 1, 1, 1, 1, 0.5)))

    first, second = page.bars["AAPL"]
    assert (first.ts, first.open, first.high, first.low, first.close) == (OPEN, 1.0, 2.0, 0.5, 1.5)
    assert (first.volume, second.volume) == (900.0, 0.5)


def test_a_daily_candle_is_the_session_of_its_utc_date() -> None:
    midnight = int(datetime(2024, 3, 6, tzinfo=UTC).timestamp())

    (bar,) = read(candles((midnight, 1, 1, 1, 1, 1)), Capability.BARS_EOD).bars["AAPL"]

    assert (bar.ts, bar.session) == (OPEN, date(2024, 3, 6))


@pytest.mark.parametrize("body", [{"s": "no_data"}, {"s": "ok"} | {name: [] for name in "tohlcv"}])
def test_no_data_is_an_empty_answer(body) -> None:
    assert list(read(body).bars["AAPL"]) == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"s": "ok"},
        {"s": "weird"},
        candles((1709735400, 1, 1, 1, 1, 1)) | {"c": [1, 2]},
        candles((1709735400, 1, 1, 1, 1, 1)) | {"t": ["now"]},
        candles((1709735400, 1, 1, 1, 1, 1)) | {"v": None},
    ],
)
def test_candles_of_another_shape_are_malformed(body) -> None:
    with pytest.raises(MalformedPayloadError, match="finnhub candle AAPL"):
        read(body)


def test_a_quote_is_the_last_trade_and_its_second() -> None:
    quote = read({"c": 190.5, "t": 1709826900, "o": 1}, Capability.QUOTES_L1).quotes["AAPL"]

    assert (quote.last, quote.bid, quote.ask) == (190.5, None, None)
    assert quote.ts == datetime(2024, 3, 7, 15, 55, tzinfo=UTC)


@pytest.mark.parametrize("body", [{"c": 0, "t": 0}, {"c": None, "t": None}, {"c": 0, "t": None}])
def test_zeros_mean_that_the_symbol_is_unknown(body) -> None:
    page = read(body, Capability.QUOTES_L1)

    assert isinstance(page.problems["AAPL"], SymbolNotFoundError)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"c": -1, "t": 1709826900}, BadDataError),
        ({"c": 5, "t": 0}, BadDataError),
        ({"c": 0, "t": 1709826900}, BadDataError),
        ({"c": "5", "t": 1709826900}, BadDataError),
        ({"c": True, "t": 1709826900}, BadDataError),
        ({"c": 5, "t": 1709826900.5}, BadDataError),
        ({"price": 5}, MalformedPayloadError),
        ({"error": "API limit reached. Remaining Limit: 0"}, RateLimitedError),
        ({"error": "something else"}, MalformedPayloadError),
    ],
)
def test_a_quote_that_can_not_be_true_is_the_providers_failure(
    body, error: type[ProviderError]
) -> None:
    with pytest.raises(ProviderError) as caught:
        read(body, Capability.QUOTES_L1)

    assert type(caught.value) is error


def refused(status: int, body: bytes, headers: dict[str, str]) -> ProviderError:
    call = Call("finnhub", Capability.QUOTES_L1, "quote", ("AAPL",), None, {})
    return PROVIDER._refusal(call, Raw(status, body, headers))


def test_an_old_401_for_an_entitlement_is_an_entitlement() -> None:
    body = b'{"error":"You don\'t have access to this resource."}'

    assert type(refused(401, body, {})) is NotEntitledError
    assert type(refused(401, b'{"error":"Please use an API key."}', {})) is AuthRejectedError


@pytest.mark.parametrize(("offset_s", "expected"), [(25.0, 25.0), (-5.0, None), (7200.0, None)])
def test_the_reset_header_counts_in_market_time(offset_s: float, expected: float | None) -> None:
    headers = {"x-ratelimit-reset": str(CLOCK.timestamp() + offset_s)}

    error = refused(429, b'{"error":"API limit reached."}', headers)

    assert isinstance(error, RateLimitedError)
    assert error.retry_after_s == (expected and pytest.approx(expected, abs=1.0))


def test_retry_after_wins_over_the_reset_header() -> None:
    error = refused(429, b"", {"retry-after": "3", "x-ratelimit-reset": "1"})

    assert isinstance(error, RateLimitedError)
    assert error.retry_after_s == 3.0
