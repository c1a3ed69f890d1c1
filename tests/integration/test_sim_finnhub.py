"""Finnhub as the simulator plays it."""

from collections.abc import Iterator

import pytest

from tests.simulated import CLOSE, OPEN, Simulator, moment


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator() as running:
        yield running


@pytest.fixture(autouse=True)
def at_an_hour_after_the_open(sim: Simulator) -> None:
    sim.move(OPEN + 3600)


@pytest.mark.parametrize("symbol", ["BUSY", "DULL"])
def test_candles_are_the_traded_minutes_with_both_ends_of_the_window(
    sim: Simulator, symbol: str
) -> None:
    sim.move(OPEN + 3630)
    body = sim.candles(symbol, OPEN + 60, OPEN + 1800)
    expected = {
        minute: [version for version in versions if version[0] <= OPEN + 3630][-1][1:]
        for minute, versions in sim.truth(symbol, OPEN + 60, OPEN + 1801).items()
    }
    assert body["s"] == "ok"
    assert body["t"] == sorted(expected)
    assert list(zip(*(body[name] for name in "ohlcv"), strict=True)) == [
        expected[t] for t in body["t"]
    ]


def test_the_running_minute_is_there_and_grows(sim: Simulator) -> None:
    seen: list[float] = []
    for second in (20, 40, 59):
        sim.move(OPEN + 600 + second)
        body = sim.candles("BUSY", OPEN + 600, OPEN + 660)
        assert body["t"] == [OPEN + 600]
        seen.append(body["v"][0])
    assert seen == sorted(seen)
    assert seen[0] < seen[-1]
    (entry,) = sim.log()[-1]["inline"]
    assert entry[-1] == "partial"


def test_no_trades_are_no_data(sim: Simulator) -> None:
    assert sim.candles("BUSY", moment("2024-03-02T15:00"), moment("2024-03-02T16:00")) == {
        "s": "no_data"
    }
    assert sim.candles("NOBODY", OPEN, OPEN + 600) == {"s": "no_data"}
    assert sim.candles("BUSY", OPEN + 7200, CLOSE) == {"s": "no_data"}


def test_daily_candles_are_stamped_midnight_of_the_session(sim: Simulator) -> None:
    sim.move(CLOSE + 60)
    body = sim.candles("BUSY", moment("2024-03-04T00:00"), moment("2024-03-05T00:00"), "D")
    assert body["t"] == [moment("2024-03-04T00:00"), moment("2024-03-05T00:00")]
    rows = sim.lines(
        "/admin/truth/bars",
        symbols="BUSY",
        interval="1d",
        start=moment("2024-03-04T00:00"),
        end=CLOSE,
    )
    newest = [[v for v in row["versions"] if v["reveal"] <= CLOSE + 60][-1] for row in rows]
    assert body["c"] == [version["c"] for version in newest]
    assert body["v"] == [version["v"] for version in newest]
    assert sim.log()[-1]["served"][0][1] == [row["ts"] for row in rows]


def test_daily_candles_are_adjusted_for_splits_and_minutes_are_not() -> None:
    split = {"symbol": "BUSY", "session": "2024-03-06", "ratio": 7}
    with Simulator(at=CLOSE + 3600, market={"splits": [split]}) as sim:
        minutes, day = (
            sim.candles("BUSY", OPEN, CLOSE),
            sim.candles("BUSY", OPEN - 86400, CLOSE, "D"),
        )
        sim.move(moment("2024-03-06T15:00"))
        assert sim.candles("BUSY", OPEN, OPEN + 60)["c"] == minutes["c"][:2]
        adjusted = sim.candles("BUSY", OPEN - 86400, CLOSE, "D")
        assert adjusted["c"] == pytest.approx([price / 7 for price in day["c"]], abs=1e-6)


