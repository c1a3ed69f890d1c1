"""A whole gapless on this machine: servers behind proxies, a simulated market, every process kind."""

import math
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit, urlunsplit

from redis import Redis

from chaos import ambush
from chaos.proxy import Proxy
from chaos.schedule import PROCESSES
from core.clock import Clock, ReplayClock, Segment, market_at, real_timestamp
from core.exchanges import calendar_of
from core.words import Tier
from db import universe
from db.clock import announce_segment
from db.pool import Database, connect
from ops.demo import scenario
from ops.demo.options import DemoOptions
from ops.demo.watch import SimAdmin
from ops.embedded.home import Home
from ops.embedded.postgres import PostgresServer
from ops.embedded.valkey import ValkeyServer
from ops.stack import EXPORTER, INTAKE, SCHEDULER, WORKERS, Kind, Stack
from ops.supervise.identity import wait_gone

LISTS: Final = ("market:jobs", "market:backfills:T0", "market:backfills:T1", "market:backfills:T2")
"""Of the coordinator, by the default settings."""
SESSION: Final = date(2026, 3, 3)
_BEFORE: Final = timedelta(seconds=15)
"""Market time that passes while the processes come up."""
TAIL: Final = timedelta(minutes=6)
"""Market time after the judged window in which its last gaps are found and filled."""
_NOTICE_S = 3.5
"""Real seconds for which a new speed is announced; every process has to know of it, however busy."""
_SLACK = 4 / 3
"""The market enforces a third more than our processes know of. Where a second is a minute, a call that the machine
holds up for a twentieth of a second arrives three market seconds late, more than any margin at 1x; what forgets
or doubles a budget goes over by more than a third."""
_SPARE_NAMES: Mapping[str, str] = {"scheduler-2": "scheduler", "intake-2": "intake"}
_WORDS = {kind.name: kind for kind in (SCHEDULER, INTAKE, EXPORTER, *WORKERS)}


@dataclass(frozen=True, slots=True)
class Plan:
    """How big a world is and how fast its market goes."""

    seed: int
    symbols: int
    minutes: int
    """Market minutes that are replayed and judged, from the open."""
    speed: float
    mutation: str | None = None
    """The safety that is switched off in every process."""

    @property
    def replay_s(self) -> float:
        """Real seconds of the judged minutes."""
        return self.minutes * 60 / self.speed


