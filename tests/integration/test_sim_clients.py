"""The real client libraries, talking to the simulator as they talk to the vendors."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import finnhub
import pytest
import yfinance
from curl_cffi import CurlOpt
from curl_cffi.requests import Session
from yfinance.data import YfData
from yfinance.exceptions import YFPricesMissingError, YFRateLimitError

from tests.simulated import CLOSE, OPEN, Simulator, moment

pytestmark = pytest.mark.filterwarnings(
    # yfinance 1.7 calls what pandas 3.1 and the standard library deprecate; that is its business.
    "ignore",
)


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator(at=CLOSE + 7200) as running:
        yield running


@pytest.fixture
def yf(sim: Simulator, tmp_path: Path) -> Iterator[Any]:
    """yfinance whose hosts keep Yahoo's names and lead to the simulator."""
    port = urlsplit(sim.url("yahoo")).port

    class Rerouted(Session):
        def __init__(self) -> None:
            super().__init__(
                curl_options={CurlOpt.RESOLVE: [f"*:{port}:127.0.0.1"]}, trust_env=False
            )
            self.asked: list[str] = []

        def request(self, method: Any, url: str, *args: Any, **words: Any) -> Any:
            parts = urlsplit(url)
            assert (parts.hostname or "").endswith("yahoo.com"), url
            self.asked.append(parts.path or "/")
            query = f"?{parts.query}" if parts.query else ""
            return super().request(
                method, f"http://{parts.hostname}:{port}{parts.path or '/'}{query}", *args, **words
            )

    yfinance.set_tz_cache_location(str(tmp_path))
    session = Rerouted()
    data = YfData(session=session)
    data._crumb = data._cookie = None
    data._cookie_strategy = "basic"
    data.cache_get.cache_clear()
    yfinance.config.debug.hide_exceptions = False

    class Client:
        def __init__(self) -> None:
            self.session = session

        def history(self, symbol: str, **words: Any) -> dict[int, tuple[float, ...]]:
            frame = yfinance.Ticker(symbol, session=session).history(
                auto_adjust=False, actions=False, **words
            )
            rows = frame[["Open", "High", "Low", "Close", "Volume"]].itertuples()
            return {int(row[0].timestamp()): tuple(row[1:]) for row in rows}

        def quote(self, symbol: str) -> Any:
            url = "https://query1.finance.yahoo.com/v7/finance/quote"
            return data.get_raw_json(url, params={"symbols": symbol})

    yield Client()
    yfinance.config.debug.hide_exceptions = True


def newest(sim: Simulator, symbol: str, start: float, end: float) -> dict[int, tuple[float, ...]]:
    return {
        minute: [version for version in versions if version[0] <= CLOSE + 7200][-1][1:]
        for minute, versions in sim.truth(symbol, start, end).items()
    }


def test_yfinance_reads_a_session_of_minutes(sim: Simulator, yf: Any) -> None:
    got = yf.history("BUSY", period="1d", interval="1m")
    expected = newest(sim, "BUSY", OPEN, CLOSE)
    assert got.pop(OPEN) == (*expected.pop(OPEN)[:4], 0)
    assert got == expected


def test_yfinance_drops_what_did_not_trade_and_sees_it_when_asked_to_keep_it(
    sim: Simulator, yf: Any
) -> None:
    expected = newest(sim, "DULL", OPEN + 60, CLOSE)
    window = {
        "start": datetime.fromtimestamp(OPEN, UTC),
        "end": datetime.fromtimestamp(CLOSE, UTC),
        "interval": "1m",
    }
    got = yf.history("DULL", **window)
    assert {minute: row for minute, row in got.items() if minute > OPEN} == expected
    kept = yf.history("DULL", keepna=True, **window)
    assert sorted(kept) == list(range(OPEN, CLOSE, 60))


def test_yfinance_reads_extended_hours_and_the_closing_row(yf: Any) -> None:
    got = yf.history("BUSY", period="1d", interval="1m", prepost=True)
    assert got[CLOSE][4] == 0
    assert len(set(got[CLOSE][:4])) == 1


