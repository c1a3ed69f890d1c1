"""Alpha Vantage: what each plan may ask, local stamps, numbers as text, refusals by their words."""

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
    QuotaExhaustedError,
    RateLimitedError,
    SymbolNotFoundError,
)
from core.sessions import Calendar, Session
from core.settings import Settings
from core.windows import Window
from core.words import Capability
from providers.alphavantage.adapter import AlphaVantage, Plan, build
from providers.base import NotConfigured, Page, Raw, Request

NOW = datetime(2024, 3, 7, 16, tzinfo=UTC)
OPEN = datetime(2024, 3, 6, 14, 30, tzinfo=UTC)
HOURS = Window(OPEN, OPEN + timedelta(hours=6.5))
RECORDED_HOURS = Window(
    datetime(2017, 12, 18, 14, 30, tzinfo=UTC), datetime(2017, 12, 18, 21, tzinfo=UTC)
)
NEW_YORK = Calendar(
    "XNYS",
    1,
    date(2017, 12, 18),
    date(2024, 12, 31),
    [Session(date(2017, 12, 18), (RECORDED_HOURS,)), Session(date(2024, 3, 6), (HOURS,))],
)
# It stands still, however long the tests before take.
CLOCK = ReplayClock([Segment(real_timestamp(), NOW.timestamp(), 1e-6)])
KEY = "SECRETKEY"


def provider(plan: Plan = "realtime") -> AlphaVantage:
    return AlphaVantage(CLOCK, key=KEY, base_url="http://127.0.0.1:1", plan=plan, limits=())


REALTIME = provider()


def read(
    body: Any, capability: Capability = Capability.BARS_1M, window: Window | None = HOURS
) -> Page:
    if capability is Capability.QUOTES_L1:
        window = None
    (call,) = REALTIME.plan(Request(capability, ("MSFT",), window))
    return REALTIME.parse(call, Raw(200, orjson.dumps(body), {}), NEW_YORK)


def params(plan: Plan, start: datetime, end: datetime) -> list[dict[str, str]]:
    request = Request(Capability.BARS_1M, ("MSFT",), Window(start, end))
    return [dict(call.params) for call in provider(plan).plan(request)]


def minutes(zone: str = "US/Eastern", **rows: dict[str, str]) -> dict[str, Any]:
    series = {f"2024-03-06 {name[1:3]}:{name[3:]}:00": row for name, row in rows.items()}
    return {"Meta Data": {"6. Time Zone": zone}, "Time Series (1min)": series}


def row(price: str = "10.5", volume: str | None = "300") -> dict[str, str]:
    names = ("1. open", "2. high", "3. low", "4. close")
    return dict.fromkeys(names, price) | ({} if volume is None else {"5. volume": volume})


def test_the_newest_minutes_are_asked_raw_and_compact() -> None:
    assert params("realtime", NOW - timedelta(minutes=90), NOW) == [
        {
            "symbol": "MSFT",
            "function": "TIME_SERIES_INTRADAY",
            "datatype": "json",
            "interval": "1min",
            "adjusted": "false",
            "extended_hours": "false",
            "entitlement": "realtime",
            "outputsize": "compact",
        }
    ]


def test_older_minutes_are_asked_in_full_and_before_thirty_days_by_month() -> None:
    (recent,) = params("delayed", NOW - timedelta(hours=3), NOW - timedelta(hours=2))
    (old,) = params("premium", NOW - timedelta(days=60), NOW - timedelta(days=59))

    assert (recent["outputsize"], recent.get("month"), recent["entitlement"]) == (
        "full", None, "delayed",
    )  # fmt: skip
    assert (old["outputsize"], old["month"]) == ("full", "2024-01")
    assert "entitlement" not in old


def test_calls_end_where_new_yorks_months_end() -> None:
    start, end = datetime(2023, 10, 20, 15, tzinfo=UTC), datetime(2023, 12, 4, 15, tzinfo=UTC)
    calls = REALTIME.plan(Request(Capability.BARS_1M, ("MSFT",), Window(start, end)))

    assert [(c.window and c.window.start, c.params["month"]) for c in calls] == [
        (start, "2023-10"),
        # Summer time ended on 5 November 2023.
        (datetime(2023, 11, 1, 4, tzinfo=UTC), "2023-11"),
        (datetime(2023, 12, 1, 5, tzinfo=UTC), "2023-12"),
    ]


