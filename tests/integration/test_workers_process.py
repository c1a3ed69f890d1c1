"""Worker processes as an operator runs them, against the simulated market over HTTP."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis

from core.words import Capability, Interval, Tier
from db import backfill, capabilities, ranks
from db.backfill import NewJob
from db.pool import connect
from ops.embedded.valkey import ValkeyServer
from sim.server import start as start_sim
from tests.servers import MakeHome
from tests.workers_world import World, at, window
from workers.queues import (
    BackfillJob,
    CollectJob,
    Kind,
    depths,
    enqueue_backfill,
    enqueue_collect,
)

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def world(database_url: str, redis_url: str) -> Iterator[World]:
    """A market an hour after the open, at real speed."""
    with World(database_url, redis_url, at("15:30:10")) as made:
        yield made


@pytest.fixture
def market(world: World) -> Iterator[Any]:
    """The simulated market on the same clock: 40 symbols of T0, both sources a bit slow."""
    segments = [[s.real_start, s.market_start, s.speed] for s in world.clock.segments()]
    handle = start_sim(
        {
            "clock": {"segments": segments},
            "market": {"session": "2024-03-05", "seed": 7, "symbols": {"T0": 40}},
            "sources": {
                "yahoo": {"latency_ms": 30},
                "finnhub": {"latency_ms": 30, "premium": True},
            },
        }
    )
    with handle:
        world.load(*[member["symbol"] for member in ask(handle.admin, "universe")])
        yield handle


def ask(admin: str, path: str) -> Any:
    with urllib.request.urlopen(f"{admin}/admin/{path}") as reply:
        return json.loads(reply.read())


def truth(market: Any, start: str, end: str) -> dict[str, dict[float, float]]:
    """Symbol -> minute -> close that was last served by now, of minutes that traded."""
    span = f"start={at(start).timestamp():.0f}&end={at(end).timestamp():.0f}"
    found: dict[str, dict[float, float]] = {}
    with urllib.request.urlopen(f"{market.admin}/admin/truth/bars?{span}") as reply:
        for line in reply.read().splitlines():
            row = json.loads(line)
            if row["expected"]:
                found.setdefault(row["symbol"], {})[row["ts"]] = row["versions"][-1]["c"]
    return found


@pytest.fixture
def environment(world: World, tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "DATABASE_URL": world.database_url,
        "REDIS_URL": world.redis_url,
        "METRICS_PORT": "0",
        "GAPLESS_HOME": str(tmp_path / "home"),
        "LOG_LEVEL": "INFO",
    }


@pytest.fixture
def start(environment: dict[str, str], market: Any, wait_until, tmp_path: Path) -> Iterator[Start]:
    """Starts ``python -m workers ...`` and waits until it is healthy and listed."""
    running: list[subprocess.Popen[bytes]] = []
    sources = market.endpoints["sources"]
    both = {
        "YAHOO_BASE_URL": sources["yahoo"]["base_url"],
        "FINNHUB_BASE_URL": sources["finnhub"]["base_url"],
        "FINNHUB_API_KEY": "a-key",
        "FINNHUB_PREMIUM": "true",
        "FINNHUB_LIMITS": "5000/60s",
        "YFINANCE_LIMITS": "5000/60s",
        "POLICY_BARS_1M": "yfinance,finnhub",
    }

    def begin(
        *words: str, ready: bool = True, module: str = "workers", **settings: str
    ) -> subprocess.Popen[bytes]:
        port = tmp_path / f"port-{len(running)}"
        with (tmp_path / "workers.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *words, "--port-file", str(port)],
                env={**environment, **both, **settings},
                cwd=tmp_path,
                stderr=log,
            )
        running.append(process)
        if ready:
            wait_until(
                lambda: (port.exists() and "queue" in health(port)) or "intake" in health(port),
                seconds=20,
                what="the worker is ready",
            )
        return process

    yield begin
    for process in running:
        process.kill()
        process.wait()


def health(port: Path) -> dict[str, Any]:
    if not port.exists():
        return {}
    with urllib.request.urlopen(f"http://127.0.0.1:{port.read_text().strip()}/healthz") as reply:
        return json.loads(reply.read())


def metrics(port: Path) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port.read_text().strip()}/metrics") as reply:
        return reply.read().decode()


def batch(market: Any, part: int, count: int = 20) -> CollectJob:
    symbols = sorted(member["symbol"] for member in ask(market.admin, "universe"))
    return CollectJob(
        kind=Kind.BARS_1M,
        tier=Tier.T0,
        slot=at("15:30:00"),
        symbols=tuple(symbols[part * count : (part + 1) * count]),
        not_after=at("16:30:00"),
        start=at("15:00:00"),
        end=at("15:30:00"),
        part=part,
    )


def stored(world: World, start: str, end: str) -> dict[str, dict[float, float]]:
    found: dict[str, dict[float, float]] = {}
    for symbol, ts, close in world.rows(
        "SELECT symbol, ts, close FROM candles WHERE \"interval\" = '1m' AND ts >= %s AND ts < %s",
        at(start),
        at(end),
    ):
        found.setdefault(symbol, {})[ts.timestamp()] = close
    return found


def test_a_collector_stores_what_the_market_traded(
    world: World, market: Any, start: Start, wait_until, tmp_path: Path
) -> None:
    process = start("collect", "--tier", "T0")
    enqueue_collect(world.redis, [batch(market, 0), batch(market, 1)])
    wait_until(lambda: world.rows("SELECT count(*) FROM fetch_evidence") and done(world, 2))

    # Minutes that settled long ago: what a source serves now is what is true now.
    expected = truth(market, "15:00:00", "15:25:00")
    assert len(expected) == 40
    got = stored(world, "15:00:00", "15:25:00")
    assert {s: set(minutes) for s, minutes in got.items()} == {
        s: set(minutes) for s, minutes in expected.items()
    }
    text = metrics(tmp_path / "port-0")
    assert 'jobs_processed_total{provider="yfinance",type="bars_1m"} 2.0' in text
    assert 'provider_latency_ms_count{endpoint="chart",provider="yfinance"} 40.0' in text
    assert psutil.Process(process.pid).cpu_times().user < 5
    with world.db.transaction() as conn:
        facts = {(f.provider, f.capability): f for f in capabilities.current(conn)}
        assert ranks.current(conn, "bars_1m") == [(0, "yfinance"), (1, "finnhub")]
    assert facts["yfinance", Capability.BARS_1M].eligible
    assert facts["yfinance", Capability.BARS_1M].settle_s == 60
    assert "ALPHA_VANTAGE_API_KEY is not set" in facts["alphavantage", Capability.BARS_EOD].reason

    process.terminate()
    assert process.wait(timeout=10) == 0


def done(world: World, jobs: int) -> bool:
    return world.redis.zcard("rq:finished:collect:T0") >= jobs


def test_a_collector_killed_in_mid_batch_loses_and_doubles_nothing(
    world: World, market: Any, start: Start, wait_until
) -> None:
    slow(market, 0.4)
    first = start("collect", "--tier", "T0", WORKER_THREADS="4")
    enqueue_collect(world.redis, [batch(market, 0), batch(market, 1)])
    wait_until(lambda: world.rows("SELECT count(*) FROM candles_intraday")[0][0] > 0)
    first.kill()
    first.wait()
    before = world.rows("SELECT count(*) FROM candles_intraday")[0][0]
    assert not done(world, 1)

    start("collect", "--tier", "T0")

    wait_until(lambda: done(world, 2), seconds=40, what="both batches were found and finished")
    expected = truth(market, "15:00:00", "15:25:00")
    got = stored(world, "15:00:00", "15:25:00")
    assert {s: set(m) for s, m in got.items()} == {s: set(m) for s, m in expected.items()}
    assert world.rows("SELECT count(*) FROM candles_intraday")[0][0] > before
    twice = world.rows(
        "SELECT symbol_id, ts, provider_id FROM candles_intraday WHERE status = 1"
        " GROUP BY 1, 2, 3 HAVING count(*) > 1"
    )
    assert twice == [], "a first version was stored twice"


def test_a_stop_in_mid_batch_ends_within_ten_seconds_and_loses_nothing(
    world: World, market: Any, start: Start, wait_until
) -> None:
    process = start("collect", "--tier", "T0", YFINANCE_LIMITS="10/60s", FINNHUB_LIMITS="10/60s")
    enqueue_collect(world.redis, [batch(market, 0), batch(market, 1)])
    wait_until(lambda: world.rows("SELECT count(*) FROM candles_intraday")[0][0] > 0)
    began = world.clock.monotonic()

    process.terminate()
    process.send_signal(signal.SIGINT)

    assert process.wait(timeout=10) == 0
    assert world.clock.monotonic() - began < 10
    assert depths(world.redis)["collect:T0"] == 2, "both batches wait for the next worker"
    assert world.redis.zcard("rq:wip:collect:T0") == 0


def test_backfill_rows_are_filled_by_a_process(
    world: World, market: Any, start: Start, wait_until
) -> None:
    with world.db.transaction() as conn:
        found = conn.execute("SELECT symbol_id FROM universe ORDER BY symbol").fetchall()
    span = window("14:30:00", "15:20:00")
    ids = backfill.enqueue(
        world.db, [NewJob(i, Interval.M1, span, Tier.T0, "operator") for (i,) in found]
    )
    backfill.mark_dispatched(world.db, ids, 30)
    start("backfill", "--tier", "T0", BACKFILL_MAX_CONCURRENCY_T0="50")
    enqueue_backfill(
        world.redis,
        [BackfillJob(tier=Tier.T0, ids=tuple(ids[n : n + 20]), push=1) for n in (0, 20)],
    )

    wait_until(
        lambda: set(backfill.states(world.db, ids).values()) == {"done"},
        seconds=30,
        what="every row is done",
    )
    expected = truth(market, "14:30:00", "15:20:00")
    got = stored(world, "14:30:00", "15:20:00")
    assert {s: set(m) for s, m in got.items()} == {s: set(m) for s, m in expected.items()}


def ten_rows(world: World) -> list[int]:
    """Ids of new rows: 50 minutes of each of ten symbols."""
    with world.db.transaction() as conn:
        found = conn.execute("SELECT symbol_id FROM universe ORDER BY symbol").fetchall()
    span = window("14:30:00", "15:20:00")
    return backfill.enqueue(
        world.db, [NewJob(i, Interval.M1, span, Tier.T0, "operator") for (i,) in found[:10]]
    )


def claims_run_out(world: World) -> None:
    """Some seconds pass, and the scheduler's leader looks."""
    world.rows(
        "UPDATE backfill_jobs SET lease_expires = '-infinity' WHERE state = 'running' RETURNING 1"
    )
    assert backfill.reap(world.db) > 0


