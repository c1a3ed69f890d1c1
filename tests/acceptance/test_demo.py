"""The main job as a person starts it: a demo that must come out clean, and a checker that must be able to fail."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from core.clock import SystemClock
from tests.servers import MakeHome

pytestmark = pytest.mark.acceptance

CLOCK = SystemClock()
SHORT = ["--symbols", "20", "--from", "13:30", "--to", "13:45", "--speed", "150"]


def run_ops(home: Path, *words: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "GAPLESS_HOME": str(home)}
    argv = [sys.executable, "-m", "ops", *words]
    return subprocess.run(
        argv, env=env, capture_output=True, text=True, timeout=timeout_s, check=False
    )


class KeptDemo:
    """A finished demo whose servers are still up."""

    def __init__(self, home: Path) -> None:
        self.home = home / "demo"
        env = {**os.environ, "GAPLESS_HOME": str(home)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ops", "demo", *SHORT, "--faults", "none", "--keep"],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output = ""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.output += line
            if "servers stay up" in line:
                return
        pytest.fail(f"the demo ended:\n{self.output}")

    def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements as somebody who gets past the guards; rows of the last one."""
        url = json.loads((self.home / "stack.json").read_text())["database_url"]
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("SET session_replication_role = replica")
            for statement in statements[:-1]:
                conn.execute(statement.encode())
            cursor = conn.execute(statements[-1].encode())
            return cursor.fetchall() if cursor.description else []

    def verify(self) -> tuple[int, dict[str, Any]]:
        done = run_ops(
            self.home,
            "verify",
            "--json",
            "--from",
            "2025-03-10T13:30Z",
            "--to",
            "2025-03-10T13:45Z",
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def stop(self) -> None:
        began = CLOCK.monotonic()
        self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=20)
        assert CLOCK.monotonic() - began < 10
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptDemo]:
    demo = KeptDemo(tmp_path_factory.mktemp("kept"))
    yield demo
    demo.stop()


ONE = """
SELECT c.symbol_id, c.ts, c.provider_id, c.as_of FROM candles_intraday c
WHERE c.status = 1 AND c.ts BETWEEN '2025-03-10T13:30Z' AND '2025-03-10T13:44Z' AND NOT EXISTS (
    SELECT 1 FROM candles_intraday o WHERE o.symbol_id = c.symbol_id AND o.ts = c.ts AND o.status <> 1)
ORDER BY c.ts DESC, c.symbol_id LIMIT 1
"""


def where(row: tuple[Any, ...]) -> str:
    symbol_id, ts, provider_id, as_of = row
    return f"symbol_id = {symbol_id} AND ts = '{ts}' AND provider_id = {provider_id} AND as_of = '{as_of}'"


def test_a_finished_demo_is_clean(kept: KeptDemo) -> None:
    code, result = kept.verify()
    assert code == 0, json.dumps(result)
    assert result["expected"] == result["present"] + result["confirmed_empty"] > 0
    assert result["as_of_reads"] >= 10_000


def test_a_broken_bar_is_reported_as_wrong(kept: KeptDemo) -> None:
    [row] = kept.sql(ONE)
    kept.sql(f"UPDATE candles_intraday SET close = close + 1, high = high + 1 WHERE {where(row)}")
    code, result = kept.verify()
    kept.sql(f"UPDATE candles_intraday SET close = close - 1, high = high - 1 WHERE {where(row)}")
    assert code == 1
    assert result["wrong"] == 1


def test_a_deleted_bar_is_reported_as_missing(kept: KeptDemo) -> None:
    [row] = kept.sql(ONE)
    same = f"symbol_id = {row[0]} AND ts = '{row[1]}'"
    kept.sql(
        f"CREATE TABLE aside AS SELECT * FROM candles_intraday WHERE {same}",
        f"DELETE FROM candles_intraday WHERE {same}",
    )
    code, result = kept.verify()
    kept.sql("INSERT INTO candles_intraday SELECT * FROM aside", "DROP TABLE aside")
    assert code == 1
    assert result["missing"] == 1


def test_an_added_bar_is_reported_as_wrong(kept: KeptDemo) -> None:
    [row] = kept.sql(ONE)
    columns = "symbol_id, interval_s, asked_at, as_of, open, high, low, close, volume, provider_id, status"
    kept.sql(
        f"INSERT INTO candles_intraday ({columns}, ts) SELECT {columns}, '2025-03-10T13:00Z'"
        f" FROM candles_intraday WHERE {where(row)}"
    )
    code, result = kept.verify()
    added = f"symbol_id = {row[0]} AND ts = '2025-03-10T13:00Z'"
    if result["wrong"] == 0:
        # A bar before the first judged minute: look at the whole session.
        done = run_ops(
            kept.home,
            "verify",
            "--json",
            "--from",
            "2025-03-10T12:00Z",
            "--to",
            "2025-03-10T13:45Z",
        )
        code, result = done.returncode, json.loads(done.stdout)
    kept.sql(f"DELETE FROM candles_intraday WHERE {added}")
    assert code == 1
    assert result["wrong"] == 1


