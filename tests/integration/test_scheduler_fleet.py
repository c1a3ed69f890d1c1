"""Scheduler processes as operators run them: one leads, death and pauses cost a moment, nothing else."""

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from core.clock import SystemClock
from core.windows import Window
from core.words import Interval, Tier
from db import backfill
from db.backfill import NewJob
from db.pool import connect
from ops.embedded.valkey import ValkeyServer
from tests.integration.scheduler_market import ROOT, Market, at, drain, start_scheduler
from workers.queues import CollectJob

pytestmark = pytest.mark.integration

CLOCK = SystemClock()


class Fleet:
    """Schedulers over one market, and everything that they pushed."""

    def __init__(self, market: Market, redis: Redis, redis_url: str, folder: Path) -> None:
        self.market, self.redis, self.redis_url, self.folder = market, redis, redis_url, folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.pushed: list[CollectJob] = []
        self._over = threading.Event()
        self._drainer = threading.Thread(target=self._drain)

    def start(self, name: str, **env: str) -> None:
        self.running[name] = start_scheduler(
            self.market.url, self.redis_url, self.folder, name, **env
        )

    def drain(self) -> None:
        self._drainer.start()

    def _drain(self) -> None:
        # Its hash goes with the job: a second push of the same would be seen.
        while not self._over.wait(0.02):
            self.pushed += drain(self.redis)

    def close(self) -> None:
        for process in self.running.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
        if self._drainer.is_alive():
            self._over.set()
            self._drainer.join()

    def health(self, name: str) -> dict[str, object]:
        port = (self.folder / f"{name}.port").read_text().strip()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as reply:
                return json.load(reply)
        except urllib.error.HTTPError as unwell:
            return json.load(unwell)

    def leader(self) -> tuple[str, int] | None:
        """Name and token of who leads by the database's word."""
        rows = self.market.ask(
            "SELECT holder, token FROM leader_lease WHERE expires_at > clock_timestamp()"
        )
        for holder, token in rows:
            for name, process in self.running.items():
                if f":{process.pid}:" in holder:
                    return name, token
        return None

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()


