"""A whole gapless on one machine: servers, schema, simulator if asked, every process kind.

`ops up` and `ops demo` call the steps in the same order and differ in what they hand over.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from core.clock import Clock, Segment
from core.errors import GaplessError
from core.settings import environment
from db import calendars
from db.clock import connect_clock, set_replay
from db.migrate import migrate
from db.pool import Database, connect
from ops.embedded.home import Home
from ops.embedded.postgres import PostgresServer
from ops.embedded.valkey import ValkeyServer
from ops.stack_file import StackInfo, remove_stack, write_stack
from ops.supervise.process import Process
from ops.supervise.records import own_identity
from ops.supervise.supervisor import Supervisor

_READY_S = 60.0
_SIM_RANK = 100
"""The simulator outlives every process that asks it."""


class StackError(GaplessError):
    """A part of the local stack did not come up."""

    code = "stack"


@dataclass(frozen=True, slots=True)
class Kind:
    """One process of the stack: its name and the words after ``python -m``."""

    name: str
    words: tuple[str, ...]
    stop_rank: int = 1
    """Who makes work stops before who does it; equal ranks stop together."""


WORKERS = tuple(
    Kind(f"{role}-{tier.lower()}", ("workers", role, "--tier", tier))
    for role in ("collect", "backfill")
    for tier in ("T0", "T1", "T2")
)
SCHEDULER = Kind("scheduler", ("scheduler",), stop_rank=0)
INTAKE = Kind("intake", ("workers", "intake"), stop_rank=0)
EXPORTER = Kind("exporter", ("ops", "exporter"), stop_rank=2)
MEMORY = {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2:glibc.malloc.tcache_count=0"}
"""glibc gives threads an arena each, up to eight a core, keeps what each held at its largest, and lets each thread
hoard up to 236 kB of small pieces; a collector's 40 threads take turns at Python's lock and need little of it."""


@dataclass(slots=True)
class Stack:
    """The parts of one state folder. ``close`` ends everything in order and may be called at any time."""

    command: str
    """What was typed to start it, such as ``ops up``."""
    home: Home
    clock: Clock
    """Real time."""
    say: Callable[[str], None]
    supervisor: Supervisor = field(init=False)
    env: dict[str, str] = field(default_factory=dict[str, str])
    """Settings that every process runs with, on top of the shell's."""
    _closing: ExitStack = field(default_factory=ExitStack)
    _calendars: "subprocess.Popen[str] | None" = None

    def __post_init__(self) -> None:
        self.supervisor = Supervisor(self.home, self.clock)

    def open(self) -> None:
        """Take the folder and clean up after a run that was killed.

        Raises:
            AlreadyRunningError: another stack runs in this folder; its message says which.
        """
        self._closing.enter_context(self.home.lock(self.command))
        self._closing.callback(remove_stack, self.home.path)
        ended = self.supervisor.start()
        self._closing.callback(self.supervisor.stop)
        if ended:
            self.say(f"cleaned up after a run that was killed: {', '.join(ended)}")

    def start_sim(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Start the simulated market; returns its endpoints.

        Raises:
            StackError: it refuses its configuration or does not come up.
        """
        path, answer = self.home.path / "sim.json", self.home.path / "run" / "sim.endpoints.json"
        path.write_text(json.dumps({**config, "endpoints_file": str(answer)}))
        answer.unlink(missing_ok=True)
        words = [sys.executable, "-m", "sim", "--config", str(path)]
        self.supervisor.add(Process("sim", words, stop_rank=_SIM_RANK, restart=False))
        self.supervisor.start()
        deadline = self.clock.monotonic() + _READY_S
        while not answer.exists():
            self.supervisor.poll()
            if "sim" not in self.supervisor.alive() or self.clock.monotonic() > deadline:
                raise StackError(
                    f"the simulator did not start; the end of its log:\n{self._tail('sim')}"
                )
            self.clock.sleep(0.02)
        return json.loads(answer.read_text())

    def begin_calendars(self, names: Sequence[str], first: date, last: date) -> None:
        """Start building session arrays in a process of their own; ``prepare`` publishes them."""
        words = [*names, "--start", first.isoformat(), "--end", last.isoformat()]
        self._calendars = subprocess.Popen(
            [sys.executable, "-m", "core.sessions_build", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._closing.callback(_end, self._calendars)

    def start_servers(
        self, *, database_url: str | None, redis_url: str | None, durable: bool
    ) -> None:
        """Start the embedded servers that the user did not bring."""
        with ThreadPoolExecutor(2) as pool:
            postgres = pool.submit(self._postgres, database_url, durable=durable)
            valkey = pool.submit(self._valkey, redis_url, durable=durable)
            self.env["DATABASE_URL"], self.env["REDIS_URL"] = postgres.result(), valkey.result()

    @property
    def database_url(self) -> str:
        return self.env["DATABASE_URL"]

    @property
    def redis_url(self) -> str:
        return self.env["REDIS_URL"]

    def prepare(self, replay: tuple[str, Sequence[Segment]] | None = None) -> Clock:
        """Bring the schema up, mark the market clock, publish calendars; returns the market clock."""
        migrate(self.database_url, clock_mode="replay" if replay else "system")
        if replay:
            with connect(self.database_url, application="gapless-ops") as conn:
                set_replay(conn, *replay)
        market = connect_clock(self.database_url)
        if self._calendars is not None:
            output, errors = self._calendars.communicate(timeout=_READY_S)
            if self._calendars.returncode:
                raise StackError(f"calendars could not be built: {errors.strip()}")
            db = Database(self.database_url, market, max_size=1, application="gapless-ops")
            try:
                for line in output.splitlines():
                    calendars.publish(db, json.loads(line))
            finally:
                db.close()
        return market

    def publish(self, sim_admin: str | None) -> None:
        """Let the commands typed in this folder find the stack."""
        shared = {
            key: value
            for key, value in self.env.items()
            if not key.endswith("_URL") or "BASE" in key
        }
        info = StackInfo(
            self.command, self.database_url, self.redis_url, sim_admin, shared, own_identity()
        )
        write_stack(self.home.path, info)

    def start_processes(self, kinds: Sequence[Kind]) -> None:
        """Start process kinds and wait until each answers its health check.

        Raises:
            StackError: one does not, with the end of its log.
        """
        for kind in kinds:
            self.supervisor.add(self._process(kind))
        self.supervisor.start()
        deadline = self.clock.monotonic() + _READY_S
        waiting = [kind.name for kind in kinds]
        while waiting:
            self.supervisor.poll()
            waiting = [name for name in waiting if not self.healthy(name)]
            if waiting and self.clock.monotonic() > deadline:
                raise StackError(
                    f"{waiting[0]} is not ready after {_READY_S:.0f} s; the end of its log:\n{self._tail(waiting[0])}"
                )
            self.clock.sleep(0.05)

    def healthy(self, name: str) -> bool:
        """Whether a process answers its health check now."""
        try:
            port = int(self._port_file(name).read_text())
            with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1) as answer:
                return answer.status == 200
        except (OSError, ValueError, URLError):
            return False

    def run_tool(self, module: str, *words: str) -> int:
        """Run one of our modules to its end, its talk in the log of that name; returns its exit code."""
        with self.home.log_path(module).open("ab") as log:
            done = subprocess.run(
                [sys.executable, "-m", module, *words], stdout=log, stderr=log, check=False
            )
        return done.returncode

    def close(self) -> None:
        """Stop processes, simulator and servers, in that order, within seconds."""
        self._closing.close()

    def _postgres(self, url: str | None, *, durable: bool) -> str:
        if url:
            return url
        self._tell_adopted("PostgreSQL", PostgresServer.find(self.home))
        server = PostgresServer.start(self.home, durable=durable)
        self._closing.callback(server.stop)
        # The supervisor was registered before the servers, so it would stop after them: again, later.
        self._closing.callback(self.supervisor.stop)
        return server.url

    def _valkey(self, url: str | None, *, durable: bool) -> str:
        if url:
            return url
        self._tell_adopted("Valkey", ValkeyServer.find(self.home))
        server = ValkeyServer.start(self.home, durable=durable)
        self._closing.callback(server.stop)
        self._closing.callback(self.supervisor.stop)
        return server.url

    def _tell_adopted(self, name: str, running: object | None) -> None:
        if running is not None:
            self.say(f"taking over the {name} that a killed run left running")

    def _tail(self, name: str) -> str:
        path = self.home.log_path(name)
        return (
            "\n".join(path.read_text(errors="replace").splitlines()[-15:])
            if path.exists()
            else "(none)"
        )

    def _port_file(self, name: str) -> Path:
        return self.home.path / "run" / f"{name}.port"

    def _process(self, kind: Kind) -> Process:
        port_file = self._port_file(kind.name)
        port_file.unlink(missing_ok=True)
        own = {"GAPLESS_HOME": str(self.home.path), "METRICS_PORT": "0"}
        argv = [sys.executable, "-m", *kind.words, "--port-file", str(port_file)]
        env = {**MEMORY, **environment(), **self.env, **own}
        return Process(kind.name, argv, env, stop_rank=kind.stop_rank)


def _end(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        process.kill()
        process.wait()
