"""Polygon's replies: pages and what they leave open, stamps of a day, plans, and recorded payloads."""

import json
from datetime import UTC, date, datetime, timedelta
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
from core.windows import Window
from core.words import Capability
from providers.base import NotConfigured, Page, Raw, Request, limits_from
from providers.polygon.adapter import Polygon, build
from tests.servers import REPOSITORY

NOW = datetime(2024, 3, 7, 16, tzinfo=UTC)
OPEN = datetime(2024, 3, 6, 14, 30, tzinfo=UTC)
HOURS = Window(OPEN, OPEN + timedelta(hours=6.5))
NEW_YORK = Calendar(
    "XNYS", 1, date(2024, 1, 1), date(2024, 12, 31), [Session(date(2024, 3, 6), (HOURS,))]
)
# It stands still, however long the tests before take.
CLOCK = ReplayClock([Segment(real_timestamp(), NOW.timestamp(), 1e-6)])
KEY = "polygon-key"
FIRST_MS = 1_709_735_400_000
"""14:30 UTC on 6 March 2024."""


def polygon(plan: str = "advanced") -> Polygon:
    limits = limits_from("5/60s", "key")
    return Polygon(CLOCK, key=KEY, base_url="http://127.0.0.1:1", plan=plan, limits=limits)


PROVIDER = polygon()


def body(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    plain = {"status": "OK", "adjusted": False, "resultsCount": len(rows), "results": list(rows)}
    return plain | more


def row(ms: int, **more: Any) -> dict[str, Any]:
    return {"t": ms, "o": 1.0, "h": 2.0, "l": 0.5, "c": 1.5, "v": 900, "vw": 1.25, "n": 7} | more


def read(
    document: Any, capability: Capability = Capability.BARS_1M, symbols: tuple[str, ...] = ("AAPL",)
) -> Page:
    window = None if capability is Capability.QUOTES_L1 else HOURS
    (call,) = PROVIDER.plan(Request(capability, symbols, window))
    return PROVIDER.parse(call, Raw(200, orjson.dumps(document), {}), NEW_YORK)


def test_prices_are_asked_as_traded_and_stated_so() -> None:
    (call,) = PROVIDER.plan(Request(Capability.BARS_1M, ("AAPL",), HOURS))

    assert call.params == {"adjusted": "false", "sort": "asc", "limit": "50000"}
    assert {spec.adjustment for spec in PROVIDER.specs().values()} == {"raw"}


def test_a_month_of_minutes_around_the_clock_fits_one_page() -> None:
    span = PROVIDER.specs()[Capability.BARS_1M].span

    assert span == timedelta(days=30)
    assert span <= timedelta(minutes=50_000)


def test_a_bar_keeps_average_price_trades_and_fractions_of_its_volume() -> None:
    (bar,) = read(body(row(FIRST_MS, v=9099.618093))).bars["AAPL"]

    assert (bar.ts, bar.open, bar.high, bar.low, bar.close) == (OPEN, 1.0, 2.0, 0.5, 1.5)
    assert (bar.volume, bar.vwap, bar.trade_count) == (9099.618093, 1.25, 7)


def test_a_volume_that_was_not_said_is_not_zero() -> None:
    without = {name: value for name, value in row(FIRST_MS).items() if name not in {"v", "vw", "n"}}

    (bar,) = read(body(without)).bars["AAPL"]

    assert (bar.volume, bar.vwap, bar.trade_count) == (None, None, None)


def test_rows_before_the_open_and_after_the_close_are_not_ours() -> None:
    rows = [row(FIRST_MS + minutes * 60_000) for minutes in (-1, 0, 389, 390)]

    bars = read(body(*rows)).bars["AAPL"]

    assert [bar.ts for bar in bars] == [OPEN, HOURS.end - timedelta(minutes=1)]


def test_a_page_that_promises_another_leaves_the_rest_of_the_window_open() -> None:
    page = read(body(row(FIRST_MS), row(FIRST_MS + 60_000), next_url="https://api.polygon.io/x"))

    assert [bar.ts for bar in page.bars["AAPL"]] == [OPEN, OPEN + timedelta(minutes=1)]
    assert page.rest == {"AAPL": Window(OPEN + timedelta(minutes=2), HOURS.end)}


def test_a_last_page_whose_rows_lie_beyond_the_window_leaves_nothing_open() -> None:
    page = read(body(row(FIRST_MS), row(FIRST_MS + 400 * 60_000), next_url="https://x/y"))

    assert page.rest == {}
    assert len(page.bars["AAPL"]) == 1


@pytest.mark.parametrize("rows", [[], [row(FIRST_MS - 60_000)]], ids=["empty", "before"])
def test_a_page_that_gets_no_further_is_refused(rows) -> None:
    with pytest.raises(BadDataError, match="promises another"):
        read(body(*rows, next_url="https://x/y"))


@pytest.mark.parametrize("midnight", [1_709_701_200_000, 1_709_683_200_000], ids=["EST", "UTC"])
def test_a_daily_bar_is_the_session_of_its_midnight(midnight: int) -> None:
    (bar,) = read(body(row(midnight)), Capability.BARS_EOD).bars["AAPL"]

    assert (bar.ts, bar.session) == (OPEN, date(2024, 3, 6))


def test_an_unknown_ticker_has_no_bars() -> None:
    document = {"ticker": "NOPE", "status": "OK", "adjusted": False, "resultsCount": 0}

    assert list(read(document).bars["AAPL"]) == []


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({"status": "OK", "adjusted": False}, MalformedPayloadError),
        ({"status": "OK", "adjusted": False, "results": {}}, MalformedPayloadError),
        (body(row(FIRST_MS, t="now")), MalformedPayloadError),
        (body(row(FIRST_MS), adjusted=True), BadDataError),
        (body({}), MalformedPayloadError),
        ({"status": "ERROR", "error": "You've exceeded the maximum requests"}, RateLimitedError),
        ({"status": "ERROR", "error": "Unknown API Key"}, AuthRejectedError),
        ({"status": "ERROR", "error": "else"}, MalformedPayloadError),
        ({"status": "NOT_AUTHORIZED", "message": "not entitled"}, NotEntitledError),
        ({"status": "NOT_AUTHORIZED", "message": "this data timeframe"}, BadRequestError),
    ],
)
def test_what_is_no_page_of_bars_has_its_reason(document, error: type[ProviderError]) -> None:
    with pytest.raises(ProviderError) as caught:
        read(document)

    assert type(caught.value) is error