@pytest.fixture
def make_fleet(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    made: list[Fleet] = []

    def make(start: str, speed: float, redis_url: str = redis_url) -> Fleet:
        market = Market(database_url, start, speed=speed)
        made.append(Fleet(market, Redis.from_url(redis_url), redis_url, tmp_path))
        return made[-1]

    yield make
    for fleet in made:
        fleet.close()
        fleet.redis.close()
        fleet.market.close()


def contents(jobs: list[CollectJob]) -> dict[tuple[object, ...], list[CollectJob]]:
    """Jobs by the slot that they serve."""
    found: dict[tuple[object, ...], list[CollectJob]] = defaultdict(list)
    for job in jobs:
        found[job.kind, job.tier, job.slot, job.phase].append(job)
    return found


def test_a_paused_leader_is_replaced_and_harmless_when_it_wakes(make_fleet, wait_until):
    fleet = make_fleet("2024-12-02T15:00", speed=60)
    fleet.market.trade("NYSE")
    fleet.market.enrol(T0=(150, "NYSE"))
    fleet.market.enrol(T1=(40, "NYSE"))
    fleet.drain()
    for name in ("one", "two"):
        fleet.start(name)
    wait_until(lambda: fleet.leader() and len(fleet.pushed) > 10, seconds=20)
    (old, token) = fleet.leader()
    fleet.running[old].send_signal(signal.SIGSTOP)
    paused = CLOCK.monotonic()
    wait_until(lambda: (now := fleet.leader()) is not None and now[1] > token, seconds=8)
    took_s = CLOCK.monotonic() - paused
    at_takeover = len(fleet.pushed)
    wait_until(lambda: len(fleet.pushed) > at_takeover + 5, seconds=10)
    fleet.running[old].send_signal(signal.SIGCONT)
    wait_until(lambda: "lost the lease" in fleet.log(old), seconds=5)
    woken = len(fleet.pushed)
    wait_until(lambda: len(fleet.pushed) > woken + 20, seconds=10)

    assert took_s < 4.0, "a lease of three seconds, and a look each quarter of a second"
    slots = contents(list(fleet.pushed))
    for key, jobs in slots.items():
        # Pushed twice is allowed where the first leader was stopped between push and mark: the same.
        by_part = defaultdict(set)
        for job in jobs:
            by_part[job.part].add((frozenset(job.symbols), job.start, job.end))
        assert all(len(variants) == 1 for variants in by_part.values()), key
        symbols = [s for part in by_part.values() for found in part for s in found[0]]
        assert len(symbols) == len(set(symbols)), key
    twice = [key for key, jobs in slots.items() if len(jobs) > len({job.part for job in jobs})]
    assert len(twice) <= 1
    assert fleet.health(old)["leading"] is False


def test_the_work_of_a_killed_leader_goes_on_within_the_lease(make_fleet, wait_until):
    fleet = make_fleet("2024-12-02T15:00", speed=20)
    fleet.market.trade("NYSE")
    fleet.market.enrol(T0=(30, "NYSE"))
    fleet.drain()
    for name in ("one", "two"):
        fleet.start(name)
    wait_until(lambda: fleet.leader() and fleet.pushed, seconds=20)
    name, token = fleet.leader()
    fleet.running[name].kill()
    killed = CLOCK.monotonic()
    wait_until(lambda: (now := fleet.leader()) is not None and now[1] > token, seconds=8)
    assert CLOCK.monotonic() - killed < 4.0
    wait_until(
        lambda: not fleet.market.ask("SELECT 1 FROM sweep_slots WHERE pushed_at IS NULL"),
        seconds=5,
        what="every claimed slot is pushed",
    )


def test_sigterm_gives_the_lease_back_within_a_second(make_fleet, wait_until):
    fleet = make_fleet("2024-12-02T15:00", speed=60)
    fleet.market.trade("NYSE")
    fleet.market.enrol(T0=(30, "NYSE"))
    fleet.drain()
    for name in ("one", "two"):
        fleet.start(name)
    wait_until(lambda: fleet.leader() and fleet.pushed, seconds=20)
    name, token = fleet.leader()
    fleet.running[name].terminate()
    asked = CLOCK.monotonic()
    wait_until(lambda: (now := fleet.leader()) is not None and now[1] > token, seconds=5)
    assert CLOCK.monotonic() - asked < 1.5
    assert fleet.running[name].wait(timeout=5) == 0
    assert "Traceback" not in fleet.log(name)


def test_a_leader_rides_out_the_loss_of_both_servers(make_fleet, make_home, wait_until):
    home = make_home()
    valkey = ValkeyServer.start(home, durable=False)
    fleet = make_fleet("2024-12-02T15:00", speed=60, redis_url=valkey.url)
    fleet.market.trade("NYSE")
    fleet.market.enrol(T0=(30, "NYSE"))
    fleet.start("one")
    wait_until(lambda: fleet.redis.llen("rq:queue:collect:T0") > 0, seconds=20)

    valkey.stop()
    with connect(fleet.market.url) as owner:
        owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gapless-scheduler'"
        )
    wait_until(lambda: fleet.health("one").get("troubled"), seconds=20)
    ValkeyServer.start(home, durable=False)

    wait_until(lambda: fleet.redis.llen("rq:queue:collect:T0") > 0, seconds=20)
    wait_until(lambda: fleet.health("one")["troubled"] == [], seconds=20)
    assert fleet.running["one"].poll() is None
    assert "Traceback" not in fleet.log("one")


def test_the_end_of_a_half_day_replayed_at_160x_has_exactly_its_slots(make_fleet, wait_until):
    fleet = make_fleet("2024-11-29T17:40", speed=1)
    fleet.market.trade("NYSE")
    fleet.market.enrol(T0=(30, "NYSE"))
    fleet.market.enrol(T1=(70, "NYSE"))
    # The process takes a while to come up; the market runs when it is there.
    fleet.start("one", CADENCE_T0__quotes_l1="60", CADENCE_T1__quotes_l1="300")
    fleet.drain()
    wait_until(fleet.leader, seconds=20)
    wait_until(lambda: "sweep takes over" in fleet.log("one"), seconds=20)
    fleet.market.jump("2024-11-29T17:45:30", speed=160)
    wait_until(lambda: fleet.market.clock.now() > at("2024-11-29T18:12"), seconds=30)

    rows = fleet.market.ask(
        "SELECT kind, tier, slot_ts, phase, pushed_at IS NOT NULL, jobs FROM sweep_slots"
        " WHERE slot_ts >= '2024-11-29T17:48Z' AND slot_ts < '2024-11-29T18:12Z'"
    )
    count = defaultdict(int)
    for kind, tier, _, _, pushed, jobs in rows:
        assert pushed
        assert jobs > 0
        count[kind, tier] += 1
    # T0 bars: 17:48 to 18:01. T0 quotes: two phases a minute from 17:48 to 17:59.
    assert count["bars_1m", "T0"] == 14
    assert count["quotes_l1", "T0"] == 24
    # T1: four phases every five minutes. Quotes of the cycles 17:50 and 17:55. Bars of the cycles
    # 17:50, 17:55 and 18:00, and those of 18:05 that still see a minute not asked since it settled:
    # phase 0 at 18:05 looks back to 17:59.
    assert count["quotes_l1", "T1"] == 8
    assert count["bars_1m", "T1"] == 13