def test_a_killed_backfill_worker_leaves_rows_that_come_back(
    world: World, market: Any, start: Start, wait_until
) -> None:
    ids = ten_rows(world)
    first = start("backfill", "--tier", "T0", YFINANCE_LIMITS="3/60s", FINNHUB_LIMITS="3/60s")
    enqueue_backfill(world.redis, [BackfillJob(tier=Tier.T0, ids=tuple(ids), push=1)])
    wait_until(lambda: "running" in backfill.states(world.db, ids).values())
    first.kill()
    first.wait()

    claims_run_out(world)
    start("backfill", "--tier", "T0")
    enqueue_backfill(world.redis, [BackfillJob(tier=Tier.T0, ids=tuple(ids), push=2)])

    wait_until(lambda: set(backfill.states(world.db, ids).values()) == {"done"}, seconds=30)


def test_a_stop_in_mid_backfill_hands_the_rows_back_and_spends_no_attempt(
    world: World, market: Any, start: Start, wait_until
) -> None:
    ids = ten_rows(world)
    process = start("backfill", "--tier", "T0", YFINANCE_LIMITS="3/60s", FINNHUB_LIMITS="3/60s")
    enqueue_backfill(world.redis, [BackfillJob(tier=Tier.T0, ids=tuple(ids), push=1)])
    wait_until(lambda: "done" in backfill.states(world.db, ids).values(), seconds=20)

    process.terminate()

    assert process.wait(timeout=10) == 0
    rows = world.rows("SELECT state, attempts FROM backfill_jobs")
    assert {state for state, _ in rows} == {"done", "pending"}
    assert {attempts for state, attempts in rows if state == "pending"} == {0}
    assert world.redis.zcard("rq:wip:backfill:T0") == 0


