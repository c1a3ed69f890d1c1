"""Binance's replies: twelve columns of text, fills that are no bars, lists with a stranger in them."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson
import pytest

from core.clock import ReplayClock, Segment, SystemClock, real_timestamp
from core.errors import (
    BadDataError,
    MalformedPayloadError,
    ProviderError,
    RateLimitedError,
    SymbolNotFoundError,
)
from core.sessions import Calendar, Session
from core.settings import Settings
from core.windows import Window
from core.words import Capability
from providers.base import Call, NotConfigured, Page, Raw, Request, limits_from
from providers.binance.adapter import Binance, build
from providers.binance.strangers import Strangers

NOW = datetime(2022, 12, 14, 12, tzinfo=UTC)
MIDNIGHT = datetime(2022, 12, 13, tzinfo=UTC)
DAY = Window(MIDNIGHT, MIDNIGHT + timedelta(days=1))
MIDNIGHT_MS = 1_670_889_600_000
ALWAYS = Calendar(
    "24/7", 1, date(2022, 1, 1), date(2023, 12, 31), [Session(MIDNIGHT.date(), (DAY,))]
)
# It stands still, however long the tests before take.
CLOCK = ReplayClock([Segment(real_timestamp(), NOW.timestamp(), 1e-6)])
PROVIDER = Binance(CLOCK, base_url="http://127.0.0.1:1", limits=limits_from("6000/60s", "ip"))


def kline(ms: int, *prices: str, volume: str = "110.66042", trades: int = 7) -> list[Any]:
    o, h, low, c = prices or ("17212.12", "17216.55", "17208.88", "17208.88")
    return [ms, o, h, low, c, volume, ms + 59_999, "1904000.1", trades, "50.1", "862000.5", "0"]


def read(document: Any, capability: Capability = Capability.BARS_1M, hours: float = 1.0) -> Page:
    window = Window(MIDNIGHT, MIDNIGHT + timedelta(hours=hours))
    (call,) = PROVIDER.plan(Request(capability, ("BTCBUSD",), window))
    return PROVIDER.parse(call, Raw(200, orjson.dumps(document), {}), ALWAYS)


def test_what_a_call_weighs_is_its_cost() -> None:
    cost = {capability: dict(spec.cost) for capability, spec in PROVIDER.specs().items()}

    assert cost == {
        Capability.BARS_1M: {"60s": 2},
        Capability.BARS_EOD: {"60s": 2},
        Capability.QUOTES_L1: {"60s": 4},
    }


def test_a_call_asks_for_a_thousand_minutes_and_stops_a_millisecond_early() -> None:
    calls = PROVIDER.plan(Request(Capability.BARS_1M, ("BTCBUSD",), DAY))

    assert [call.window.length for call in calls if call.window] == [
        timedelta(minutes=1000),
        timedelta(minutes=440),
    ]
    assert calls[0].params == {
        "symbol": "BTCBUSD",
        "interval": "1m",
        "startTime": str(MIDNIGHT_MS),
        "endTime": str(MIDNIGHT_MS + 60_000_000 - 1),
        "limit": "1000",
    }


def test_a_daily_call_starts_at_the_midnight_that_opens_its_first_kline() -> None:
    window = Window(MIDNIGHT + timedelta(hours=14), MIDNIGHT + timedelta(hours=21))

    (call,) = PROVIDER.plan(Request(Capability.BARS_EOD, ("BTCBUSD",), window))

    assert call.params["startTime"] == str(MIDNIGHT_MS)


@pytest.mark.parametrize("factor", [1, 1000], ids=["milliseconds", "microseconds"])
def test_klines_are_read_by_column_in_either_unit(factor: int) -> None:
    (bar,) = read([kline(MIDNIGHT_MS * factor)]).bars["BTCBUSD"]

    assert (bar.ts, bar.open, bar.high, bar.low, bar.close) == (
        MIDNIGHT,
        17212.12,
        17216.55,
        17208.88,
        17208.88,
    )
    assert (bar.volume, bar.trade_count) == (110.66042, 7)


def test_a_minute_that_binance_filled_is_no_bar() -> None:
    flat = ("9.5", "9.5", "9.5", "9.5")
    filled = kline(MIDNIGHT_MS + 60_000, *flat, volume="0.00000000", trades=0)

    bars = read([kline(MIDNIGHT_MS), filled, kline(MIDNIGHT_MS + 120_000)]).bars["BTCBUSD"]

    assert [bar.ts.minute for bar in bars] == [0, 2]


def test_klines_that_a_restart_shifted_off_the_minute_are_dropped() -> None:
    page = read([kline(MIDNIGHT_MS + 28_015), kline(MIDNIGHT_MS + 60_000)])

    assert [bar.ts.minute for bar in page.bars["BTCBUSD"]] == [1]


def test_a_daily_kline_is_the_session_of_its_utc_day() -> None:
    (bar,) = read([kline(MIDNIGHT_MS)], Capability.BARS_EOD, 24).bars["BTCBUSD"]

    assert (bar.ts, bar.session) == (MIDNIGHT, date(2022, 12, 13))


def test_a_price_that_is_no_number_is_a_reject_with_its_words() -> None:
    page = read([kline(MIDNIGHT_MS, "x", "2", "1", "1")])

    assert page.rejects == [("BTCBUSD", MIDNIGHT, "open is 'x'; expected a number")]


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ([[MIDNIGHT_MS, "1"]], MalformedPayloadError),
        ([["now", *kline(MIDNIGHT_MS)[1:]]], MalformedPayloadError),
        ([7], MalformedPayloadError),
        ({}, MalformedPayloadError),
        ({"code": -1003, "msg": "Too much request weight used"}, RateLimitedError),
        ({"code": -1121, "msg": "Invalid symbol."}, SymbolNotFoundError),
    ],
)
def test_what_is_no_list_of_klines_has_its_reason(document, error: type[ProviderError]) -> None:
    with pytest.raises(ProviderError) as caught:
        read(document)

    assert type(caught.value) is error


def quotes(*tickers: Any, date_header: str = "Wed, 14 Dec 2022 11:59:58 GMT") -> Page:
    (call,) = PROVIDER.plan(Request(Capability.QUOTES_L1, ("BTCBUSD", "ETHBUSD"), None))
    headers = {"date": date_header} if date_header else {}
    return PROVIDER.parse(call, Raw(200, orjson.dumps(tickers), headers), None)


def ticker(symbol: str, bid: str = "17000.10", ask: str = "17000.20") -> dict[str, str]:
    return {
        "symbol": symbol,
        "bidPrice": bid,
        "bidQty": "1.5",
        "askPrice": ask,
        "askQty": "0.25",
    }


def test_a_book_ticker_is_dated_by_its_reply() -> None:
    page = quotes(ticker("BTCBUSD"))

    quote = page.quotes["BTCBUSD"]
    assert quote.ts == datetime(2022, 12, 14, 11, 59, 58, tzinfo=UTC)
    assert (quote.bid, quote.ask, quote.bid_size, quote.ask_size) == (17000.1, 17000.2, 1.5, 0.25)
    assert (quote.last, quote.last_size) == (None, None)
    assert isinstance(page.problems["ETHBUSD"], SymbolNotFoundError)


def test_a_book_without_orders_is_no_quote() -> None:
    page = quotes(ticker("BTCBUSD", bid="0.00000000"), ticker("ETHBUSD", "0.0", "0.0"))

    assert (page.quotes["BTCBUSD"].bid, page.quotes["BTCBUSD"].bid_size) == (None, None)
    assert isinstance(page.problems["ETHBUSD"], BadDataError)


@pytest.mark.parametrize("stated", ["", "now", "Wed, 14 Dec 2022 11:59:58"])
def test_a_book_that_says_no_time_is_malformed(stated: str) -> None:
    with pytest.raises(MalformedPayloadError, match="carry no time"):
        quotes(ticker("BTCBUSD"), date_header=stated)


def refused(status: int, code: int, text: str, headers: dict[str, str]) -> ProviderError:
    call = Call("binance", Capability.QUOTES_L1, "bookTicker", ("BTCBUSD",), None, {})
    body = orjson.dumps({"code": code, "msg": text})
    return PROVIDER._refusal(call, Raw(status, body, headers))


def test_a_ban_says_until_when_by_header_or_in_words() -> None:
    until = int((CLOCK.timestamp() + 90) * 1000)
    words = f"Way too much request weight used; IP banned until {until}. Please use WebSocket"

    by_header = refused(418, -1003, "banned", {"retry-after": "120"})
    by_words = refused(418, -1003, words, {})

    assert isinstance(by_header, RateLimitedError)
    assert by_header.retry_after_s == 120.0
    assert isinstance(by_words, RateLimitedError)
    assert by_words.retry_after_s == pytest.approx(90, abs=2)


def test_a_stranger_is_left_out_of_lists_for_an_hour() -> None:
    class Clock(SystemClock):
        def monotonic(self) -> float:
            return now

    now = 100.0
    strangers = Strangers(Clock())
    listed = ("BTCBUSD", "ETHBUSD", "NOPE")
    strangers.refused(listed)
    assert strangers.suspected(listed)
    assert not strangers.suspected(("LTCBUSD", "XRPBUSD"))

    strangers.seen(listed, b'[{"symbol":"BTCBUSD"},{"symbol":"ETHBUSD"}]')

    assert not strangers.suspected(listed)
    assert strangers.without(listed) == ("BTCBUSD", "ETHBUSD")
    assert strangers.without(("NOPE",)) == ("NOPE",), "somebody has to be asked about"
    now += 3601
    assert strangers.without(listed) == listed


def test_a_symbol_that_binance_can_not_read_is_never_in_a_list() -> None:
    strangers = Strangers(SystemClock())

    assert strangers.without(("BTCBUSD", "BRK/B", "eth", "^GSPC")) == ("BTCBUSD",)


def test_an_address_that_is_none_says_which_setting_mends_it() -> None:
    settings = Settings(_env_file=None, binance_base_url="api.binance.com")  # pyright: ignore[reportCallIssue]

    with pytest.raises(NotConfigured, match=r"BINANCE_BASE_URL is 'api\.binance\.com'; expected a"):
        build(settings, CLOCK)