def test_without_a_sweep_gaps_are_still_dispatched(make_fleet, wait_until):
    fleet = make_fleet("2024-12-02T15:00", speed=1)
    fleet.market.trade("NYSE")
    fleet.market.enrol(T0=(3, "NYSE"))
    fleet.start("one", LOCAL_SWEEP_ENABLED="false", BACKFILL_BATCH_SIZE="2")
    wait_until(lambda: fleet.redis.llen("rq:queue:backfill:T0") > 0, seconds=20)
    wait_until(
        lambda: (
            fleet.market.ask("SELECT count(*) FROM backfill_jobs WHERE dispatched_at IS NOT NULL")
            == [(3,)]
        ),
        seconds=5,
    )
    assert fleet.redis.llen("rq:queue:backfill:T0") == 2, "three rows, two to a job"
    assert fleet.market.ask("SELECT count(*) FROM sweep_slots") == [(0,)]
    assert "nothing makes live jobs" in fleet.log("one")


def test_pushed_rows_that_nobody_takes_are_pushed_again(make_fleet, wait_until):
    fleet = make_fleet("2024-12-02T13:00", speed=1)
    fleet.market.trade("NYSE")
    fleet.market.enrol(T0=(1, "NYSE"))
    (symbol_id,) = fleet.market.ids().values()
    window = Window(at("2024-11-27T15:00"), at("2024-11-27T16:00"))
    (job_id,) = backfill.enqueue(
        fleet.market.db, [NewJob(symbol_id, Interval.M1, window, Tier.T0, "operator")]
    )
    fleet.start("one")
    wait_until(lambda: fleet.redis.llen("rq:queue:backfill:T0") == 1, seconds=20)
    fleet.redis.flushall()
    # As when the dispatch has run out.
    fleet.market.ask(
        "UPDATE backfill_jobs SET dispatched_until = clock_timestamp() WHERE job_id = %s RETURNING 1",
        job_id,
    )
    wait_until(lambda: fleet.redis.llen("rq:queue:backfill:T0") == 1, seconds=5)


def test_calendars_and_ranks_are_published_when_they_are_missing(make_fleet, wait_until):
    fleet = make_fleet("2024-12-02T15:00", speed=20)
    fleet.market.enrol(T0=(1, "NYSE"))
    fleet.market.enrol(T1=(1, "24/7"))
    fleet.start("one", POLICY_BARS_1M="yfinance,finnhub|csv")
    wait_until(lambda: len(fleet.market.ask("SELECT 1 FROM calendar_versions")) == 2, seconds=40)
    assert fleet.market.ask(
        "SELECT rank, provider FROM source_rank WHERE capability = 'bars_1m' ORDER BY position"
    ) == [(0, "yfinance"), (1, "finnhub"), (1, "csv")]
    wait_until(
        lambda: fleet.market.ask("SELECT 1 FROM sweep_slots WHERE kind = 'bars_1m'"), seconds=20
    )


def test_a_settings_file_with_mistakes_names_them_and_exits_with_two(tmp_path: Path):
    (tmp_path / "bad.env").write_text("LIVE_BATCH_SIZE=0\nPOLICY_BARS_1M=a,,b\n")
    done = subprocess.run(
        [sys.executable, "-m", "scheduler", "--env-file", str(tmp_path / "bad.env")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "LIVE_BATCH_SIZE" in done.stderr
    assert "POLICY_BARS_1M" in done.stderr
    assert "Traceback" not in done.stderr