def test_a_stopped_backfill_worker_that_wakes_up_after_its_claim_ran_out_changes_nothing(
    world: World, market: Any, start: Start, wait_until
) -> None:
    ids = ten_rows(world)
    slow(market, 1.0)
    first = start("backfill", "--tier", "T0", WORKER_THREADS="2")
    enqueue_backfill(world.redis, [BackfillJob(tier=Tier.T0, ids=tuple(ids), push=1)])
    wait_until(lambda: "running" in backfill.states(world.db, ids).values())
    first.send_signal(signal.SIGSTOP)
    claims_run_out(world)
    start("backfill", "--tier", "T0")
    enqueue_backfill(world.redis, [BackfillJob(tier=Tier.T0, ids=tuple(ids), push=2)])
    wait_until(lambda: set(backfill.states(world.db, ids).values()) == {"done"}, seconds=40)
    ended = world.rows("SELECT job_id, attempts, finished_at FROM backfill_jobs ORDER BY 1")

    first.send_signal(signal.SIGCONT)
    first.terminate()

    assert first.wait(timeout=20) == 0
    assert world.rows("SELECT job_id, attempts, finished_at FROM backfill_jobs ORDER BY 1") == ended
    assert (
        world.rows(
            "SELECT symbol_id, ts, provider_id FROM candles_intraday WHERE status = 1"
            " GROUP BY 1, 2, 3 HAVING count(*) > 1"
        )
        == []
    ), "a first version was stored twice"
    expected = truth(market, "14:30:00", "15:20:00")
    for symbol, minutes in stored(world, "14:30:00", "15:20:00").items():
        assert set(minutes) == set(expected[symbol])


