"""Alpaca's feeds: calls that fit a page, what a broken-off page leaves out, stamps and refusals."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from core.clock import ReplayClock, Segment, real_timestamp
from core.errors import (
    AuthRejectedError,
    BadDataError,
    BadRequestError,
    MalformedPayloadError,
    NotEntitledError,
    ProviderError,
    RateLimitedError,
    SymbolNotFoundError,
)
from core.sessions import Calendar, Session
from core.settings import Settings
from core.windows import Window, merge
from core.words import Capability
from providers.alpaca.adapter import Alpaca, Feed, build
from providers.base import Call, NotConfigured, Page, Raw, Request

NOW = datetime(2024, 3, 7, 16, tzinfo=UTC)
OPEN = datetime(2024, 3, 6, 14, 30, tzinfo=UTC)
HOURS = Window(OPEN, OPEN + timedelta(hours=6.5))


def hours(year: int, month: int, day: int, utc_open: int) -> Session:
    start = datetime(year, month, day, utc_open, 30, tzinfo=UTC)
    return Session(date(year, month, day), (Window(start, start + timedelta(hours=6.5)),))


NEW_YORK = Calendar(
    "XNYS",
    1,
    date(2022, 1, 1),
    date(2024, 12, 31),
    [
        hours(2022, 2, 1, 14),
        hours(2022, 2, 2, 14),
        hours(2022, 3, 9, 14),
        hours(2023, 9, 27, 13),
        hours(2024, 3, 6, 14),
    ],
)
# It stands still, however long the tests before take.
CLOCK = ReplayClock([Segment(real_timestamp(), NOW.timestamp(), 1e-6)])


def provider(feed: Feed = "iex", *, realtime: bool = True) -> Alpaca:
    return Alpaca(
        CLOCK,
        feed=feed,
        key="a-key",
        secret="a-secret",
        base_url="http://127.0.0.1:1",
        realtime=realtime,
        limits=(),
    )


IEX = provider()


def bars_call(*symbols: str, window: Window = HOURS, daily: bool = False) -> Call:
    capability = Capability.BARS_EOD if daily else Capability.BARS_1M
    (call,) = IEX.plan(Request(capability, symbols, window))
    return call


def quotes_call(*symbols: str) -> Call:
    (call,) = IEX.plan(Request(Capability.QUOTES_L1, symbols, None))
    return call


def read(call: Call, body: Any) -> Page:
    return IEX.parse(call, Raw(200, orjson.dumps(body), {}), NEW_YORK)


def row(minutes: int, price: float = 10.0) -> dict[str, Any]:
    at = OPEN + timedelta(minutes=minutes)
    prices = dict.fromkeys("ohlc", price)
    return {"t": f"{at:%Y-%m-%dT%H:%M:%SZ}", **prices, "v": 100, "n": 3, "vw": price}


def page(token: str | None = None, **bars: list[dict[str, Any]]) -> dict[str, Any]:
    return {"bars": bars, "next_page_token": token}


def test_a_call_names_its_feed_asks_for_raw_prices_and_stops_before_its_open_end() -> None:
    assert bars_call("AAPL", "BRK.B").params == {
        "symbols": "AAPL,BRK.B",
        "timeframe": "1Min",
        "start": "2024-03-06T14:30:00Z",
        "end": "2024-03-06T20:59:59Z",
        "limit": "10000",
        "adjustment": "raw",
        "sort": "asc",
        "feed": "iex",
    }


def test_a_daily_call_starts_at_the_midnight_that_stamps_its_first_bar() -> None:
    params = bars_call("AAPL", daily=True).params

    assert (params["timeframe"], params["start"]) == ("1Day", "2024-03-06T05:00:00Z")
    assert params["end"] == "2024-03-06T20:59:59Z"


@pytest.mark.parametrize(
    ("capability", "length", "symbols", "calls"),
    [
        (Capability.BARS_1M, timedelta(minutes=5), 250, 3),
        # 10,000 rows hold 390 minutes of 25 symbols.
        (Capability.BARS_1M, timedelta(minutes=390), 100, 4),
        (Capability.BARS_1M, timedelta(days=6), 3, 3),
        (Capability.BARS_1M, timedelta(days=12), 3, 6),
        (Capability.BARS_EOD, timedelta(days=90), 100, 1),
        (Capability.BARS_EOD, timedelta(days=365), 100, 4),
        (Capability.BARS_EOD, timedelta(days=9000), 2, 2),
    ],
)
def test_no_call_asks_for_more_rows_than_a_page_holds(
    capability: Capability, length: timedelta, symbols: int, calls: int
) -> None:
    window = Window(HOURS.end - length, HOURS.end)
    names = tuple(f"S{n:03d}" for n in range(symbols))

    planned = IEX.plan(Request(capability, names, window))

    step = timedelta(minutes=1) if capability is Capability.BARS_1M else timedelta(days=1)
    assert len(planned) == calls
    for call in planned:
        assert call.window
        assert len(call.symbols) * (call.window.length / step) <= 10_000
    assert merge(call.window for call in planned if call.window) == [window]


def test_a_symbol_in_another_spelling_goes_alone_so_that_it_spoils_no_other() -> None:
    request = Request(Capability.QUOTES_L1, ("AAPL", "^GSPC", "BRK.B", "msft", "TSLA"), None)

    assert [call.symbols for call in IEX.plan(request)] == [
        ("AAPL",),
        ("^GSPC",),
        ("BRK.B",),
        ("msft",),
        ("TSLA",),
    ]
    assert len(IEX.plan(Request(Capability.QUOTES_L1, ("AAPL", "BRK.B", "TSLA"), None))) == 1


def test_each_feed_is_a_source_and_both_share_the_keys_budget() -> None:
    sip = provider("sip")
    (call,) = sip.plan(Request(Capability.BARS_1M, ("AAPL",), HOURS))

    assert (call.source, bars_call("AAPL").source) == ("alpaca.sip", "alpaca.iex")
    assert call.params["feed"] == "sip"
    assert sip.name == IEX.name == "alpaca"


def test_a_plan_without_recent_consolidated_data_says_so_before_anything_is_sent() -> None:
    delayed = provider("sip", realtime=False)
    recent = Window(NOW - timedelta(minutes=30), NOW - timedelta(minutes=10))
    old = Window(NOW - timedelta(minutes=60), NOW - timedelta(minutes=17))

    assert Capability.QUOTES_L1 not in delayed.specs()
    with pytest.raises(NotEntitledError, match="ALPACA_SIP_REALTIME=true"):
        delayed.plan(Request(Capability.QUOTES_L1, ("AAPL",), None))
    with pytest.raises(BadRequestError, match=r"up to 15 minutes ago .* ask again"):
        delayed.plan(Request(Capability.BARS_1M, ("AAPL",), recent))
    assert delayed.plan(Request(Capability.BARS_1M, ("AAPL",), old))


def test_bars_are_read_with_average_price_and_trades_and_no_bar_is_an_answer() -> None:
    found = read(bars_call("AAPL", "IDLE"), page(AAPL=[row(0), row(2, 11.0)]))

    first, second = found.bars["AAPL"]
    assert (first.ts, first.close, first.volume, first.vwap, first.trade_count) == (
        OPEN, 10.0, 100.0, 10.0, 3,
    )  # fmt: skip
    assert second.ts == OPEN + timedelta(minutes=2)
    assert list(found.bars["IDLE"]) == []
    assert not found.rest


def test_a_volume_that_is_not_said_is_unknown_and_not_zero() -> None:
    silent, zero = row(0), row(1)
    del silent["v"], silent["n"], silent["vw"]
    zero["v"] = 0

    bars = read(bars_call("AAPL"), page(AAPL=[silent, zero])).bars["AAPL"]

    assert [(b.volume, b.vwap, b.trade_count) for b in bars] == [(None, None, None), (0, 10.0, 3)]


def test_a_page_that_goes_on_leaves_out_the_end_of_its_last_symbol_and_who_is_not_on_it() -> None:
    call = bars_call("C", "A", "B", "D")

    found = read(call, page("next", A=[row(0)], B=[row(0), row(9)]))

    assert found.rest == {
        "B": Window(OPEN + timedelta(minutes=10), HOURS.end),
        "C": HOURS,
        "D": HOURS,
    }
    assert [len(found.bars[symbol]) for symbol in "ABCD"] == [1, 2, 0, 0]


def test_a_page_that_ends_with_the_window_leaves_out_nothing_of_its_symbol() -> None:
    found = read(bars_call("A", "B"), page("next", A=[row(389)]))

    assert found.rest == {"B": HOURS}


def test_an_empty_page_that_goes_on_is_malformed_for_it_would_never_end() -> None:
    with pytest.raises(MalformedPayloadError, match="another follows"):
        read(bars_call("A"), page("next"))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"bars": []},
        {"bars": {"AAPL": {}}},
        {"bars": {"AAPL": [1]}},
        {"bars": {"AAPL": [{"t": "2024-03-06 14:30"}]}},
        {"bars": {"AAPL": [{"t": 1709735400}]}},
    ],
)
def test_bars_of_another_shape_are_malformed(body) -> None:
    with pytest.raises(MalformedPayloadError, match=r"alpaca\.iex bars AAPL"):
        read(bars_call("AAPL"), body)


@pytest.mark.parametrize("body", [{"bars": None}, {"bars": {}, "next_page_token": None}])
def test_no_bars_at_all_are_an_answer(body) -> None:
    assert list(read(bars_call("AAPL"), body).bars["AAPL"]) == []


def test_a_quote_has_its_instant_and_a_side_without_orders_has_no_price() -> None:
    body = {
        "quotes": {
            "AAPL": {"t": "2024-03-07T15:59:59.123456789Z", "bp": 9.5, "bs": 2, "ap": 0, "as": 0},
            "BAD": {"t": "2024-03-07T15:59:59Z", "bp": -1, "ap": 2},
        }
    }

    found = read(quotes_call("AAPL", "BAD", "NOPE"), body)

    quote = found.quotes["AAPL"]
    assert quote.ts == datetime(2024, 3, 7, 15, 59, 59, 123456, tzinfo=UTC)
    assert (quote.bid, quote.bid_size, quote.ask, quote.ask_size, quote.last) == (
        9.5, 2.0, None, None, None,
    )  # fmt: skip
    assert {symbol: type(error) for symbol, error in found.problems.items()} == {
        "BAD": BadDataError,
        "NOPE": SymbolNotFoundError,
    }


def refused(
    status: int, text: str, headers: dict[str, str] | None = None, *symbols: str
) -> ProviderError:
    call = quotes_call(*(symbols or ("AAPL",)))
    return IEX._refusal(call, Raw(status, orjson.dumps({"message": text}), headers or {}))


def test_one_bad_symbol_of_many_is_no_word_about_the_others() -> None:
    assert type(refused(400, "invalid symbol: X1", {}, "X1")) is SymbolNotFoundError
    assert type(refused(400, "invalid symbol: X1", {}, "AAPL", "X1")) is BadRequestError


def test_a_403_is_a_matter_of_the_plan_or_of_the_key_by_its_words() -> None:
    recent = refused(403, "subscription does not permit querying recent SIP data")

    assert type(recent) is NotEntitledError
    assert "ALPACA_SIP_REALTIME=false" in str(recent)
    assert type(refused(403, "forbidden.")) is AuthRejectedError


def test_keys_that_are_echoed_are_masked() -> None:
    assert "bad pair *** ***" in str(refused(401, "bad pair a-key a-secret"))


@pytest.mark.parametrize(("offset_s", "expected"), [(25.0, 25.0), (-5.0, None), (7200.0, None)])
def test_the_reset_header_counts_in_market_time(offset_s: float, expected: float | None) -> None:
    headers = {"x-ratelimit-reset": str(CLOCK.timestamp() + offset_s)}

    error = refused(429, "too many requests.", headers)

    assert isinstance(error, RateLimitedError)
    assert error.retry_after_s == (expected and pytest.approx(expected, abs=1.0))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"alpaca_api_key": ""}, "ALPACA_API_KEY is not set"),
        ({"alpaca_secret_key": ""}, "ALPACA_SECRET_KEY is not set"),
        ({"alpaca_base_url": "data.alpaca.markets"}, "expected a URL such as https://data"),
    ],
)
def test_what_is_missing_is_named(changes: dict[str, str], words: str) -> None:
    given = {"alpaca_api_key": "k", "alpaca_secret_key": "s", **changes}
    with pytest.raises(NotConfigured, match=words):
        build(Settings(_env_file=None, **given), CLOCK, "iex")  # pyright: ignore[reportCallIssue]


@pytest.fixture(scope="module")
def recorded(shared_recorded: Path) -> list[dict[str, Any]]:
    name = "alpaca-py-test_historical_stock_data.json"
    return orjson.loads((shared_recorded / "alpaca" / name).read_bytes())


def test_recorded_days_are_read_and_their_page_goes_on(recorded) -> None:
    window = Window(datetime(2022, 2, 1, tzinfo=UTC), datetime(2022, 3, 1, tzinfo=UTC))

    found = read(bars_call("AAPL", window=window, daily=True), recorded[0])

    assert [(b.session, b.close, b.volume, b.vwap, b.trade_count) for b in found.bars["AAPL"]] == [
        (date(2022, 2, 1), 174.61, 85998033.0, 173.703516, 732412),
        (date(2022, 2, 2), 175.84, 84817432.0, 174.941288, 675034),
    ]
    assert found.bars["AAPL"][0].ts == datetime(2022, 2, 1, 14, 30, tzinfo=UTC)
    assert found.rest == {
        "AAPL": Window(datetime(2022, 2, 3, 5, tzinfo=UTC), window.end),
    }


def test_a_recorded_day_of_two_symbols_is_whole(recorded) -> None:
    window = Window(datetime(2022, 3, 9, tzinfo=UTC), datetime(2022, 3, 10, tzinfo=UTC))

    found = read(bars_call("AAPL", "TSLA", window=window, daily=True), recorded[2])

    assert {symbol: [b.close for b in bars] for symbol, bars in found.bars.items()} == {
        "AAPL": [162.95],
        "TSLA": [858.97],
    }
    assert not found.rest


def test_a_recorded_summer_day_is_stamped_an_hour_earlier(recorded) -> None:
    window = Window(datetime(2023, 9, 27, tzinfo=UTC), datetime(2023, 9, 28, tzinfo=UTC))

    (bar,) = read(bars_call("TSLA", window=window, daily=True), recorded[1]).bars["TSLA"]

    assert (bar.session, bar.close) == (date(2023, 9, 27), 240.5)
    assert bar.ts == datetime(2023, 9, 27, 13, 30, tzinfo=UTC)


def test_a_recorded_empty_page_is_an_answer(recorded) -> None:
    assert list(read(bars_call("AAPL"), recorded[3]).bars["AAPL"]) == []


def test_a_recorded_latest_quote_keeps_its_microseconds(recorded) -> None:
    (body,) = [b for b in recorded if "ap" in b.get("quotes", {}).get("AAPL", [])]

    quote = read(quotes_call("AAPL"), body).quotes["AAPL"]

    assert quote.ts == datetime(2022, 3, 18, 14, 2, 43, 651613, tzinfo=UTC)
    assert (quote.bid, quote.bid_size, quote.ask, quote.ask_size) == (161.1, 2, 161.11, 13)