@pytest.mark.parametrize(
    ("plan", "end", "words"),
    [
        ("premium", NOW - timedelta(hours=10), "up to 2024-03-07T05:00:00Z with plan premium"),
        ("delayed", NOW - timedelta(minutes=15), r"up to 2024-03-07T15:44:\d\dZ with plan delayed"),
    ],
)
def test_minutes_that_the_plan_does_not_show_yet_are_not_taken_for_empty(
    plan: Plan, end: datetime, words: str
) -> None:
    window = Window(end - timedelta(hours=1), end)
    with pytest.raises(BadRequestError, match=words):
        provider(plan).plan(Request(Capability.BARS_1M, ("MSFT",), window))


def test_a_free_key_has_no_minutes_and_the_days_of_a_hundred_sessions() -> None:
    free = provider("free")
    old = Window(NOW - timedelta(days=140), NOW - timedelta(days=130))

    assert list(free.specs()) == [Capability.BARS_EOD, Capability.QUOTES_L1]
    with pytest.raises(NotEntitledError, match="ALPHA_VANTAGE_PLAN"):
        free.plan(Request(Capability.BARS_1M, ("MSFT",), HOURS))
    with pytest.raises(BadRequestError, match="for the last 138 days"):
        free.plan(Request(Capability.BARS_EOD, ("MSFT",), old))
    (call,) = free.plan(Request(Capability.BARS_EOD, ("MSFT",), HOURS))
    assert (call.params["function"], call.params["outputsize"]) == ("TIME_SERIES_DAILY", "compact")
    (call,) = provider("premium").plan(Request(Capability.BARS_EOD, ("MSFT",), old))
    assert call.params["outputsize"] == "full"


def test_prices_are_as_traded() -> None:
    assert {spec.adjustment for spec in REALTIME.specs().values()} == {"raw"}


def test_rows_are_read_in_their_zone_and_sorted() -> None:
    found = read(minutes(r1559=row("12"), r0930=row("10.5"), r0929=row("9"), r1600=row("13")))

    first, last = found.bars["MSFT"]
    assert (first.ts, first.open, first.volume) == (OPEN, 10.5, 300.0)
    assert (last.ts, last.close) == (OPEN + timedelta(minutes=389), 12.0)
    assert not found.rejects


def test_the_zone_beside_the_rows_decides_not_ours() -> None:
    (bar,) = read(minutes("UTC", r1430=row())).bars["MSFT"]

    assert bar.ts == OPEN


def test_a_volume_that_is_not_said_is_unknown_and_not_zero() -> None:
    found = read(minutes(r0930=row(volume=None), r0931=row(volume="0")))

    assert [bar.volume for bar in found.bars["MSFT"]] == [None, 0.0]


def test_a_row_that_is_no_number_is_reported_with_what_it_says() -> None:
    found = read(minutes(r0930=row("None"), r0931=row("nan"), r0932=row()))

    assert [bar.ts.minute for bar in found.bars["MSFT"]] == [32]
    assert [(symbol, ts.minute) for symbol, ts, _ in found.rejects] == [("MSFT", 30), ("MSFT", 31)]
    assert "'None'" in found.rejects[0][2]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"Meta Data": {"6. Time Zone": "US/Eastern"}},
        {"Time Series (1min)": {}},
        {"Meta Data": {}, "Time Series (1min)": {}},
        {"Meta Data": {"6. Time Zone": "Mars/Olympus"}, "Time Series (1min)": {}},
        {"Meta Data": {"6. Time Zone": "US/Eastern"}, "Time Series (1min)": []},
        minutes(r0930={"1. open": "1"}) | {"Time Series (1min)": {"2024-03-06 09:30:00": "1"}},
        minutes() | {"Time Series (1min)": {"2024-03-06 noon": row()}},
    ],
)
def test_another_shape_is_malformed(body) -> None:
    with pytest.raises(MalformedPayloadError, match="alphavantage intraday MSFT"):
        read(body)


def test_a_day_is_labelled_by_its_session() -> None:
    body = {
        "Meta Data": {"5. Time Zone": "US/Eastern"},
        "Time Series (Daily)": {"2024-03-06": row("11"), "2001-01-02": row("1")},
    }

    (bar,) = read(body, Capability.BARS_EOD).bars["MSFT"]

    assert (bar.ts, bar.session, bar.close) == (OPEN, date(2024, 3, 6), 11.0)


def quote_body(**changes: str) -> dict[str, Any]:
    said = {"05. price": "112.13", "07. latest trading day": "2024-03-06", **changes}
    return {"Global Quote": said}


def test_a_quote_says_its_day_and_no_time() -> None:
    quote = read(quote_body(), Capability.QUOTES_L1).quotes["MSFT"]

    assert (quote.ts, quote.last, quote.bid) == (datetime(2024, 3, 6, tzinfo=UTC), 112.13, None)


