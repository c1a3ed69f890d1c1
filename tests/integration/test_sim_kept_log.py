"""A market that goes on over restarts keeps the log of what it answered, and the checker goes by it."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from core.bars import Bar
from core.clock import SystemClock
from core.windows import Window
from core.words import Interval, Tier
from db import universe
from db.pool import Database
from ops import cli
from sim.check.report import Range, verify
from sim.check.stack import StackFile
from sim.server import SimHandle, start
from tests.storage import answer, put

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
MINUTE = timedelta(minutes=1)


def config(log: Path, **market: Any) -> dict[str, Any]:
    """A market round the clock in real time that keeps its log."""
    universe = [{"symbol": "BUSY", "tier": "T0", "exchange": "24/7"}]
    return {
        "log_file": str(log),
        "log_kept": True,
        "market": {"seed": 7, "universe": universe} | market,
        "sources": {"finnhub": {}},
    }


def ask(sim: SimHandle, window: Window) -> list[Bar]:
    """The bars of a window as finnhub's wire shows them."""
    words = {"symbol": "BUSY", "resolution": "1", "token": "k"}
    edges = {"from": int(window.start.timestamp()), "to": int(window.end.timestamp()) - 1}
    base = sim.endpoints["sources"]["finnhub"]["base_url"]
    page = requests.get(f"{base}/stock/candle", params=words | edges, timeout=10).json()
    stamps = [datetime.fromtimestamp(at, UTC) for at in page["t"]]
    return [Bar(*values) for values in zip(stamps, *(page[name] for name in "ohlcv"), strict=True)]


def log_of(sim: SimHandle, **query: Any) -> list[dict[str, Any]]:
    reply = requests.get(f"{sim.admin}/admin/served", params=query, timeout=10)
    return [json.loads(line) for line in reply.content.splitlines()]


def runs_of(sim: SimHandle) -> list[dict[str, Any]]:
    return requests.get(f"{sim.admin}/admin/log", timeout=10).json()["runs"]


@pytest.fixture
def yesterday() -> Window:
    noon = SystemClock().now().replace(hour=12, minute=0, second=0, microsecond=0)
    return Window(noon - timedelta(days=1), noon - timedelta(days=1) + 30 * MINUTE)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "served.ndjson"


def test_a_restart_goes_on_with_the_log_and_the_truth(log: Path, yesterday: Window) -> None:
    with start(config(log)) as sim:
        before = ask(sim, yesterday)
    with start(config(log)) as sim:
        assert ask(sim, yesterday) == before
        lines, (first, second) = log_of(sim), runs_of(sim)
        assert [line["seq"] for line in lines] == [0, 1]
        assert lines[0]["served"] == lines[1]["served"]
        assert log_of(sim, **{"from": second["began"]}) == lines[1:]
    assert first["began"] < lines[0]["answered"] < first["ended"] < second["began"]
    assert second["ended"] is None


def test_the_log_of_another_market_is_not_gone_on_with(log: Path, yesterday: Window) -> None:
    with start(config(log)) as sim:
        ask(sim, yesterday)
    with start(config(log, seed=8)) as sim:
        assert log_of(sim) == []
        assert len(runs_of(sim)) == 1


