"""The clients that Alpaca and Alpha Vantage's users have, talking to the simulator as to the vendors."""

import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from alpha_vantage.alphavantage import AlphaVantage
from alpha_vantage.timeseries import TimeSeries

from tests.simulated import CLOSE, OPEN, Simulator, moment

with warnings.catch_warnings():
    # alpaca-py 0.44 still imports what websockets deprecates.
    warnings.simplefilter("ignore")
    from alpaca.common.exceptions import APIError
    from alpaca.data.enums import Adjustment, DataFeed
    from alpaca.data.historical import StockHistoricalDataClient
    from alpaca.data.requests import StockBarsRequest, StockLatestQuoteRequest
    from alpaca.data.timeframe import TimeFrame

AT = CLOSE + 7200
MINUTE: Any = TimeFrame.Minute
DAY: Any = TimeFrame.Day


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator(at=AT, sources={"alpaca": {}, "alphavantage": {}}) as running:
        yield running


def alpaca_of(sim: Simulator, key: str = "key", secret: str = "secret") -> Any:
    made = StockHistoricalDataClient(key, secret, url_override=sim.url("alpaca"))
    made._session.trust_env = False
    # The client sleeps three seconds before each of three retries.
    made._retry = 0
    return made


def bars_request(*symbols: str, start: float = OPEN, end: float = CLOSE - 1, **words: Any):
    return StockBarsRequest(
        symbol_or_symbols=list(symbols),
        timeframe=words.pop("timeframe", MINUTE),
        start=datetime.fromtimestamp(start, UTC),
        end=datetime.fromtimestamp(end, UTC),
        **{"feed": DataFeed.SIP, "adjustment": Adjustment.RAW} | words,
    )


def newest(sim: Simulator, symbol: str, at: float = AT) -> dict[int, tuple[float, ...]]:
    return {
        minute: [version for version in versions if version[0] <= at][-1][1:]
        for minute, versions in sim.truth(symbol, OPEN, CLOSE).items()
    }


def seen(bars: Any) -> dict[int, tuple[float, ...]]:
    return {
        int(bar.timestamp.timestamp()): (bar.open, bar.high, bar.low, bar.close, bar.volume)
        for bar in bars
    }


def test_alpaca_py_reads_a_session_of_two_symbols(sim: Simulator) -> None:
    found = alpaca_of(sim).get_stock_bars(bars_request("DULL", "BUSY", "NOBODY"))

    assert {symbol: seen(bars) for symbol, bars in found.data.items()} == {
        symbol: newest(sim, symbol) for symbol in ("BUSY", "DULL")
    }
    bar = found.data["BUSY"][0]
    assert bar.low <= bar.vwap <= bar.high
    assert bar.trade_count >= 1