@dataclass(slots=True)
class World:
    """Everything of one run; ``close`` ends it and may be called at any time."""

    plan: Plan
    home: Home
    clock: Clock
    """Real time."""
    command: str = "make chaos"
    """What was typed to start it."""
    stack: Stack = field(init=False)
    sim: SimAdmin = field(init=False)
    times: scenario.Timeline = field(init=False)
    db: Database = field(init=False)
    """Past the proxy."""
    redis: Redis = field(init=False)
    """Past the proxy."""
    proxies: dict[str, Proxy] = field(default_factory=dict[str, Proxy])
    """By the link that a schedule names."""
    processes: Sequence[str] = PROCESSES
    segments: list[Segment] = field(default_factory=list[Segment])
    tiers: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Symbols by tier."""
    symbol_ids: dict[str, int] = field(default_factory=dict[str, int])
    limits: Mapping[str, Any] = field(default_factory=dict[str, Any])
    _postgres: PostgresServer = field(init=False)
    _valkey: ValkeyServer = field(init=False)
    _closing: ExitStack = field(default_factory=ExitStack)

    def open(self) -> None:
        """Start everything; the market stands almost still until ``go``."""
        self.stack = Stack(self.command, self.home, self.clock, lambda _: None)
        self._closing.callback(self.stack.close)
        shutil.rmtree(self.home.path / "logs", ignore_errors=True)
        self.stack.open()
        self._open_market()
        self._open_servers()
        self._open_database()
        self.stack.start_processes([self._kind(name) for name in self.processes])

    def go(self) -> float:
        """Let the market run; returns the real second (monotonic) at which it does."""
        start = real_timestamp() + _NOTICE_S
        segment = Segment(start, market_at(self.segments, start), self.plan.speed)
        self.segments.append(segment)
        with connect(self.direct_url, application="gapless-chaos") as conn:
            announce_segment(conn, segment)
        self.sim.post("/admin/clock", {"segments": [_row(one) for one in self.segments]})
        if isinstance(self.db.clock, ReplayClock):
            self.db.clock.update(self.segments)
        return self.clock.monotonic() + _NOTICE_S

    @property
    def direct_url(self) -> str:
        """Of the database, past the proxy."""
        return self._postgres.url

    @property
    def stack_file(self) -> Path:
        """For the checker; it goes past the proxies."""
        return self.home.path / "stack.json"

    def stop_postgres(self) -> bool:
        """Stop it immediately, as a crash would; returns whether it ran."""
        alive = self._postgres.alive()
        os.kill(self._postgres.pid, signal.SIGQUIT)
        wait_gone(self._postgres.running.identity, 10.0, self.clock)
        return alive

    def start_postgres(self) -> None:
        """Start it on the data and the port that it had."""
        self._postgres = PostgresServer.start(self.home, durable=False, port=self._postgres.port)

    def stop_redis(self, *, by_force: bool) -> bool:
        """Stop it orderly or by SIGKILL; returns whether it ran."""
        alive = self._valkey.alive()
        if by_force:
            os.kill(self._valkey.pid, signal.SIGKILL)
            wait_gone(self._valkey.running.identity, 10.0, self.clock)
        else:
            self._valkey.stop()
        return alive

    def start_redis(self) -> None:
        """Start it on the append-only file and the port that it had."""
        self._valkey = ValkeyServer.start(self.home, durable=True, port=self._valkey.port)

    def cut_append_only_file(self, count: int) -> int:
        """Take bytes off the end of the stopped server's file; returns how many it lost."""
        place = self.home.place()
        files = sorted((place.folder / "valkey" / "appendonlydir").glob("*.incr.aof"))
        if not files:
            return 0
        size = files[-1].stat().st_size
        kept = max(0, size - count)
        os.truncate(files[-1], kept)
        return size - kept

    def settle(self) -> None:
        """Undo what a fault may have left, so that the run can be judged."""
        for proxy in self.proxies.values():
            proxy.delay(0.0)
            proxy.accept()
        if not self._postgres.alive():
            self.start_postgres()
        if not self._valkey.alive():
            self.start_redis()
        for name in self.processes:
            self.stack.supervisor.kill(name, signal.SIGCONT)

    def close(self) -> None:
        """End everything, in order."""
        self._closing.close()

    def _open_market(self) -> None:
        log_file = self.home.path / "served.ndjson"
        log_file.unlink(missing_ok=True)
        options = DemoOptions(
            symbols=self.plan.symbols,
            session=SESSION,
            start=None,
            end=None,
            speed=self.plan.speed,
            seed=self.plan.seed,
            faults=[],
            bars=None,
            calendar=None,
            report=None,
            keep=False,
            budgets=True,
        )
        config = scenario.sim_config(options, str(log_file))
        self.limits = {name: source["limits"] for name, source in config["sources"].items()}
        enforced = {
            name: {**source, "limits": [_enforced(limit) for limit in source["limits"]]}
            for name, source in config["sources"].items()
        }
        endpoints = dict(self.stack.start_sim({**config, "sources": enforced}))
        self.sim = SimAdmin(endpoints["admin"])
        health = self.sim.get("/admin/health")
        opened = datetime.fromtimestamp(health["open"], UTC)
        end = opened + timedelta(minutes=self.plan.minutes)
        self.times = scenario.Timeline(
            opened - _BEFORE, opened, end, end + TAIL, whole_session=False
        )
        first = Segment(real_timestamp(), self.times.start.timestamp(), 1.0)
        self.segments = [first]
        self.sim.post("/admin/clock", {"segments": [_row(first)]})
        self.stack.env |= scenario.environment(options, endpoints, self.limits)
        self.stack.env |= {
            "USE_RLC": "true",
            "LOCAL_SWEEP_ENABLED": "true",
            "LOG_LEVEL": "INFO",
            # A slower tier would be judged long after the faults are over.
            "CADENCE_T1__bars_1m": "120",
            # The file of whoever starts this is none of ours.
            "ALLOW_SOURCE_OVERRIDE": "false",
        }
        listed = self.sim.get("/admin/universe")
        names = sorted({calendar_of(row["exchange"]) for row in listed})
        day = timedelta(days=1)
        self.stack.begin_calendars(names, SESSION - 10 * day, SESSION + 5 * day)

    def _open_servers(self) -> None:
        place = self.home.known_place()
        if place is not None:
            for folder in ("postgres", "valkey"):
                shutil.rmtree(place.folder / folder, ignore_errors=True)
        self._postgres = PostgresServer.start(self.home, durable=False)
        self._closing.callback(self._end_postgres)
        self._valkey = ValkeyServer.start(self.home, durable=True)
        self._closing.callback(self._end_redis)
        # The supervisor was registered before the servers, so it would stop after them: again, here.
        self._closing.callback(self.stack.supervisor.stop)
        for name, port in (("postgres", self._postgres.port), ("redis", self._valkey.port)):
            self.proxies[f"{name}-link"] = proxy = Proxy(port)
            self._closing.callback(proxy.close)
        self._closing.callback(self.stack.supervisor.stop)
        self.stack.start_servers(
            database_url=self._postgres.url, redis_url=self._valkey.url, durable=False
        )

    def _open_database(self) -> None:
        market = self.stack.prepare((f"chaos-{self.plan.seed}", self.segments))
        with connect(self.direct_url, application="gapless-chaos") as conn:
            ambush.prepare(conn)
        self.db = Database(
            self.direct_url, market, max_size=3, role=None, application="gapless-chaos"
        )
        self._closing.callback(self.db.close)
        self.redis = cast("Any", Redis).from_url(self._valkey.url, socket_timeout=5.0)
        self._closing.callback(self.redis.close)
        listed = self.sim.get("/admin/universe")
        universe.load(
            self.db,
            [
                (row["symbol"], Tier(row["tier"]), calendar_of(row["exchange"]), row["exchange"])
                for row in listed
            ],
            origin="chaos",
        )
        for row in listed:
            self.tiers.setdefault(row["tier"], []).append(row["symbol"])
        with self.db.transaction() as conn:
            rows = conn.execute("SELECT symbol, symbol_id FROM universe").fetchall()
        self.symbol_ids = dict(rows)
        # The checker and the commands of a person go straight to the servers, the processes do not.
        self.stack.publish(self.sim_admin)
        self.stack.env["DATABASE_URL"] = _through(self._postgres.url, self.proxies["postgres-link"])
        self.stack.env["REDIS_URL"] = _through(self._valkey.url, self.proxies["redis-link"])

    @property
    def sim_admin(self) -> str:
        """Address of the simulator's admin port."""
        return self.sim.base

    def _end_postgres(self) -> None:
        # Not the server of the beginning: it may have been started again.
        self._postgres.stop()

    def _end_redis(self) -> None:
        self._valkey.stop()

    def _kind(self, name: str) -> Kind:
        kind = _WORDS[_SPARE_NAMES.get(name, name)]
        words = kind.words
        if self.plan.mutation is not None:
            words = ("chaos.mutant", self.plan.mutation, *words)
        return Kind(name, words, kind.stop_rank)


def _enforced(limit: Mapping[str, Any]) -> dict[str, Any]:
    return {**limit, "units": math.ceil(limit["units"] * _SLACK)}


def _through(url: str, proxy: Proxy) -> str:
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{proxy.port}"))


def _row(segment: Segment) -> list[float]:
    return [segment.real_start, segment.market_start, segment.speed]