def test_a_repeated_bar_is_reported_as_duplicate(kept: KeptDemo) -> None:
    [row] = kept.sql(ONE)
    columns = (
        "symbol_id, interval_s, ts, asked_at, open, high, low, close, volume, provider_id, status"
    )
    kept.sql(
        f"INSERT INTO candles_intraday ({columns}, as_of) SELECT {columns}, as_of + interval '1 hour'"
        f" FROM candles_intraday WHERE {where(row)}"
    )
    code, result = kept.verify()
    later = f"'{row[3]}'::timestamptz + interval '1 hour'"
    kept.sql(f"DELETE FROM candles_intraday WHERE symbol_id = {row[0]} AND as_of = {later}")
    assert code == 1
    assert result["duplicate"] == 1


def test_a_back_dated_bar_is_reported_as_lookahead(kept: KeptDemo) -> None:
    [row] = kept.sql(ONE)
    move = (
        "UPDATE candles_intraday SET as_of = as_of {0} {1}, asked_at = asked_at {0} {1} WHERE {2}"
    )
    ten = "interval '10 minutes'"
    kept.sql(move.format("-", ten, where(row)))
    code, result = kept.verify()
    back = where(row).replace("as_of = ", f"as_of + {ten} = ")
    kept.sql(move.format("+", ten, back))
    assert code == 1
    assert result["lookahead"] >= 1


def test_without_budgets_the_checker_counts_limit_violations(
    make_home: MakeHome, tmp_path: Path
) -> None:
    home = make_home()
    report = tmp_path / "report.json"
    done = run_ops(
        home.path, "demo", *SHORT, "--faults", "none", "--no-budgets", "--json", str(report)
    )
    assert done.returncode == 1, done.stdout
    result = json.loads(report.read_text())
    assert result["limit_violations"] > 0
    assert result["wrong"] == result["duplicate"] == result["lookahead"] == 0


def test_the_demo_with_faults_and_a_killed_worker_comes_out_clean(
    make_home: MakeHome, tmp_path: Path
) -> None:
    home = make_home()
    report, faults = tmp_path / "report.json", tmp_path / "faults.json"
    faults.write_text(
        json.dumps(
            [
                {
                    "source": "finnhub",
                    "kind": "refuse",
                    "capability": "*",
                    "from": "13:33",
                    "minutes": 3,
                },
                {
                    "source": "*",
                    "kind": "5xx",
                    "capability": "bars_1m",
                    "from": "13:38",
                    "minutes": 3,
                },
            ]
        )
    )
    done = run_ops(home.path, "demo", *SHORT, "--faults", str(faults), "--json", str(report))
    assert done.returncode == 0, done.stdout
    result = json.loads(report.read_text())
    zero = (
        "missing",
        "wrong",
        "duplicate",
        "lookahead",
        "false_confirmed_empty",
        "limit_violations",
        "restated_missed",
    )
    assert {name: result[name] for name in zero} == dict.fromkeys(zero, 0)
    assert result["gaps_found"] == result["gaps_filled"]


def test_recorded_bars_come_back_equal_to_their_files(
    shared_recorded: Path, make_home: MakeHome, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    words = [
        "--bars",
        str(shared_recorded / "bars"),
        "--session",
        "2022-12-13",
        "--from",
        "10:00",
        "--to",
        "10:10",
    ]
    done = run_ops(make_home().path, "demo", *words, "--speed", "60", "--json", str(report))
    assert done.returncode == 0, done.stdout
    result = json.loads(report.read_text())
    assert result["expected"] == result["present"] == 10


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--symbols", "1"], "--symbols is 1; expected at least 3"),
        (["--bars", "/nowhere"], "is no folder"),
        (["--from", "15:00", "--to", "14:00"], "--to 14:00 is not after --from 15:00"),
        (["--session", "2025-03-09"], "2025-03-09"),
    ],
)
def test_a_demo_that_makes_no_sense_is_refused_with_the_mend(
    make_home: MakeHome, words: list[str], message: str
) -> None:
    done = run_ops(make_home().path, "demo", *words)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
