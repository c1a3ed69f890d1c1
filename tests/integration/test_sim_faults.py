"""What a client sees of each fault, and what the log says of it."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.simulated import CLOSE, OPEN, Answer, Simulator

NOW = {"from": "now", "minutes": 60}


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


def quote(sim: Simulator) -> Answer:
    return sim.finnhub("/quote", symbol="BUSY")


def refused(sim: Simulator) -> bool:
    try:
        with requests.Session() as session:
            session.trust_env = False
            session.get(sim.url("finnhub") + "/quote", timeout=2)
    except requests.ConnectionError as error:
        return "refused" in str(error)
    return False


def candle_status(sim: Simulator, resolution: str) -> int:
    query = {"symbol": "BUSY", "resolution": resolution, "from": OPEN, "to": CLOSE, "token": "k"}
    return sim.ask("GET", sim.url("finnhub") + "/stock/candle", params=query).status


def add(sim: Simulator, **fault: Any) -> str:
    rows = sim.admin("/admin/faults", {"add": [{"source": "finnhub", **NOW, **fault}]})
    return rows[-1]["id"]


def test_refused_means_a_closed_port_and_reset_connections_and_the_same_port_after() -> None:
    with Simulator() as sim:
        port = sim.url("finnhub")
        assert quote(sim).status == 200
        add(sim, kind="refuse", id="gone")
        with pytest.raises(requests.ConnectionError):
            quote(sim)
        until(lambda: refused(sim))
        assert sim.yahoo("/").status == 404
        sim.admin("/admin/faults", {"clear": ["gone"]})
        until(lambda: not refused(sim))
        assert quote(sim).status == 200
        assert sim.url("finnhub") == port


def test_a_refusal_begins_and_ends_with_market_time() -> None:
    fault = {"source": "finnhub", "kind": "refuse", "from": "15:31", "minutes": 1}
    # A market minute is a tenth of a second: 15:30:00 now.
    with Simulator(faults=[fault], speed=600) as sim:
        until(lambda: refused(sim))
        assert sim.admin("/admin/health")["market"] >= OPEN + 3660
        until(lambda: not refused(sim))
        assert sim.admin("/admin/health")["market"] >= OPEN + 3720


def test_reset_cuts_the_connection_and_is_logged_without_a_status() -> None:
    with Simulator() as sim:
        add(sim, kind="reset")
        with pytest.raises(requests.ConnectionError):
            quote(sim)
        row = sim.log()[-1]
        assert (row["status"], row["fault"], row["violation"]) == (0, "reset", None)


@pytest.mark.parametrize("status", [500, 502, 503])
def test_5xx_is_a_page_and_no_data(status: int) -> None:
    with Simulator() as sim:
        add(sim, kind="5xx", status=status)
        answer = quote(sim)
        assert answer.status == status
        assert answer.headers["Content-Type"].startswith("text/html")
        row = sim.log()[-1]
        assert (row["status"], row["fault"]) == (status, "5xx")
        assert "quotes" not in row


def test_a_429_by_fault_is_no_violation_and_may_say_when_to_come_back() -> None:
    with Simulator() as sim:
        add(sim, kind="429", retry_after_s=7.5)
        answer = quote(sim)
        assert (answer.status, answer.headers["Retry-After"]) == (429, "8")
        assert sim.log()[-1]["violation"] is None
        sim.admin(
            "/admin/faults", {"clear": "all", "add": [{"source": "yahoo", "kind": "429", **NOW}]}
        )
        answer = sim.chart("BUSY", range="1d")
        assert (answer.status, answer.body) == (429, b"Edge: Too Many Requests")
        assert "Retry-After" not in answer.headers


def test_slow_answers_late_with_what_is_true_then() -> None:
    with Simulator(speed=1.0) as sim:
        add(sim, kind="slow", seconds=0.3)
        began = time.monotonic()
        assert quote(sim).status == 200
        # The event loop's timers are a millisecond coarse.
        assert time.monotonic() - began >= 0.295
        row = sim.log()[-1]
        assert row["fault"] == "slow"
        assert row["answered"] - row["arrived"] >= 0.295


def test_a_hanging_request_is_never_answered_and_ends_when_its_client_leaves() -> None:
    with Simulator() as sim:
        add(sim, kind="hang")
        with pytest.raises(requests.Timeout):
            sim.http.get(sim.url("finnhub") + "/quote?symbol=BUSY&token=k", timeout=0.3)
        until(lambda: len(sim.log()) == 1)
        row = sim.log()[0]
        assert (row["fault"], row["status"]) == ("hang", 0)
        assert "quotes" not in row


def test_a_hang_ends_with_its_fault() -> None:
    with Simulator(speed=600) as sim:
        add(sim, kind="hang", minutes=3)
        assert quote(sim).status == 200


@pytest.mark.parametrize("variant", ["truncated", "html", "empty", "wrong_type"])
def test_garbage_has_a_good_status_and_nobody_was_served(variant: str) -> None:
    with Simulator() as sim:
        good = quote(sim).body
        add(sim, kind="garbage", variant=variant)
        answer = quote(sim)
        assert answer.status == 200
        assert answer.body != good
        assert "quotes" not in sim.log()[-1]


def test_stale_shows_the_market_of_its_beginning_or_of_a_while_ago() -> None:
    with Simulator() as sim:
        add(sim, kind="stale", id="frozen")
        before = quote(sim).json
        sim.move(OPEN + 5400)
        assert quote(sim).json == before
        assert max(sim.candles("BUSY", OPEN, CLOSE)["t"]) <= OPEN + 3600
        sim.admin("/admin/faults", {"clear": ["frozen"]})
        add(sim, kind="stale", age_s=600)
        assert max(sim.candles("BUSY", OPEN, CLOSE)["t"]) in {OPEN + 4740, OPEN + 4800}
        assert sim.log()[-1]["fault"] == "stale"


def test_dropped_bars_are_absent_the_same_ones_each_time_and_not_logged_as_served() -> None:
    with Simulator() as sim:
        whole = sim.candles("BUSY", OPEN, OPEN + 3599)["t"]
        add(sim, kind="drop_bars", fraction=0.3)
        less = sim.candles("BUSY", OPEN, OPEN + 3599)["t"]
        assert set(less) < set(whole)
        assert 0.5 < len(less) / len(whole) < 0.9
        assert sim.candles("BUSY", OPEN + 600, OPEN + 1199)["t"] == [
            t for t in less if OPEN + 600 <= t < OPEN + 1200
        ]
        assert sim.log()[1]["served"][0][1] == less


@pytest.mark.parametrize("mode", ["scale", "zero", "disorder"])
def test_wrong_prices_are_logged_with_what_was_sent(mode: str) -> None:
    with Simulator() as sim:
        right = sim.candles("BUSY", OPEN, OPEN + 299)
        add(sim, kind="wrong_prices", mode=mode, factor=2.0)
        wrong = sim.candles("BUSY", OPEN, OPEN + 299)
        assert wrong["t"] == right["t"]
        expected = {
            "scale": [price * 2 for price in right["h"]],
            "zero": [0.0] * len(right["h"]),
            "disorder": right["l"],
        }
        assert wrong["h"] == expected[mode]
        row = sim.log()[-1]
        assert "served" not in row
        assert [entry[3] for entry in row["inline"]] == wrong["h"]
        assert {entry[-1] for entry in row["inline"]} == {"fault"}


def test_wrong_prices_reach_quotes_too() -> None:
    with Simulator() as sim:
        right = quote(sim).json["c"]
        add(sim, kind="wrong_prices", factor=2.0)
        assert quote(sim).json["c"] == pytest.approx(right * 2)


def test_a_throttle_under_a_good_status_is_a_message() -> None:
    with Simulator() as sim:
        add(sim, kind="throttle_200")
        answer = quote(sim)
        assert answer.status == 200
        assert "API limit reached" in answer.json["error"]


def test_a_fault_of_one_capability_leaves_the_others_alone() -> None:
    with Simulator() as sim:
        add(sim, kind="5xx", capability="bars_1m")
        assert candle_status(sim, "1") == 503
        assert candle_status(sim, "D") == 200
        assert quote(sim).status == 200


def test_a_share_hits_some_requests() -> None:
    with Simulator(speed=1.0) as sim:
        add(sim, kind="5xx", share=0.5)
        statuses = [sim.finnhub("/quote", symbol="BUSY", n=str(n)).status for n in range(60)]
        assert 10 < statuses.count(503) < 50
        assert set(statuses) == {200, 503}


def test_slow_and_stale_together_are_both_named() -> None:
    with Simulator() as sim:
        add(sim, kind="slow", seconds=0.01)
        add(sim, kind="stale")
        assert quote(sim).status == 200
        assert sim.log()[-1]["fault"] == "slow+stale"


def test_a_bad_fault_is_refused_and_changes_nothing() -> None:
    with Simulator() as sim:
        add(sim, kind="slow", seconds=0.0)
        body = {"clear": "all", "add": [{"source": "nasdaq", "kind": "5xx", **NOW}]}
        reply = sim.ask("POST", sim.handle.admin + "/admin/faults", json=body)
        assert reply.status == 400
        assert "expected one of *, yahoo, finnhub" in reply.json["error"]
        assert len(sim.admin("/admin/faults")) == 1


@pytest.mark.parametrize(
    ("source", "path", "status", "words"),
    [
        ("finnhub", "/quote?symbol=BUSY&token=k", 401, b"Invalid API key"),
        ("polygon", "/v2/aggs/ticker/BUSY/prev?apiKey=k", 401, b"Unknown API Key"),
        ("alphavantage", "/query?function=GLOBAL_QUOTE&symbol=BUSY&apikey=k", 200, b"apikey"),
    ],
)
def test_an_expired_key_is_refused_in_the_vendor_s_words(
    source: str, path: str, status: int, words: bytes
) -> None:
    with Simulator(sources={source: {}}) as sim:
        add(sim, source=source, kind="expired_key")
        answer = sim.ask("GET", sim.url(source) + path)
        assert answer.status == status
        assert words in answer.body