def slow(market: Any, seconds: float) -> None:
    """Every source answers so many seconds late."""
    fault = {
        "source": "*",
        "capability": "bars_1m",
        "kind": "slow",
        "from": "now",
        "minutes": 1,
        "seconds": seconds,
        "id": "slow",
    }
    body = json.dumps({"add": [fault]}).encode()
    urllib.request.urlopen(urllib.request.Request(f"{market.admin}/admin/faults", body)).close()


def test_coordinator_elements_end_to_end(
    world: World, market: Any, start: Start, wait_until
) -> None:
    symbols = sorted(member["symbol"] for member in ask(market.admin, "universe"))
    for n in range(200):
        element = {
            "id": f"e-{n}",
            "type": "bars_1m",
            "symbols": [symbols[(n + n // 40) % 40]],
            "start": at(f"15:{n % 20:02d}:00").isoformat(),
            "end": at("15:25:00").isoformat(),
        }
        world.redis.lpush("market:jobs", json.dumps(element) if n % 20 != 3 else f"{{broken {n}")
    start("intake", USE_RLC="true")
    for tier in ("T0",):
        start("collect", "--tier", tier)

    def ended() -> bool:
        return world.rows(
            "SELECT count(*) FROM rlc_inbox WHERE state IN ('done', 'dead', 'expired')"
        ) == [(200,)]

    wait_until(ended, seconds=60, what="every element has ended")
    assert world.rows("SELECT state, count(*) FROM rlc_inbox GROUP BY 1 ORDER BY 1") == [
        ("dead", 10),
        ("done", 190),
    ]
    assert world.redis.llen("market:jobs:dead") == 10
    expected = truth(market, "15:19:00", "15:25:00")
    got = stored(world, "15:19:00", "15:25:00")
    assert {s: set(m) for s, m in got.items()} == {s: set(m) for s, m in expected.items()}


def test_a_collector_whose_database_drops_its_connections_in_mid_batch_stores_all(
    world: World, market: Any, start: Start, wait_until, tmp_path: Path
) -> None:
    slow(market, 0.4)
    start("collect", "--tier", "T0", WORKER_THREADS="4")
    enqueue_collect(world.redis, [batch(market, 0), batch(market, 1)])
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'gapless-collect%'"
    with connect(world.database_url) as owner:
        for stored_before in (0, 200, 500):
            wait_until(
                lambda least=stored_before: (
                    world.rows("SELECT count(*) FROM candles_intraday")[0][0] > least
                )
            )
            owner.execute(cut)

    wait_until(lambda: done(world, 2), seconds=40)
    expected = truth(market, "15:00:00", "15:25:00")
    got = stored(world, "15:00:00", "15:25:00")
    assert {s: set(m) for s, m in got.items()} == {s: set(m) for s, m in expected.items()}
    assert "Traceback" not in (tmp_path / "workers.log").read_text()


def test_an_intake_rides_out_the_loss_of_both_servers_and_stops_as_asked(
    world: World, market: Any, start: Start, make_home: MakeHome, wait_until, tmp_path: Path
) -> None:
    home = make_home()
    valkey = ValkeyServer.start(home, durable=False)
    process = start("intake", USE_RLC="true", REDIS_URL=valkey.url)
    log = tmp_path / "workers.log"

    valkey.stop()
    with connect(world.database_url) as owner:
        owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gapless-intake'"
        )
    wait_until(lambda: "intake waits" in log.read_text(), seconds=20)
    valkey = ValkeyServer.start(home, durable=False)
    with Redis.from_url(valkey.url) as lists:
        lists.lpush("market:jobs", "{broken")
        wait_until(lambda: lists.llen("market:jobs:dead") == 1, seconds=20)

    assert "Traceback" not in log.read_text()
    process.terminate()
    assert process.wait(timeout=10) == 0


def run(environment: dict[str, str], tmp_path: Path, *words: str, **settings: str):
    return subprocess.run(
        [sys.executable, "-m", "workers", *words],
        env={**environment, **settings},
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_settings_that_are_wrong_are_all_said_and_end_the_process(
    environment: dict[str, str], tmp_path: Path
) -> None:
    done = run(
        environment,
        tmp_path,
        "collect",
        "--tier",
        "T0",
        WORKER_THREADS="0",
        POLICY_BARS_1M="a,,b",
        LOG_LEVEL="LOUD",
    )

    assert done.returncode == 2
    assert "3 settings are invalid" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_tier_that_does_not_exist_is_a_usage_error(
    environment: dict[str, str], tmp_path: Path
) -> None:
    done = run(environment, tmp_path, "collect", "--tier", "T9")

    assert done.returncode == 2
    assert "T9" in done.stderr


def test_a_taken_metrics_port_is_said(
    environment: dict[str, str], tmp_path: Path, world: World
) -> None:
    port = str(world.redis.connection_pool.connection_kwargs["port"])

    done = run(environment, tmp_path, "collect", "--tier", "T0", METRICS_PORT=port)

    assert done.returncode == 2
    assert f"METRICS_PORT {port}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"DATABASE_URL": "postgresql://gapless:hunter2@127.0.0.1:1/x"}, "can't be reached"),
        ({"REDIS_URL": "redis://:hunter2@127.0.0.1:1/0"}, "Redis at"),
    ],
)
def test_a_server_that_is_away_is_waited_for_and_said_in_one_line(
    environment: dict[str, str],
    tmp_path: Path,
    wait_until,
    settings: dict[str, str],
    said: str,
) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "workers", "collect", "--tier", "T0"],
            env={**environment, **settings},
            cwd=tmp_path,
            stderr=file,
        )
    try:
        wait_until(lambda: said in log.read_text(), seconds=20)
        assert process.poll() is None
        process.terminate()
        assert process.wait(timeout=8) == 0
    finally:
        process.kill()
        process.wait()
    assert "hunter2" not in log.read_text()
    assert "Traceback" not in log.read_text()


def test_intake_without_a_coordinator_stays_and_does_nothing(world: World, start: Start) -> None:
    world.redis.lpush("market:jobs", "{}")
    process = start("intake")

    assert process.poll() is None
    assert world.redis.llen("market:jobs") == 1


def test_a_worker_loads_no_data_frame_library_and_starts_quickly(
    environment: dict[str, str], tmp_path: Path
) -> None:
    code = (
        "import sys, time\n"
        "import workers.__main__, workers.jobs, workers.wiring, workers.worker, core.telemetry\n"
        "from providers import csv, finnhub, yfinance\n"
        "heavy = {'yfinance', 'pandas', 'pandas_market_calendars'} & set(sys.modules)\n"
        "print(sorted(heavy), time.process_time())\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )

    heavy, seconds = done.stdout.rsplit(maxsplit=1)
    assert heavy == "[]"
    assert float(seconds) < 1.5