@pytest.mark.parametrize("sort", ["asc", "desc"])
def test_alpaca_py_follows_pages_by_their_tokens(sort: str) -> None:
    with Simulator(at=AT, sources={"alpaca": {"page_rows": 100}}) as sim:
        found = alpaca_of(sim).get_stock_bars(bars_request("BUSY", "DULL", sort=sort))

        rows = {symbol: seen(bars) for symbol, bars in found.data.items()}
        assert rows == {symbol: newest(sim, symbol) for symbol in ("BUSY", "DULL")}
        assert list(rows["BUSY"]) == sorted(rows["BUSY"], reverse=sort == "desc")
        assert len(sim.log()) == -(-sum(map(len, rows.values())) // 100)


def test_alpaca_py_reads_days_stamped_with_new_yorks_midnight(sim: Simulator) -> None:
    request = bars_request("BUSY", start=moment("2024-03-04T05:00"), timeframe=DAY)

    days = seen(alpaca_of(sim).get_stock_bars(request).data["BUSY"])

    rows = sim.lines(
        "/admin/truth/bars",
        symbols="BUSY",
        interval="1d",
        start=moment("2024-03-04T00:00"),
        end=CLOSE,
    )
    closes = [[v for v in row["versions"] if v["reveal"] <= AT][-1]["c"] for row in rows]
    assert list(days) == [moment("2024-03-04T05:00"), moment("2024-03-05T05:00")]
    assert [values[3] for values in days.values()] == closes


def test_alpaca_py_reads_latest_quotes() -> None:
    with Simulator(at=OPEN + 600.25, sources={"alpaca": {}}) as sim:
        request = StockLatestQuoteRequest(symbol_or_symbols=["BUSY", "NOBODY"], feed=DataFeed.IEX)
        found = alpaca_of(sim).get_stock_latest_quote(request)

    assert list(found) == ["BUSY"]
    quote = found["BUSY"]
    assert 0 < quote.bid_price < quote.ask_price
    assert quote.timestamp.timestamp() == pytest.approx(OPEN + 600.25, abs=0.01)


@pytest.mark.parametrize(
    ("options", "feed", "status", "words"),
    [
        ({"keys": {"other": "secret"}}, "iex", 403, "forbidden"),
        ({"keys": {"key": "wrong"}}, "iex", 403, "forbidden"),
        ({"sip_realtime": False}, "sip", 403, "does not permit querying recent SIP data"),
        ({"limits": [{"units": 1, "seconds": 60}]}, "iex", 429, "too many requests"),
    ],
)
def test_alpaca_py_reports_refusals(options, feed: str, status: int, words: str) -> None:
    with Simulator(at=OPEN + 3600, sources={"alpaca": options}) as sim:
        client = alpaca_of(sim)
        request = bars_request("BUSY", end=OPEN + 3500, feed=DataFeed(feed))
        if status == 429:
            client.get_stock_bars(request)
        with pytest.raises(APIError, match=words) as caught:
            client.get_stock_bars(request)

    assert caught.value.status_code == status
    if status == 429:
        response: Any = caught.value.response
        headers = response.headers
        assert headers["X-RateLimit-Remaining"] == "0"
        assert headers["X-RateLimit-Reset"] == str(OPEN + 3660)


def test_alpaca_shows_old_consolidated_data_to_every_plan() -> None:
    with Simulator(at=OPEN + 3600, sources={"alpaca": {"sip_realtime": False}}) as sim:
        found = alpaca_of(sim).get_stock_bars(bars_request("BUSY", end=OPEN + 2699))

        assert len(found.data["BUSY"]) == 45


@pytest.fixture
def series(monkeypatch: pytest.MonkeyPatch) -> Callable[..., TimeSeries]:
    def make(sim: Simulator, key: str = "key", **words: Any) -> TimeSeries:
        url = sim.url("alphavantage") + "/query?"
        monkeypatch.setattr(AlphaVantage, "_ALPHA_VANTAGE_API_URL", url)
        return TimeSeries(key=key, **words)

    return make


def local(minute: int) -> str:
    # New York is five hours behind UTC in that week.
    return f"{datetime.fromtimestamp(minute - 5 * 3600, UTC):%Y-%m-%d %H:%M:%S}"


def texts(rows: dict[int, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    return {local(minute): values for minute, values in rows.items()}


def numbers(data: dict[str, dict[str, str]]) -> dict[str, tuple[float, ...]]:
    return {label: tuple(map(float, row.values())) for label, row in data.items()}


def test_alpha_vantage_reads_minutes_newest_first(sim: Simulator, series) -> None:
    data, meta = series(sim).get_intraday(
        "DULL", "1min", "full", "2024-03", "false", "false", entitlement="realtime"
    )

    today = {label: row for label, row in numbers(data).items() if label >= "2024-03-05"}
    assert today == texts(newest(sim, "DULL"))
    assert list(data) == sorted(data, reverse=True)
    assert min(data) >= "2024-03-01 09:30:00"
    assert meta["6. Time Zone"] == "US/Eastern"
    assert meta["3. Last Refreshed"] == next(iter(data))


def test_alpha_vantage_reads_the_newest_hundred_by_default(sim: Simulator, series) -> None:
    data, meta = series(sim).get_intraday(
        "BUSY", "1min", extended_hours="false", adjusted="false", entitlement="delayed"
    )

    assert list(numbers(data)) == [local(CLOSE - 60 * n) for n in range(1, 101)]
    assert meta["5. Output Size"] == "Compact"


def test_alpha_vantage_shows_minutes_up_to_yesterday_without_entitlement(
    sim: Simulator, series
) -> None:
    data, _ = series(sim).get_intraday("BUSY", "1min", extended_hours="false")

    assert next(iter(data)) == "2024-03-04 15:59:00"


def test_alpha_vantage_reads_days_and_comma_separated_values(sim: Simulator, series) -> None:
    data, meta = series(sim).get_daily("BUSY")
    lines, _ = series(sim, output_format="csv").get_daily("BUSY")

    rows = list(lines)
    assert rows[0] == ["timestamp", "open", "high", "low", "close", "volume"]
    assert {row[0]: tuple(map(float, row[1:])) for row in rows[1:] if row} == numbers(data)
    assert len(data) == 100
    assert next(iter(data)) == "2024-03-04"
    assert meta["5. Time Zone"] == "US/Eastern"


def test_alpha_vantage_reads_the_days_quote(sim: Simulator, series) -> None:
    quote, _ = series(sim).get_quote_endpoint("BUSY")

    assert quote["01. symbol"] == "BUSY"
    assert quote["07. latest trading day"] == "2024-03-04"
    assert float(quote["04. low"]) <= float(quote["05. price"]) <= float(quote["03. high"])


@pytest.mark.parametrize(
    ("options", "symbol", "words"),
    [
        ({"keys": ["other"]}, "BUSY", "apikey is invalid or missing"),
        ({"plan": "free"}, "BUSY", "This is a premium endpoint"),
        ({"plan": "delayed"}, "BUSY", "This is a premium endpoint"),
        ({}, "NOBODY", "Invalid API call"),
        ({"limits": [{"units": 1, "seconds": 1}]}, "BUSY", "1 request per second"),
        ({"limits": [{"units": 1, "seconds": 60}]}, "BUSY", "1 calls per minute"),
        (
            {"limits": [{"units": 1, "seconds": 86400}]},
            "BUSY",
            "detected your API key as key and our standard API rate limit is 1 requests per day",
        ),
    ],
)
def test_alpha_vantage_reports_refusals_that_come_with_status_200(
    series, options, symbol: str, words: str
) -> None:
    with Simulator(at=OPEN + 3600, sources={"alphavantage": options}) as sim:
        client = series(sim)
        if "limits" in options:
            client.get_intraday(symbol, "1min", entitlement="realtime")
        with pytest.raises(ValueError, match=words):
            client.get_intraday(symbol, "1min", entitlement="realtime")
        assert {row["status"] for row in sim.log()} == {200}
