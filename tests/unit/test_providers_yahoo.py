"""Yahoo's replies, invented and recorded: every trick of the payload that was ever seen."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from core.errors import (
    AuthRejectedError,
    BadDataError,
    BadRequestError,
    MalformedPayloadError,
    ProviderError,
    ProviderUnavailableError,
    RateLimitedError,
    SymbolNotFoundError,
)
from core.sessions import Calendar, Session
from core.windows import Window
from core.words import Capability
from providers.base import Call, Raw
from providers.yahoo.chart import chart_params, parse_chart
from providers.yahoo.quote import parse_quotes, quote_params
from providers.yahoo.refusals import refusal

NOW = datetime(2024, 3, 7, 16, tzinfo=UTC)
OPEN = datetime(2024, 3, 6, 14, 30, tzinfo=UTC)
CLOSE = datetime(2024, 3, 6, 21, tzinfo=UTC)
HOURS = Window(OPEN, CLOSE)


def calendar(*sessions: tuple[str, str]) -> Calendar:
    """Sessions by their open and close in UTC."""
    windows = [
        Window(*(datetime.fromisoformat(t).replace(tzinfo=UTC) for t in pair)) for pair in sessions
    ]
    days = [Session(w.start.date(), (w,)) for w in windows]
    return Calendar("X", 1, date(2000, 1, 1), date(2030, 1, 1), days)


NEW_YORK = calendar(("2024-03-06T14:30", "2024-03-06T21:00"))


def chart_call(symbol: str, window: Window = HOURS, *, daily: bool = False) -> Call:
    capability = Capability.BARS_EOD if daily else Capability.BARS_1M
    params = chart_params(capability, window)
    return Call("yfinance", capability, "chart", (symbol,), window, params)


def chart(rows: list[tuple[Any, ...]], symbol: str = "AAPL", **meta: object) -> Raw:
    """A chart of rows: minutes after the open, o, h, l, c, v."""
    columns = list(zip(*(row[1:] for row in rows), strict=True)) or [()] * 5
    names = ("open", "high", "low", "close", "volume")
    result = {
        "meta": {"symbol": symbol, "dataGranularity": "1m"} | meta,
        "timestamp": [int(OPEN.timestamp() + 60 * row[0]) for row in rows],
        "indicators": {"quote": [dict(zip(names, columns, strict=True))]},
    }
    return Raw(200, orjson.dumps({"chart": {"result": [result], "error": None}}), {})


def flat(minutes: float, price: float = 10.0, volume: int | None = 5) -> tuple[Any, ...]:
    return minutes, price, price, price, price, volume


def volumes(raw: Raw, window: Window = HOURS) -> dict[float, float | None]:
    """Volume by minutes after the open."""
    page = parse_chart(chart_call("AAPL", window), raw, NEW_YORK)
    return {(b.ts - OPEN).total_seconds() / 60: b.volume for b in page.bars["AAPL"]}


def test_a_minute_call_starts_one_minute_early_and_asks_for_extended_hours() -> None:
    assert chart_params(Capability.BARS_1M, HOURS) == {
        "period1": "1709735340",  # 2024-03-06T14:29Z
        "period2": "1709758800",
        "interval": "1m",
        "includePrePost": "true",
    }


def test_a_daily_call_has_room_on_both_sides() -> None:
    params = chart_params(Capability.BARS_EOD, HOURS)

    assert (int(params["period1"]), int(params["period2"])) == (
        1709735400 - 12 * 3600,
        1709758800 + 12 * 3600,
    )
    assert params["interval"] == "1d"


def test_the_pad_row_takes_the_false_zero_volume_with_it() -> None:
    later = Window(OPEN + timedelta(minutes=5), CLOSE)

    assert volumes(chart([flat(4, volume=0), flat(5), flat(6)]), later) == {5: 5.0, 6: 5.0}


def test_a_first_row_inside_the_window_has_an_unknown_volume() -> None:
    assert volumes(chart([flat(0, volume=0), flat(1, volume=0)])) == {0: None, 1: 0.0}


def test_live_and_closing_rows_are_no_bars() -> None:
    raw = chart([flat(388), flat(389), flat(390, volume=0), flat(389.6, volume=0)])

    assert list(volumes(raw)) == [388, 389]


@pytest.mark.parametrize("quote", [[{}], [{"open": [], "close": []}]])
def test_a_reply_without_timestamps_is_an_empty_answer(quote) -> None:
    result = {"meta": {"symbol": "AAPL"}, "indicators": {"quote": quote}}
    raw = Raw(200, orjson.dumps({"chart": {"result": [result], "error": None}}), {})

    assert parse_chart(chart_call("AAPL"), raw, NEW_YORK).bars == {"AAPL": []}


def test_the_400_for_a_window_without_data_is_an_empty_answer() -> None:
    error = {"code": "Bad Request", "description": "Data doesn't exist for startDate = 1, endD = 2"}
    raw = Raw(400, orjson.dumps({"chart": {"result": None, "error": error}}), {})

    assert refusal(chart_call("AAPL"), raw, NOW) is None
    assert parse_chart(chart_call("AAPL"), raw, NEW_YORK).bars == {"AAPL": ()}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda result: result.pop("meta"),
        lambda result: result.pop("indicators"),
        lambda result: result["indicators"].update(quote=[]),
        lambda result: result["indicators"]["quote"][0].pop("close"),
        lambda result: result["indicators"]["quote"][0].update(close=[1.0]),
        lambda result: result["indicators"]["quote"][0].update(close="1.0"),
        lambda result: result.update(timestamp="now"),
        lambda result: result.update(timestamp=[1.5, 2.5]),
        lambda result: result.update(timestamp=[None, None]),
        lambda result: result.pop("timestamp"),
    ],
)
def test_a_chart_of_another_shape_is_malformed(spoil) -> None:
    document = orjson.loads(chart([flat(0), flat(1)]).body)
    spoil(document["chart"]["result"][0])

    with pytest.raises(MalformedPayloadError, match="yfinance chart AAPL"):
        parse_chart(chart_call("AAPL"), Raw(200, orjson.dumps(document), {}), NEW_YORK)


@pytest.mark.parametrize("meta", [{"symbol": "MSFT"}, {"dataGranularity": "5m"}])
def test_the_chart_of_something_else_is_bad_data(meta) -> None:
    with pytest.raises(BadDataError, match=r"not '(AAPL|1m)'"):
        parse_chart(chart_call("AAPL"), chart([flat(0)], **meta), NEW_YORK)


def test_an_error_under_status_200_is_no_chart() -> None:
    error = {"code": "Internal", "description": "try later"}
    raw = Raw(200, orjson.dumps({"chart": {"result": None, "error": error}}), {})

    with pytest.raises(MalformedPayloadError, match="try later"):
        parse_chart(chart_call("AAPL"), raw, NEW_YORK)


def test_todays_daily_row_is_stamped_with_its_last_trade_and_found_all_the_same() -> None:
    raw = chart([flat(77.4)], dataGranularity="1d", exchangeTimezoneName="America/New_York")

    (bar,) = parse_chart(chart_call("AAPL", daily=True), raw, NEW_YORK).bars["AAPL"]

    assert (bar.ts, bar.session) == (OPEN, date(2024, 3, 6))


@pytest.mark.parametrize("zone", [None, "Mars/Olympus", "../../etc/passwd", ""])
def test_a_daily_chart_without_a_time_zone_is_malformed(zone) -> None:
    raw = chart([flat(0)], dataGranularity="1d", exchangeTimezoneName=zone)

    with pytest.raises(MalformedPayloadError, match="no time zone"):
        parse_chart(chart_call("AAPL", daily=True), raw, NEW_YORK)


def envelope(name: str, code: str, text: str) -> bytes:
    return orjson.dumps({name: {"result": None, "error": {"code": code, "description": text}}})


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (404, envelope("chart", "Not Found", "No data found"), SymbolNotFoundError, "No data"),
        (422, envelope("chart", "Unprocessable Entity", "last 30"), BadRequestError, "last 30"),
        (400, envelope("chart", "Bad Request", "Invalid input"), BadRequestError, "Invalid"),
        (401, envelope("finance", "Unauthorized", "Invalid Crumb"), AuthRejectedError, "Crumb"),
        (429, b"Edge: Too Many Requests", RateLimitedError, "Too Many"),
        (500, b"<html>oops</html>", ProviderUnavailableError, "answered 500"),
        (404, b"<html>no such page</html>", ProviderUnavailableError, "check YAHOO_BASE_URL"),
    ],
)
def test_a_status_has_its_error_and_yahoos_words(
    status: int, body: bytes, error: type[ProviderError], words: str
) -> None:
    found = refusal(chart_call("AAPL"), Raw(status, body, {}), NOW)

    assert type(found) is error
    assert words in str(found)
    assert "oops" not in str(found)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("30", 30.0),
        ("0", 0.0),
        ("-5", 0.0),
        ("Thu, 07 Mar 2024 16:01:30 GMT", 90.0),
        ("Thu, 07 Mar 2024 15:00:00 GMT", 0.0),
        ("soon", None),
        ("nan", None),
        ("", None),
    ],
)
def test_retry_after_counts_from_market_time(header: str, seconds: float | None) -> None:
    found = refusal(chart_call("AAPL"), Raw(429, b"", {"retry-after": header}), NOW)

    assert isinstance(found, RateLimitedError)
    assert found.retry_after_s == seconds


def quotes(*rows: dict[str, Any]) -> Raw:
    return Raw(200, orjson.dumps({"quoteResponse": {"result": rows, "error": None}}), {})


def quote_call(*symbols: str) -> Call:
    params = quote_params(symbols)
    return Call("yfinance", Capability.QUOTES_L1, "quote", symbols, None, params)


GOOD = {"symbol": "AAPL", "regularMarketPrice": 244.6, "regularMarketTime": 1739566800}


def test_no_bid_is_no_price_of_zero() -> None:
    raw = quotes(GOOD | {"bid": 0, "ask": 253.37, "bidSize": 8, "askSize": 0})

    quote = parse_quotes(quote_call("AAPL"), raw).quotes["AAPL"]

    assert (quote.bid, quote.bid_size, quote.ask, quote.ask_size) == (None, None, 253.37, None)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"regularMarketPrice": 0},
        {"regularMarketPrice": -1.0},
        {"regularMarketPrice": "244.6"},
        {"regularMarketTime": 0},
        {"regularMarketTime": "now"},
        {"regularMarketTime": {"raw": 1}},
    ],
)
def test_a_quote_that_can_not_be_true_is_that_symbols_problem_alone(spoilt) -> None:
    other = {"symbol": "MSFT", "regularMarketPrice": 1.5, "regularMarketTime": 1739566800}

    page = parse_quotes(quote_call("AAPL", "MSFT"), quotes(GOOD | spoilt, other))

    assert set(page.quotes) == {"MSFT"}
    assert type(page.problems["AAPL"]) is BadDataError


def test_symbols_are_matched_whatever_their_case() -> None:
    assert set(parse_quotes(quote_call("aapl"), quotes(GOOD)).quotes) == {"aapl"}


@pytest.mark.parametrize("body", [b"{}", b'{"quoteResponse":{}}', b'{"quoteResponse":[]}'])
def test_a_quote_reply_of_another_shape_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedPayloadError, match="yfinance quote A, B, C, \\.\\.\\.:"):
        parse_quotes(quote_call("A", "B", "C", "D"), Raw(200, body, {}))


def test_rows_that_are_no_quotes_are_passed_over() -> None:
    body = orjson.dumps({"quoteResponse": {"result": [None, 7, GOOD], "error": None}})

    assert set(parse_quotes(quote_call("AAPL"), Raw(200, body, {})).quotes) == {"AAPL"}


def recorded(folder: Path, name: str) -> Raw:
    response = json.loads((folder / "yahoo" / name).read_text())["response"]
    return Raw(response["status"], orjson.dumps(response["body"]), {})


def test_recorded_daily_bars_of_a_summer_read_in_winter_keep_their_dates(
    shared_recorded: Path,
) -> None:
    # Its meta.gmtoffset is winter's, the day of asking; the bars are summer's.
    frankfurt = calendar(*((f"2023-08-0{d}T07:00", f"2023-08-0{d}T15:30") for d in (4, 7, 8)))
    window = Window(datetime(2023, 8, 4, tzinfo=UTC), datetime(2023, 8, 9, tzinfo=UTC))
    raw = recorded(shared_recorded, "chart-WSU.DE-2023-08-04-to-2023-08-09.json")

    bars = parse_chart(chart_call("WSU.DE", window, daily=True), raw, frankfurt).bars["WSU.DE"]

    assert [(bar.session, bar.close, bar.volume) for bar in bars] == [
        (date(2023, 8, 4), 34.45000076293945, 1251.0),
        (date(2023, 8, 7), 34.0, 336.0),
        (date(2023, 8, 8), 33.20000076293945, 10846.0),
    ]


def test_a_recorded_daily_bar_is_that_of_its_own_season(shared_recorded: Path) -> None:
    winter = calendar(("2022-02-22T14:30", "2022-02-22T21:00"))
    window = Window(datetime(2022, 2, 22, tzinfo=UTC), datetime(2022, 2, 23, tzinfo=UTC))
    raw = recorded(shared_recorded, "chart-AAPL.json")

    (bar,) = parse_chart(chart_call("AAPL", window, daily=True), raw, winter).bars["AAPL"]

    assert (bar.session, bar.open, bar.close) == (
        date(2022, 2, 22),
        164.97999572753906,
        164.32000732421875,
    )
    assert bar.volume == 91_162_800


def test_a_recorded_weekend_is_empty(shared_recorded: Path) -> None:
    window = Window(datetime(2025, 2, 1, tzinfo=UTC), datetime(2025, 2, 2, tzinfo=UTC))
    name = "chart-AAPL-2025-02-01-to-2025-02-02-includePrePost-false-interval-1m.json"

    page = parse_chart(chart_call("AAPL", window), recorded(shared_recorded, name), NEW_YORK)

    assert page.bars == {"AAPL": []}


@pytest.mark.parametrize("kind", ["quotes-length", "weird-quote"])
def test_recorded_prices_without_times_are_malformed(shared_recorded: Path, kind: str) -> None:
    raw = recorded(shared_recorded, f"chart-notimestamp-{kind}.fake.json")
    symbol = orjson.loads(raw.body)["chart"]["result"][0]["meta"]["symbol"]

    with pytest.raises(MalformedPayloadError, match="does not match the 0 timestamps"):
        parse_chart(chart_call(symbol, daily=True), raw, NEW_YORK)


def test_recorded_quotes_are_read(shared_recorded: Path) -> None:
    page = parse_quotes(
        quote_call("AAPL", "BABA", "TSLA"), recorded(shared_recorded, "quote-AAPL-BABA.json")
    )

    apple = page.quotes["AAPL"]
    assert apple.ts == datetime(2025, 2, 14, 21, 0, tzinfo=UTC)
    assert (apple.last, apple.bid, apple.ask, apple.bid_size) == (244.6, 244.44, 253.37, 2.0)
    assert page.quotes["BABA"].last == 124.73
    assert isinstance(page.problems["TSLA"], SymbolNotFoundError)


def test_a_recorded_dead_symbol_has_no_price(shared_recorded: Path) -> None:
    page = parse_quotes(quote_call("BRKS"), recorded(shared_recorded, "quote-BRKS.json"))

    assert not page.quotes
    assert "no price for it (type NONE)" in str(page.problems["BRKS"])
