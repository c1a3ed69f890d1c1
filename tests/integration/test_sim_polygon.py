"""Polygon as the simulator plays it, asked by the vendor's own client."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from massive import RESTClient
from massive.exceptions import BadResponse
from urllib3.exceptions import MaxRetryError

from tests.simulated import CLOSE, OPEN, Simulator, moment

AT = CLOSE + 7200


def client(sim: Simulator, key: str = "key", **words: Any) -> Any:
    return RESTClient(key, base=sim.url("polygon"), retries=0, **words)


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator(at=AT, sources={"polygon": {}}) as running:
        yield running


@pytest.fixture(autouse=True)
def two_hours_after_the_close(sim: Simulator) -> None:
    sim.move(AT)


def known(sim: Simulator, symbol: str, start: float, end: float, at: float = AT) -> Any:
    """Newest version of each minute as known at an instant."""
    return {
        minute: [version for version in versions if version[0] <= at][-1][1:]
        for minute, versions in sim.truth(symbol, start, end).items()
    }


def seen(bars: Any) -> dict[int, tuple[float, ...]]:
    return {
        bar.timestamp // 1000: (bar.open, bar.high, bar.low, bar.close, bar.volume) for bar in bars
    }


def minutes(asker: Any, symbol: str, start: float, end: float, **words: Any) -> Any:
    """Minutes from start to before end, by the client, page after page."""
    range_ms = int(start * 1000), int(end * 1000) - 1
    return list(asker.list_aggs(symbol, 1, "minute", *range_ms, adjusted=False, **words))


@pytest.mark.parametrize("symbol", ["BUSY", "DULL"])
def test_the_client_reads_traded_minutes(sim: Simulator, symbol: str) -> None:
    assert seen(minutes(client(sim), symbol, OPEN, CLOSE)) == known(sim, symbol, OPEN, CLOSE)


@pytest.mark.parametrize("sort", ["asc", "desc"])
def test_the_client_turns_page_after_page(sim: Simulator, sort: str) -> None:
    before = len(sim.log())

    bars = minutes(client(sim), "BUSY", OPEN, OPEN + 6000, limit=30, sort=sort)

    stamps = [bar.timestamp for bar in bars]
    assert stamps == sorted(stamps, reverse=sort == "desc")
    assert seen(bars) == known(sim, "BUSY", OPEN, OPEN + 6000)
    assert len(sim.log()) - before == 4
    assert all(row["status"] == 200 for row in sim.log()[before:])


def test_a_next_page_is_at_the_vendors_host(sim: Simulator) -> None:
    body = ask(sim, "/v2/aggs/ticker/BUSY/range/1/minute/2024-03-05/2024-03-05?limit=10").json

    assert body["resultsCount"] == body["queryCount"] == body["count"] == 10
    assert urlsplit(body["next_url"]).hostname == "api.polygon.io"
    assert "key" not in body["next_url"]


def ask(sim: Simulator, path: str, **headers: str) -> Any:
    return sim.ask(
        "GET", sim.url("polygon") + path, headers={"Authorization": "Bearer key", **headers}
    )


def test_days_are_stamped_with_new_yorks_midnight(sim: Simulator) -> None:
    bars = list(client(sim).list_aggs("BUSY", 1, "day", "2024-03-04", "2024-03-05", adjusted=False))

    assert [bar.timestamp // 1000 for bar in bars] == [
        moment("2024-03-04T05:00"),
        moment("2024-03-05T05:00"),
    ]
    rows = sim.lines(
        "/admin/truth/bars",
        symbols="BUSY",
        interval="1d",
        start=moment("2024-03-04T00:00"),
        end=CLOSE,
    )
    newest = [[v for v in row["versions"] if v["reveal"] <= AT][-1] for row in rows]
    assert [(bar.close, bar.volume) for bar in bars] == [(v["c"], v["v"]) for v in newest]


def test_pages_of_days_go_on_over_the_change_of_the_clocks() -> None:
    days = "2024-03-06", "2024-03-13"
    with Simulator(
        at=moment("2024-03-14T22:00"),
        market={"session": "2024-03-14"},
        sources={"polygon": {"page_rows": 2}},
    ) as later:
        bars = list(client(later).list_aggs("BUSY", 1, "day", *days, adjusted=False))

    assert [bar.timestamp // 1000 for bar in bars] == [
        moment(f"2024-03-{day:02}T0{hour}:00")
        for day, hour in ((6, 5), (7, 5), (8, 5), (11, 4), (12, 4), (13, 4))
    ]


def test_the_running_minute_is_there_and_grows(sim: Simulator) -> None:
    volumes: list[float] = []
    for second in (20, 40, 59):
        sim.move(OPEN + 600 + second)
        (bar,) = minutes(client(sim), "BUSY", OPEN + 600, OPEN + 660)
        volumes.append(bar.volume)

    assert volumes == sorted(volumes)
    assert volumes[0] < volumes[-1]


def test_adjusted_prices_know_later_splits_and_prices_as_traded_do_not() -> None:
    split = {"symbol": "BUSY", "session": "2024-03-06", "ratio": 7}
    with Simulator(at=AT, market={"splits": [split]}, sources={"polygon": {}}) as running:
        asker, span = client(running), (OPEN * 1000, (OPEN + 300) * 1000)
        before = list(asker.list_aggs("BUSY", 1, "minute", *span, adjusted=True))
        running.move(moment("2024-03-06T15:00"))
        raw = list(asker.list_aggs("BUSY", 1, "minute", *span, adjusted=False))
        adjusted = list(asker.list_aggs("BUSY", 1, "minute", *span))

    assert [bar.close for bar in raw] == [bar.close for bar in before]
    assert [bar.close * 7 for bar in adjusted] == pytest.approx(
        [bar.close for bar in raw], abs=1e-5
    )
    assert [bar.volume for bar in adjusted] == [bar.volume * 7 for bar in raw]


def test_an_unknown_ticker_has_no_bars_and_no_snapshot(sim: Simulator) -> None:
    assert minutes(client(sim), "NOBODY", OPEN, CLOSE) == []
    with pytest.raises(BadResponse, match="NOT_FOUND"):
        client(sim).get_snapshot_ticker("stocks", "NOBODY")


def test_the_client_reads_a_snapshot_of_many(sim: Simulator) -> None:
    sim.move(OPEN + 3630)

    found = client(sim).get_snapshot_all("stocks", tickers=["BUSY", "NOBODY", "DULL"])

    busy, dull = found
    assert (busy.ticker, dull.ticker) == ("BUSY", "DULL")
    assert busy.last_quote.bid_price < busy.last_quote.ask_price
    assert busy.day.low <= busy.last_trade.price <= busy.day.high
    assert busy.min.timestamp == (OPEN + 3600) * 1000
    assert busy.prev_day.volume > 0
    (line,) = sim.log()[-1:]
    symbol, ts, bid, ask_price, last = line["quotes"][0]
    assert (symbol, bid, last) == ("BUSY", busy.last_quote.bid_price, busy.last_trade.price)
    assert (ts, ask_price) == (busy.updated // 10**9, busy.last_quote.ask_price)
    assert client(sim).get_snapshot_ticker("stocks", "BUSY").last_trade.price == last
    assert len(client(sim).get_snapshot_all("stocks")) == 2


def test_keys_are_checked_and_never_logged() -> None:
    with Simulator(at=AT, sources={"polygon": {"keys": ["good"]}}) as strict:
        assert minutes(client(strict, "good"), "BUSY", OPEN, OPEN + 60)
        with pytest.raises(BadResponse, match="Unknown API Key"):
            minutes(client(strict, "bad"), "BUSY", OPEN, OPEN + 60)
        path = "/v2/aggs/ticker/BUSY/range/1/day/2024-03-04/2024-03-05"
        nobody = strict.ask("GET", strict.url("polygon") + path)
        assert (nobody.status, nobody.json["error"]) == (401, "API Key was not provided")
        by_query = strict.ask("GET", f"{strict.url('polygon')}{path}?apiKey=good")
        assert by_query.status == 200
        assert "good" not in str(strict.log())


def test_a_plan_refuses_today_what_is_too_old_and_snapshots() -> None:
    with Simulator(at=AT, sources={"polygon": {"plan": "basic"}}) as basic:
        asker = client(basic)
        assert list(asker.list_aggs("BUSY", 1, "day", "2024-03-01", "2024-03-04"))
        for days in (("2024-03-01", "2024-03-05"), ("2022-03-01", "2022-03-04")):
            with pytest.raises(BadResponse, match=r"NOT_AUTHORIZED.*data timeframe"):
                list(asker.list_aggs("BUSY", 1, "day", *days))
        with pytest.raises(BadResponse, match="not entitled to this data"):
            asker.get_snapshot_all("stocks")
    with Simulator(at=AT, sources={"polygon": {"plan": "starter", "delay_s": 900}}) as starter:
        body = ask(starter, "/v2/aggs/ticker/BUSY/range/1/day/2024-03-04/2024-03-05").json
        assert body["status"] == "DELAYED"
        (busy, _) = client(starter).get_snapshot_all("stocks", tickers=["BUSY", "DULL"])
        assert busy.last_quote is None
        assert busy.last_trade is None


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("range/1/minute/yesterday/2024-03-05", "Could not parse the time parameter: 'from'"),
        ("range/1/minute/2024-03-05/2024-02-30", "Could not parse the time parameter: 'to'"),
        ("range/1/day/2024-03-05/2024-03-04", "'to' cannot be a time that occurs before"),
        ("range/1/day/2024-03-04/2024-03-05?limit=50001", "'limit'"),
        ("range/1/day/2024-03-04/2024-03-05?cursor=%25", "'cursor' could not be read"),
        ("range/5/minute/2024-03-04/2024-03-05", "not simulated"),
        ("range/1/day", "expected /range"),
    ],
)
def test_bad_questions_are_refused(sim: Simulator, path: str, words: str) -> None:
    answer = ask(sim, f"/v2/aggs/ticker/BUSY/{path}")

    assert answer.status == 400
    assert words in answer.json["error"]
    assert ask(sim, "/v1/nothing").status == 404


def test_five_calls_a_minute_and_no_more_in_any_minute() -> None:
    limits = [{"units": 5, "seconds": 60}]
    with Simulator(at=AT, sources={"polygon": {"limits": limits}}) as free:
        asker = client(free)
        for number in range(5):
            free.move(AT + 10 * number)
            minutes(asker, "BUSY", OPEN, OPEN + 60)
        free.move(AT + 59)
        with pytest.raises(MaxRetryError, match="too many 429"):
            minutes(asker, "BUSY", OPEN, OPEN + 60)
        refused = ask(free, "/v2/aggs/ticker/BUSY/range/1/day/2024-03-04/2024-03-05")
        assert refused.status == 429
        assert refused.json["status"] == "ERROR"
        assert refused.json["error"].startswith("You've exceeded the maximum requests per minute")
        assert free.log()[-1]["violation"]["reset"] == pytest.approx(AT + 60, abs=0.1)
        assert minutes(client(free, "another"), "BUSY", OPEN, OPEN + 60)
        free.move(AT + 60.5)
        assert minutes(asker, "BUSY", OPEN, OPEN + 60)