def test_a_quote_has_todays_figures_and_the_second_of_its_trade(sim: Simulator) -> None:
    quote = sim.finnhub("/quote", symbol="BUSY").json
    assert set(quote) == {"c", "d", "dp", "h", "l", "o", "pc", "t"}
    assert OPEN + 3500 < quote["t"] <= OPEN + 3600
    assert quote["l"] <= quote["c"] <= quote["h"]
    assert quote["d"] == pytest.approx(quote["c"] - quote["pc"], abs=1e-4)
    assert sim.log()[-1]["quotes"] == [["BUSY", quote["t"], None, None, quote["c"]]]


def test_an_unknown_symbol_has_a_quote_of_zeros(sim: Simulator) -> None:
    answer = sim.finnhub("/quote", symbol="NOBODY")
    assert answer.status == 200
    assert answer.json == {"c": 0, "d": None, "dp": None, "h": 0, "l": 0, "o": 0, "pc": 0, "t": 0}


def test_the_key_comes_by_query_or_header(sim: Simulator) -> None:
    refused = sim.finnhub("/quote", token=None, symbol="BUSY")
    assert (refused.status, refused.json) == (401, {"error": "Please use an API key."})
    url = sim.url("finnhub") + "/quote?symbol=BUSY"
    assert sim.ask("GET", url, headers={"X-Finnhub-Token": "key"}).status == 200
    with Simulator(sources={"finnhub": {"keys": ["good"]}}) as strict:
        assert strict.finnhub("/quote", token="bad", symbol="BUSY").status == 401
        assert strict.finnhub("/quote", token="good", symbol="BUSY").status == 200
        assert "good" not in str(strict.log())
        assert "bad" not in str(strict.log())


def test_candles_are_premium() -> None:
    with Simulator(sources={"finnhub": {"premium": False}}) as sim:
        words = {"symbol": "BUSY", "resolution": "1", "from": OPEN, "to": OPEN + 60}
        answer = sim.finnhub("/stock/candle", **words)
        assert answer.status == 403
        assert answer.json == {"error": "You don't have access to this resource."}
        assert answer.headers["Content-Type"].startswith("application/json")
        assert sim.finnhub("/quote", symbol="BUSY").status == 200


def test_double_slashes_are_one(sim: Simulator) -> None:
    assert sim.finnhub("//quote", symbol="BUSY").json == sim.finnhub("/quote", symbol="BUSY").json
    assert sim.finnhub("/nothing").status == 404


def test_bad_candle_questions_are_refused(sim: Simulator) -> None:
    assert sim.finnhub("/stock/candle", symbol="BUSY", resolution="1").status == 422
    words = {"symbol": "BUSY", "resolution": "5", "from": OPEN, "to": OPEN + 60}
    assert sim.finnhub("/stock/candle", **words).status == 422


def test_over_the_limit_is_a_429_with_quota_headers_and_a_violation() -> None:
    limits = [{"units": 2, "seconds": 60}, {"units": 1000, "seconds": 3600}]
    with Simulator(sources={"finnhub": {"limits": limits}}) as sim:
        for left in ("1", "0"):
            answer = sim.finnhub("/quote", symbol="BUSY")
            assert answer.status == 200
            assert (
                answer.headers["X-Ratelimit-Limit"],
                answer.headers["X-Ratelimit-Remaining"],
            ) == ("2", left)
        refused = sim.finnhub("/quote", symbol="BUSY")
        assert refused.status == 429
        assert refused.json["error"].startswith("API limit reached")
        assert refused.headers["X-Ratelimit-Reset"] == str(OPEN + 3660)
        assert sim.finnhub("/quote", token="other", symbol="BUSY").status == 200
        violation = sim.log()[2]["violation"]
        assert (violation["units"], violation["seconds"], violation["scope"]) == (2, 60, "key")
        assert [row["violation"] is None for row in sim.log()] == [True, True, False, True]
        assert sim.admin("/admin/stats")["sources"]["finnhub"]["violations"] == 1
        sim.move(OPEN + 3661)
        assert sim.finnhub("/quote", symbol="BUSY").status == 200