def snapshot(*tickers: dict[str, Any]) -> dict[str, Any]:
    return {"status": "OK", "count": len(tickers), "tickers": list(tickers)}


def test_a_quote_is_of_the_newer_of_book_and_trade() -> None:
    document = snapshot(
        {
            "ticker": "AAPL",
            "lastQuote": {"p": 9.0, "s": 3, "P": 9.5, "S": 5, "t": 1_709_826_900_000_001_000},
            "lastTrade": {"p": 9.25, "s": 200, "t": 1_709_826_899_000_000_000},
        }
    )

    quote = read(document, Capability.QUOTES_L1).quotes["AAPL"]

    assert quote.ts == datetime(2024, 3, 7, 15, 55, 0, 1, tzinfo=UTC)
    assert (quote.bid, quote.ask, quote.bid_size, quote.ask_size) == (9.0, 9.5, 3.0, 5.0)
    assert (quote.last, quote.last_size) == (9.25, 200.0)


def test_zeros_of_a_cleared_snapshot_are_no_prices() -> None:
    cleared = {"ticker": "AAPL", "lastQuote": {"p": 0, "P": 0, "t": 0}, "lastTrade": {}}

    page = read(snapshot(cleared), Capability.QUOTES_L1, ("AAPL", "NOPE"))

    assert {symbol: type(error) for symbol, error in page.problems.items()} == {
        "AAPL": BadDataError,
        "NOPE": SymbolNotFoundError,
    }


def test_the_free_plan_asks_for_nothing_of_the_current_day_in_new_york() -> None:
    basic = polygon("basic")
    # Midnight in New York was at 05:00 UTC.
    until = datetime(2024, 3, 7, 5, tzinfo=UTC)

    assert basic.plan(Request(Capability.BARS_1M, ("AAPL",), Window(HOURS.start, until)))
    later = Window(HOURS.start, until + timedelta(minutes=1))
    with pytest.raises(BadRequestError, match=r"basic shows bars up to 2024-03-07T05:00:00Z"):
        basic.plan(Request(Capability.BARS_1M, ("AAPL",), later))


@pytest.mark.parametrize("plan", ["starter", "developer"])
def test_a_delayed_plan_asks_for_nothing_of_the_last_quarter_of_an_hour(plan: str) -> None:
    # Its last row is of a minute that still ran when the feed saw it.
    shown = Window(OPEN, NOW - timedelta(minutes=16))
    beyond = Window(OPEN, NOW - timedelta(minutes=14))

    assert polygon(plan).plan(Request(Capability.BARS_1M, ("AAPL",), shown))
    with pytest.raises(BadRequestError, match=f"{plan} shows bars up to 2024-03-07T15:4"):
        polygon(plan).plan(Request(Capability.BARS_1M, ("AAPL",), beyond))