def test_a_log_that_has_become_too_large_is_not_gone_on_with(
    log: Path, yesterday: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start(config(log)) as sim:
        ask(sim, yesterday)
    monkeypatch.setattr("sim.runs.MOST_BYTES", 100)
    with start(config(log)) as sim:
        assert log_of(sim) == []
        assert len(runs_of(sim)) == 1


def test_a_killed_run_ends_with_its_last_whole_line(log: Path, yesterday: Window) -> None:
    with start(config(log)) as sim:
        ask(sim, yesterday)
        ask(sim, yesterday)
        (_, last) = log_of(sim)
    beside = log.with_suffix(".runs.json")
    kept = json.loads(beside.read_bytes())
    beside.write_text(json.dumps(kept | {"runs": [kept["runs"][0] | {"ended": None}]}))
    with log.open("ab") as file:
        file.write(b'{"source": "fin')
    with start(config(log)) as sim:
        ask(sim, yesterday)
        assert [line["seq"] for line in log_of(sim)] == [0, 1, 2]
        assert runs_of(sim)[0]["ended"] == last["answered"]


def test_the_command_keeps_the_log_beside_its_config(tmp_path: Path) -> None:
    file = tmp_path / "sim.json"
    file.write_text(json.dumps({"market": {"symbols": {"T0": 1}, "exchanges": {"24/7": 1.0}}}))
    for count in (1, 2):
        process = subprocess.Popen(
            [sys.executable, "-m", "sim", "--config", str(file)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        with process:
            assert process.stdout is not None
            endpoints = json.loads(process.stdout.readline())
            base = endpoints["sources"]["finnhub"]["base_url"]
            requests.get(f"{base}/quote?symbol=X&token=t", timeout=10)
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=20)
        lines = (tmp_path / "sim.served.ndjson").read_text().splitlines()
        assert [json.loads(line)["seq"] for line in lines] == list(range(count))


class Checked:
    """A database that holds what a simulator served, and the checker's word about it."""

    def __init__(self, db: Database, url: str, window: Window) -> None:
        self.db, self.url, self.window = db, url, window
        universe.load(db, [("BUSY", Tier.T0, "24/7", "24/7")], "test")
        with db.transaction() as conn:
            self.symbol_id = universe.resolve(conn, ["BUSY"])["BUSY"].symbol_id

    def store(self, bars: list[Bar]) -> None:
        asked = self.db.clock.now()
        put(
            self.db, answer(self.symbol_id, bars, window=self.window, asked=asked), source="finnhub"
        )

    def verify(self, sim: SimHandle) -> dict[str, Any]:
        stack = StackFile(self.url, sim.admin)
        return verify(stack, Range(self.window.start, self.window.end), None)


@pytest.fixture
def checked(db: Database, database_url: str, yesterday: Window) -> Checked:
    return Checked(db, database_url, yesterday)


def wrong(bars: list[Bar]) -> list[Bar]:
    first = bars[0]
    return [Bar(first.ts, first.open, first.high + 1, first.low, first.close, first.volume)]


def test_what_was_served_before_a_restart_is_right_after_it(
    log: Path, db: Database, database_url: str, yesterday: Window
) -> None:
    with start(config(log)) as sim:
        checked = Checked(db, database_url, yesterday)
        bars = ask(sim, yesterday)
        checked.store(bars)
        assert checked.verify(sim)["wrong"] == 0
        checked.store(wrong(bars))
        assert checked.verify(sim)["wrong"] == 1
    with start(config(log)) as sim:
        result = checked.verify(sim)
    assert len(bars) == 30
    assert (result["wrong"], result["lookahead"], result["unjudged"]) == (1, 0, 0)
    (example,) = [line for line in result["examples"] if line.startswith("wrong")]
    assert f"BUSY 1m {yesterday.start:%Y-%m-%dT%H:%M:%SZ}: finnhub never served open" in example


def test_what_a_killed_simulator_may_not_have_written_down_is_not_judged(
    log: Path, db: Database, database_url: str, yesterday: Window
) -> None:
    with start(config(log)) as sim:
        checked = Checked(db, database_url, yesterday)
        bars = ask(sim, yesterday)
        checked.store(wrong(bars))
        (line,) = log_of(sim)
    # Killed right after its last line, which is older than what was stored.
    beside = log.with_suffix(".runs.json")
    kept = json.loads(beside.read_bytes())
    beside.write_text(json.dumps(kept | {"runs": [kept["runs"][0] | {"ended": None}]}))
    with start(config(log)) as sim:
        assert runs_of(sim)[0]["ended"] == line["answered"]
        result = checked.verify(sim)
        assert (result["wrong"], result["unjudged"]) == (0, 1)
        assert any("1 revisions were learnt while no whole log" in note for note in result["notes"])
        checked.store(ask(sim, yesterday))
        assert checked.verify(sim)["wrong"] == 0


def test_daily_bars_are_judged_in_any_range_and_due_after_their_session(
    log: Path, db: Database, database_url: str, yesterday: Window
) -> None:
    opened = yesterday.start.replace(hour=0)
    with start(config(log)) as sim:
        checked = Checked(db, database_url, Window(opened, opened + 30 * MINUTE))
        words = {"symbol": "BUSY", "resolution": "D", "token": "k"}
        edges = {"from": int(opened.timestamp()), "to": int(opened.timestamp()) + 86_399}
        base = sim.endpoints["sources"]["finnhub"]["base_url"]
        page = requests.get(f"{base}/stock/candle", params=words | edges, timeout=10).json()
        values = [page[name][0] for name in "ohlcv"]
        day = Window(opened, opened + timedelta(days=1))
        bar = Bar(opened, *values, session=opened.date())
        told = answer(checked.symbol_id, [bar], window=day, asked=db.clock.now())
        put(db, told, source="finnhub", interval=Interval.D1)
        part = checked.verify(sim)
        today = verify(StackFile(database_url, sim.admin), Range(day.end, None), None)
    assert (part["wrong"], part["missing"]) == (0, 0)
    # The bar of the session that runs is nobody's yet: minutes alone are expected.
    judged = Window(day.end, datetime.fromisoformat(today["judged_to"]) + MINUTE)
    assert today["expected"] == judged.length // MINUTE - 1


def test_a_database_older_than_the_log_is_judged_from_the_log_on(
    log: Path, checked: Checked, monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path
) -> None:
    with start(config(log)) as sim:
        checked.store(ask(sim, checked.window))
        result = checked.verify(sim)
        assert (result["wrong"], result["expected"], result["ok"]) == (0, 0, True)
        assert "bars before the log are not judged" in result["notes"][0]

    monkeypatch.setenv("DATABASE_URL", checked.url)
    monkeypatch.setenv("GAPLESS_HOME", str(tmp_path))
    assert cli.main(["verify"]) == 0
    said = capsys.readouterr().out
    assert "no simulator here" in said
    assert "{" not in said
    assert [line.split() for line in said.splitlines() if "cursor_ahead" in line] == [
        ["cursor_ahead", "0"]
    ]