def test_yfinance_reads_days(sim: Simulator, yf: Any) -> None:
    got = yf.history("BUSY", start="2024-03-04", end="2024-03-06", interval="1d")
    rows = sim.lines(
        "/admin/truth/bars",
        symbols="BUSY",
        interval="1d",
        start=moment("2024-03-04T00:00"),
        end=CLOSE,
    )
    values = [
        tuple(v[name] for name in "ohlcv")
        for row in rows
        for v in [[v for v in row["versions"] if v["reveal"] <= CLOSE + 7200][-1]]
    ]
    assert list(got.values()) == values


def test_yfinance_makes_its_session_once_and_quotes_with_its_crumb(yf: Any) -> None:
    (row,) = yf.quote("DULL")["quoteResponse"]["result"]
    assert row["symbol"] == "DULL"
    yf.quote("BUSY")
    # A cookie that an earlier test fetched is kept on disk by yfinance, because its domain is Yahoo's.
    asked = yf.session.asked[1:] if yf.session.asked[0] == "/" else yf.session.asked
    assert asked == ["/v1/test/getcrumb", "/v7/finance/quote", "/v7/finance/quote"]


def test_yfinance_says_yahoos_words_for_what_it_does_not_know(yf: Any) -> None:
    yfinance.config.debug.hide_exceptions = True
    assert yf.history("NOBODY", period="1d", interval="1m") == {}
    yfinance.config.debug.hide_exceptions = False
    with pytest.raises(YFPricesMissingError, match="Only 8 days worth of 1m granularity data"):
        yf.history("BUSY", period="1mo", interval="1m")


def test_yfinance_sees_a_throttle_as_a_throttle(sim: Simulator, yf: Any) -> None:
    sim.admin(
        "/admin/faults",
        {"add": [{"id": "t", "source": "yahoo", "kind": "429", "from": "now", "minutes": 9}]},
    )
    try:
        with pytest.raises(YFRateLimitError):
            yf.history("BUSY", period="1d", interval="1m")
    finally:
        sim.admin("/admin/faults", {"clear": ["t"]})


def client_of(sim: Simulator) -> finnhub.Client:
    class Client(finnhub.Client):
        API_URL: str = sim.url("finnhub")

    made = Client("key")
    made._session.trust_env = False
    return made


@pytest.fixture
def client(sim: Simulator) -> Iterator[finnhub.Client]:
    made = client_of(sim)
    yield made
    made.close()


def test_finnhub_python_reads_quotes_candles_and_profiles(
    sim: Simulator, client: finnhub.Client
) -> None:
    assert client.quote("BUSY")["t"] == CLOSE + 1
    body = client.stock_candles("DULL", "1", OPEN, CLOSE)
    got = dict(zip(body["t"], zip(*(body[name] for name in "ohlcv"), strict=True), strict=True))
    assert got == newest(sim, "DULL", OPEN, CLOSE)
    assert client.stock_candles("DULL", "1", CLOSE + 60, CLOSE + 600) == {"s": "no_data"}
    assert client.company_profile2(symbol="BUSY")["ticker"] == "BUSY"
    assert client.last_bid_ask("BUSY")["a"] > client.last_bid_ask("BUSY")["b"]


def test_finnhub_python_reports_refusals_with_their_status_and_quota() -> None:
    limits = [{"units": 1, "seconds": 60}]
    with Simulator(sources={"finnhub": {"premium": False, "limits": limits}}) as sim:
        client = client_of(sim)
        with pytest.raises(finnhub.FinnhubAPIException) as denied:
            client.stock_candles("BUSY", "1", OPEN, CLOSE)
        assert denied.value.status_code == 403
        with pytest.raises(finnhub.FinnhubAPIException) as throttled:
            client.quote("BUSY")
        assert throttled.value.status_code == 429
        assert throttled.value.response.headers["X-Ratelimit-Remaining"] == "0"
        client.close()


def test_finnhub_python_keeps_its_connections_over_many_threads(
    sim: Simulator, client: finnhub.Client
) -> None:
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(client.quote("BUSY"))) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 16
    assert all(answer == answers[0] for answer in answers)