@pytest.mark.parametrize(
    ("plan", "years", "delay_min"),
    [("basic", 2, 0), ("starter", 5, 15), ("developer", 10, 15), ("advanced", None, 0)],
)
def test_a_plan_states_its_history_its_delay_and_its_quotes(plan, years, delay_min: int) -> None:
    specs = polygon(plan).specs()

    minutes = specs[Capability.BARS_1M]
    assert minutes.lookback == (None if years is None else timedelta(days=365 * years))
    assert minutes.settle == timedelta(minutes=15 + delay_min)
    assert (Capability.QUOTES_L1 in specs) is (plan == "advanced")


def test_quotes_beyond_the_plan_are_an_entitlement() -> None:
    with pytest.raises(NotEntitledError, match="POLYGON_PLAN is starter"):
        polygon("starter").plan(Request(Capability.QUOTES_L1, ("AAPL",), None))


def settings(**chosen: Any) -> Settings:
    return Settings(_env_file=None, **chosen)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("name", ["polygon_api_key", "massive_api_key"])
def test_the_key_goes_by_both_names(name: str) -> None:
    made = build(settings(**{name: KEY}), CLOCK)

    assert made._key == KEY
    assert KEY not in repr(settings(**{name: KEY}))


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({}, "POLYGON_API_KEY is not set, nor MASSIVE_API_KEY"),
        ({"polygon_api_key": KEY, "polygon_base_url": "api.polygon.io"}, "POLYGON_BASE_URL is"),
    ],
)
def test_without_key_or_address_it_says_which_setting_mends_it(chosen, words: str) -> None:
    with pytest.raises(NotConfigured, match=words):
        build(settings(**chosen), CLOCK)


RECORDED = REPOSITORY.parent / "shared" / "recorded" / "polygon"


def recorded(path: str) -> Any:
    file = RECORDED / path
    if not file.is_file():
        pytest.skip(f"{file} is not on this machine")
    return json.loads(file.read_text())


def test_recorded_daily_bars_are_read_by_the_day_in_new_york() -> None:
    document = recorded("v2/aggs/ticker/AAPL/range/1/day/2005-04-01/2005-04-04.json")
    sessions = [
        Session(
            day,
            (
                Window(
                    datetime(2005, 4, day.day, hour, 30, tzinfo=UTC),
                    datetime(2005, 4, day.day, hour + 6, 30, tzinfo=UTC) + timedelta(minutes=30),
                ),
            ),
        )
        # New York's clocks went forward between the two.
        for day, hour in ((date(2005, 4, 1), 14), (date(2005, 4, 4), 13))
    ]
    april = Calendar("XNYS", 1, date(2005, 4, 1), date(2005, 4, 4), sessions)
    window = Window(datetime(2005, 4, 1, tzinfo=UTC), datetime(2005, 4, 5, tzinfo=UTC))
    (call,) = PROVIDER.plan(Request(Capability.BARS_EOD, ("AAPL",), window))

    with pytest.raises(BadDataError, match="adjusted is True"):
        PROVIDER.parse(call, Raw(200, orjson.dumps(document), {}), april)
    document["adjusted"] = False
    bars = PROVIDER.parse(call, Raw(200, orjson.dumps(document), {}), april).bars["AAPL"]

    assert [bar.session for bar in bars] == [date(2005, 4, 1), date(2005, 4, 4)]
    assert [(bar.open, bar.close) for bar in bars] == [(1.5032, 1.4604), (1.4639, 1.4675)]
    assert [(bar.volume, bar.trade_count) for bar in bars] == [
        (642646396.0, 82132),
        (578172308.0, 65543),
    ]


def test_a_recorded_snapshot_is_read_to_the_microsecond() -> None:
    document = recorded("v2/snapshot/locale/us/markets/stocks/tickers/index.json")

    quote = read(document, Capability.QUOTES_L1, ("BCAT",)).quotes["BCAT"]

    assert (quote.bid, quote.ask, quote.last) == (20.5, 20.6, 20.506)
    assert (quote.bid_size, quote.ask_size, quote.last_size) == (13.0, 22.0, 2416.0)
    # 1605192959994246100 ns: the quote is newer than the trade.
    assert quote.ts == datetime(2020, 11, 12, 14, 55, 59, 994246, tzinfo=UTC)
