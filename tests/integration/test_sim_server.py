"""The process around the market: determinism, admin, log, start and stop."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from core.errors import SettingsError
from sim.server import start
from tests.simulated import CLOSE, OPEN, Simulator, moment, segments

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT.parent / "shared" / "recorded" / "bars"


def questions(sim: Simulator) -> list[bytes]:
    asked = [
        sim.chart("BUSY", range="1d"),
        sim.chart("DULL", range="5d", interval="1d"),
        sim.chart("DULL", period1=OPEN - 60, period2=OPEN + 900),
        sim.yahoo("/"),
        sim.yahoo("/v1/test/getcrumb"),
        sim.finnhub("/quote", symbol="BUSY"),
        sim.ask(
            "GET",
            f"{sim.url('finnhub')}/stock/candle?symbol=DULL&resolution=1&from={OPEN}&to={CLOSE}&token=k",
        ),
    ]
    return [answer.body for answer in asked]


def test_two_servers_with_one_seed_answer_byte_for_byte_alike() -> None:
    faults = [
        {"source": "*", "kind": "drop_bars", "from": "14:30", "minutes": 600, "fraction": 0.2},
        {"source": "*", "kind": "5xx", "from": "14:30", "minutes": 600, "share": 0.3},
    ]
    at = OPEN + 4000.25
    with Simulator(at=at, faults=faults) as one, Simulator(at=at, faults=faults) as two:
        # Standing clocks start at different real instants: set both to the same standing instant.
        for sim in (one, two):
            sim.move(at)
        answers = questions(one)
        assert questions(two) == answers
        assert questions(two) == answers
    with Simulator(at=at, market={"seed": 8}) as other:
        assert questions(other)[2] != answers[2]


def test_the_log_is_numbered_filtered_and_read_in_parts() -> None:
    with Simulator() as sim:
        for _ in range(3):
            sim.finnhub("/quote", symbol="BUSY")
            sim.chart("BUSY", range="1d")
        rows = sim.log()
        assert [row["seq"] for row in rows] == list(range(6))
        assert sim.lines("/admin/served", since=4) == rows[4:]
        assert sim.lines("/admin/served", since=1, limit=2) == rows[1:3]
        assert [row["source"] for row in sim.lines("/admin/served", source="yahoo")] == [
            "yahoo"
        ] * 3
        assert sim.lines("/admin/served", since=99) == []


def test_a_log_row_says_who_asked_what_when_and_what_came(tmp_path: Path) -> None:
    path = tmp_path / "served.ndjson"
    config = {
        "clock": {"segments": segments(OPEN + 600)},
        "log_file": str(path),
        "market": {"session": "2024-03-05", "universe": [{"symbol": "A", "tier": "T0"}]},
    }
    with start(config) as handle:
        query = {"symbol": "A", "resolution": "1", "from": OPEN, "to": OPEN + 59, "token": "secret"}
        base = handle.endpoints["sources"]["finnhub"]["base_url"]
        requests.get(f"{base}/stock/candle", params=query, timeout=5)
        requests.post(f"{handle.admin}/admin/flush", timeout=5)
        (row,) = map(json.loads, path.read_text().splitlines())
    real = row.pop("arrived_real")
    assert real > 1.7e9
    assert row == {
        "seq": 0,
        "source": "finnhub",
        "endpoint": "candle",
        "capability": "bars_1m",
        "symbols": ["A"],
        "window": [OPEN, OPEN + 60],
        "arrived": pytest.approx(OPEN + 600, abs=0.01),
        "answered": pytest.approx(OPEN + 600, abs=0.01),
        "status": 200,
        "fault": None,
        "violation": None,
        "served": [["A", [OPEN], [0]]],
    }


def test_truth_tells_untraded_minutes_only_when_asked() -> None:
    with Simulator() as sim:
        traded = sim.lines("/admin/truth/bars", symbols="DULL")
        every = sim.lines("/admin/truth/bars", symbols="DULL", untraded=1)
        assert [row["ts"] for row in every] == list(range(OPEN, CLOSE, 60))
        assert [row for row in every if row["versions"]] == traded
        assert 0 < len(traded) < 390
        assert all(row["expected"] for row in every)
        both = sim.lines("/admin/truth/bars", start="2024-03-05T14:30:00Z", end=OPEN + 60)
        assert {row["symbol"] for row in both} >= {"BUSY"}


def test_truth_marks_halted_minutes() -> None:
    with Simulator(market={"halts": [{"symbol": "BUSY", "from": "15:00", "minutes": 2}]}) as sim:
        rows = sim.lines("/admin/truth/bars", symbols="BUSY", untraded=1)
        assert [row["ts"] for row in rows if row["halted"]] == [OPEN + 1800, OPEN + 1860]


@pytest.mark.parametrize(
    "path",
    [
        "/admin/truth/bars?interval=5m",
        "/admin/truth/bars?start=yesterday",
        "/admin/truth/bars?start=2024-03-05T14:30:00",
        "/admin/served?since=-1",
        "/admin/sessions?calendar=NOWHERE",
        "/admin/sessions?start=today",
    ],
)
def test_a_bad_admin_question_gets_its_reason(path: str) -> None:
    with Simulator() as sim:
        reply = sim.ask("GET", sim.handle.admin + path)
        assert reply.status == 400
        assert "expected" in reply.json["error"]


def test_admin_knows_the_universe_the_sessions_and_the_clock() -> None:
    with Simulator() as sim:
        assert [row["symbol"] for row in sim.admin("/admin/universe")] == ["BUSY", "DULL"]
        text = sim.ask("GET", sim.handle.admin + "/admin/universe?format=csv").body.decode()
        assert text == "symbol,exchange,tier\nBUSY,XNYS,T0\nDULL,XNYS,T2\n"
        health = sim.admin("/admin/health")
        assert (health["session"], health["open"], health["close"]) == ("2024-03-05", OPEN, CLOSE)
        days = sim.admin("/admin/sessions?start=2024-07-03&end=2024-07-06")
        assert [(day["session"], day["close"] - day["open"]) for day in days] == [
            ("2024-07-03", 210 * 60),
            ("2024-07-05", 390 * 60),
        ]
        sim.move(OPEN, speed=160)
        assert sim.admin("/admin/clock")["speed"] == 160
        stats = sim.admin("/admin/stats")
        assert set(stats["sources"]) == {"yahoo", "finnhub"}
        assert stats["loop_lag_s"] >= 0
        assert sim.admin("/admin/endpoints") == sim.handle.endpoints


def test_a_bad_clock_is_refused() -> None:
    with Simulator() as sim:
        reply = sim.ask("POST", sim.handle.admin + "/admin/clock", json={"segments": [[1, 2]]})
        assert reply.status == 400
        assert sim.ask("POST", sim.handle.admin + "/admin/clock", data=b"x").status == 400


def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"port {port} of 127.0.0.1 can't be had"):
            start({"admin_port": port, "market": {"symbols": {"T0": 1}}})


def test_an_unwritable_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"log_file .* can't be written"):
        start({"log_file": str(tmp_path / "no" / "log"), "market": {"symbols": {"T0": 1}}})


def launch(*words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "sim", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def endpoints_of(process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    endpoints_file, log_file = tmp_path / "run" / "endpoints.json", tmp_path / "log.ndjson"
    config = {
        "endpoints_file": str(endpoints_file),
        "log_file": str(log_file),
        "market": {"session": "2024-03-05", "symbols": {"T0": 2}},
    }
    (tmp_path / "sim.json").write_text(json.dumps(config))
    process = launch("--config", str(tmp_path / "sim.json"), "--speed", "60")
    with process:
        endpoints = endpoints_of(process)
        assert json.loads(endpoints_file.read_text()) == endpoints
        requests.get(
            endpoints["sources"]["finnhub"]["base_url"] + "/quote?symbol=X&token=t", timeout=5
        )
        process.send_signal(signal.SIGTERM)
        _, words = process.communicate(timeout=10)
    assert process.returncode == 0, words
    assert "2 symbols" in words
    assert len(log_file.read_text().splitlines()) == 1


def test_stop_over_the_admin_port_ends_the_process() -> None:
    with launch("--symbols", "T0=1") as process:
        endpoints = endpoints_of(process)
        assert requests.post(endpoints["admin"] + "/admin/stop", timeout=5).json() == {"ok": True}
        process.communicate(timeout=10)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--config", "/nowhere.json"], "can't be read"),
        (["--session", "2024-03-31"], "is no session of XNYS"),
        (["--bars", "/nowhere"], "no folder"),
        (["--symbols", "many"], "expected a number or T0=30"),
        (["--calendar", "MOON"], "has no calendar in exchange_calendars"),
    ],
)
def test_a_wrong_start_says_why_and_exits_2(words: list[str], expected: str) -> None:
    with launch(*words) as process:
        _, talk = process.communicate(timeout=20)
    assert process.returncode == 2
    assert expected in talk
    assert "Traceback" not in talk


@pytest.mark.parametrize(
    ("symbol", "session", "after"),
    [
        ("SPY", "2013-10-08", "2013-10-09T00:30"),
        ("YESBANK", "2019-07-10", "2019-07-10T12:00"),
        ("BTCBUSD", "2022-12-13", "2022-12-14T00:05"),
    ],
)
def test_recorded_bars_come_back_exactly_over_both_wires(
    symbol: str, session: str, after: str
) -> None:
    if not RECORDED.is_dir():
        pytest.skip(f"needs the recorded bars in {RECORDED}")
    lines = (RECORDED / symbol / f"{session}.csv").read_text().splitlines()[1:]
    cells = [line.split(",") for line in lines]
    file = {
        moment(row[0].removesuffix("Z")): tuple(float(cell) for cell in row[1:]) for row in cells
    }
    with Simulator(
        at=moment(after), market={"kind": "csv", "dir": str(RECORDED), "session": session}
    ) as sim:
        truth = sim.lines(
            "/admin/truth/bars",
            symbols=symbol,
            untraded=1,
            start=min(file) - 60,
            end=max(file) + 60,
        )
        regular = [row["ts"] for row in truth if row["expected"]]
        got = sim.rows(symbol, min(file) - 60, max(file) + 60)
        assert {ts: row for ts, row in got.items() if ts in regular and row[0] is not None} == {
            ts: row for ts, row in file.items() if ts in regular
        }
        body = sim.candles(symbol, min(file), max(file))
        rows = zip(body["t"], zip(*(body[name] for name in "ohlcv"), strict=True), strict=True)
        assert dict(rows) == file