def test_an_empty_quote_means_that_the_symbol_is_unknown() -> None:
    page = read({"Global Quote": {}}, Capability.QUOTES_L1)

    assert isinstance(page.problems["MSFT"], SymbolNotFoundError)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (quote_body(**{"05. price": "0.0000"}), BadDataError),
        (quote_body(**{"05. price": "-"}), BadDataError),
        (quote_body(**{"07. latest trading day": "today"}), MalformedPayloadError),
        ({"Global Quote": {"01. symbol": "MSFT"}}, MalformedPayloadError),
    ],
)
def test_a_quote_that_can_not_be_true_is_the_providers_failure(
    body, error: type[ProviderError]
) -> None:
    with pytest.raises(ProviderError) as caught:
        read(body, Capability.QUOTES_L1)

    assert type(caught.value) is error


def refused(name: str, text: str, headers: dict[str, str] | None = None) -> ProviderError:
    (call,) = REALTIME.plan(Request(Capability.BARS_1M, ("MSFT",), HOURS))
    raw = Raw(200, orjson.dumps({name: text}), headers or {})
    with pytest.raises(ProviderError) as caught:
        REALTIME.parse(call, raw, NEW_YORK)
    assert KEY not in str(caught.value)
    return caught.value


NO_KEY = "the parameter apikey is invalid or missing. Please claim your free API key on (...)."
FULL = (
    "Thank you for using Alpha Vantage! The outputsize=full parameter value is a premium feature for "
    "the TIME_SERIES_DAILY endpoint. You may subscribe to any of the premium plans to unlock it"
)


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("Error Message", NO_KEY, AuthRejectedError),
        ("Information", NO_KEY, AuthRejectedError),
        ("Information", FULL, NotEntitledError),
        ("Information", "Our standard API rate limit is 25 requests per day.", QuotaExhaustedError),
        ("Note", "API call frequency is 5 calls per minute and 500 per day", RateLimitedError),
        ("Error Message", "This API function (X) does not exist.", MalformedPayloadError),
    ],
)
def test_refusals_mean_what_their_words_say(name, text, error: type[ProviderError]) -> None:
    assert type(refused(name, text)) is error


@pytest.mark.parametrize(
    ("kind", "error", "wait_s"),
    [
        ("note_2018_2023", RateLimitedError, None),
        ("burst_1_per_second_2025", RateLimitedError, 1.1),
        ("daily_cap", QuotaExhaustedError, None),
        ("premium_only", NotEntitledError, None),
        ("bad_call", SymbolNotFoundError, None),
    ],
)
def test_recorded_refusals_have_their_own_errors(
    shared_recorded: Path, kind: str, error: type[ProviderError], wait_s: float | None
) -> None:
    path = shared_recorded / "alpha_vantage" / "throttle-bodies.json"
    reply = orjson.loads(path.read_bytes())[kind]
    ((name, text),) = reply["body"].items()

    found = refused(name, text.replace("XXXX", KEY))

    assert type(found) is error
    assert getattr(found, "retry_after_s", None) == wait_s


def test_recorded_minutes_are_read(shared_recorded: Path) -> None:
    body = orjson.loads((shared_recorded / "alpha_vantage" / "mock_time_series.json").read_bytes())

    found = read(body, window=RECORDED_HOURS)

    bars = found.bars["MSFT"]
    assert (len(bars), len(found.rejects)) == (100, 0)
    assert (bars[0].ts, bars[-1].ts) == (
        datetime(2017, 12, 18, 18, 17, tzinfo=UTC),
        datetime(2017, 12, 18, 19, 56, tzinfo=UTC),
    )
    last = bars[-1]
    assert (last.open, last.high, last.low, last.close, last.volume) == (
        86.49, 86.5, 86.475, 86.5, 10494.0,
    )  # fmt: skip


def test_a_recorded_quote_is_read(shared_recorded: Path) -> None:
    body = orjson.loads((shared_recorded / "alpha_vantage" / "global_quote.json").read_bytes())

    quote = read(body, Capability.QUOTES_L1).quotes["MSFT"]

    assert (quote.ts, quote.last) == (datetime(2018, 10, 5, tzinfo=UTC), 112.13)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"alpha_vantage_api_key": ""}, "ALPHA_VANTAGE_API_KEY is not set"),
        ({"alpha_vantage_base_url": "alphavantage.co"}, "expected a URL such as https://www"),
    ],
)
def test_what_is_missing_is_named(changes: dict[str, str], words: str) -> None:
    given = {"alpha_vantage_api_key": "k", **changes}
    with pytest.raises(NotConfigured, match=words):
        build(Settings(_env_file=None, **given), CLOCK)  # pyright: ignore[reportCallIssue]
