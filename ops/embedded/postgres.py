"""A PostgreSQL server of our own: started, found again, stopped."""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from core.clock import Clock, SystemClock
from ops.embedded.binaries import PostgresBinaries, Prefer, find_postgres
from ops.embedded.cluster import DATABASE, ROLE, Cluster
from ops.embedded.errors import ServerStartError
from ops.embedded.home import Home
from ops.embedded.place import Place
from ops.embedded.ports import LOOPBACK
from ops.embedded.running import Running, find_running, stop_process
from ops.embedded.sizing import has_shared_memory, memory_bytes, postgres_settings, render
from ops.embedded.starting import READY_S, IfRunning, Progress, Start
from ops.supervise.identity import ProcessIdentity, children_of, is_alive, send, wait_gone
from ops.supervise.logs import tail

NAME = "postgres"
_STATUS_LINE = 7
"""Of ``postmaster.pid``, counted from 0: what ``pg_ctl`` waits for."""
_STOP_FIRST_S = 30.0


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A server that accepts connections."""

    home: Home
    running: Running
    clock: Clock

    @property
    def url(self) -> str:
        """Where and as whom to connect; holds the password."""
        password = self.home.secret(NAME)
        return f"postgresql://{ROLE}:{password}@{LOOPBACK}:{self.running.port}/{DATABASE}"

    @property
    def pid(self) -> int:
        """Process id of the postmaster."""
        return self.running.identity.pid

    @property
    def port(self) -> int:
        """On the loopback interface."""
        return self.running.port

    @property
    def bin_dir(self) -> Path:
        """Folder of the programs that it runs from."""
        return Path(str(self.running.launch["bin_dir"]))

    @property
    def version(self) -> str:
        """Such as ``18.6``."""
        return str(self.running.launch["version"])

    @property
    def preload(self) -> tuple[str, ...]:
        """Of the libraries asked for, those that it loaded."""
        return tuple(self.running.launch["preload"])

    @classmethod
    def start(
        cls,
        home: Home,
        *,
        durable: bool = True,
        port: int | None = None,
        prefer: Prefer = "wheel",
        bin_dir: Path | None = None,
        preload: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
        if_running: IfRunning = "adopt",
        ready_s: float = READY_S,
        progress: Progress | None = None,
        clock: Clock | None = None,
    ) -> Self:
        """Start the server of this home, or take over the one that runs. It outlives us.

        Args:
            home: Where its data belongs.
            durable: False: faster; a crash of the machine may lose all, a killed server nothing.
            port: On the loopback interface; None: the last one if it is free, else any free one.
            prefer: Which installation comes first, the wheel's or the system's.
            bin_dir: This installation and no other.
            preload: Libraries to load at its start where the installation has them.
            settings: More settings, or other values than ours.
            if_running: What to do with a server of this home that an earlier owner left: ``adopt``
                it if it was started as asked here, else (or with ``restart``) stop it first.
            ready_s: Real seconds until it must accept connections.
            progress: Told in words how a long start gets on, every 2 s.
            clock: For waiting.

        Raises:
            ServerError: one of ``ops.embedded.errors``, with the mend.
        """
        clock = clock or SystemClock()
        cluster = Cluster(home.place())
        with home.starting(NAME):
            binaries = find_postgres(
                cluster.place,
                bin_dir=bin_dir,
                prefer=prefer,
                preload=preload,
                data_major=cluster.major(),
            )
            launch: dict[str, Any] = {
                "bin_dir": str(binaries.bin_dir),
                "version": binaries.version,
                "preload": list(binaries.preload),
                "durable": durable,
                "settings": dict(settings or {}),
            }
            recipe = _PostgresRecipe(home, cluster, binaries, launch, clock)
            running = Start(home, recipe, clock, ready_s, progress).run(if_running, port)
            return cls(home, running, clock)

    @classmethod
    def find(cls, home: Home, *, clock: Clock | None = None) -> Self | None:
        """The server of this home if one runs and is ours; starts and changes nothing."""
        place = home.known_place()
        running = _find(home, Cluster(place)) if place is not None else None
        return cls(home, running, clock or SystemClock()) if running is not None else None

    def alive(self) -> bool:
        """Whether the process lives."""
        return is_alive(self.running.identity)

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the server and all its processes; stopping twice changes nothing.

        Sessions are ended and a checkpoint is written. When that takes longer than ``timeout_s``
        real seconds, it is cut short, and the next start recovers from the log.

        Raises:
            ServerStartError: when the process can't be ended.
        """
        _stop(self.running.identity, timeout_s, self.clock)


@dataclass(frozen=True, slots=True)
class _PostgresRecipe:
    home: Home
    cluster: Cluster
    binaries: PostgresBinaries
    launch: Mapping[str, Any]
    clock: Clock

    @property
    def name(self) -> str:
        return NAME

    @property
    def title(self) -> str:
        return f"PostgreSQL {self.binaries.version}"

    @property
    def place(self) -> Place:
        return self.cluster.place

    def find(self) -> Running | None:
        return _find(self.home, self.cluster)

    def may_adopt(self) -> bool:
        return self.cluster.has_password(self.home.secret(NAME))

    def stop(self, identity: ProcessIdentity) -> None:
        _stop(identity, _STOP_FIRST_S, self.clock)

    def prepare(self) -> None:
        durable = bool(self.launch["durable"])
        password = self.home.secret(NAME)
        # Of a dead server whose id a stranger or a zombie has now: PostgreSQL takes any process of
        # that id for the old server. That no old session still uses the data it checks itself.
        (self.cluster.data / "postmaster.pid").unlink(missing_ok=True)
        self.cluster.create(self.binaries, password, durable=durable)
        self.cluster.set_password(self.binaries, password)
        settings = postgres_settings(
            durable=durable,
            preload=self.binaries.preload,
            memory=memory_bytes(),
            shared_memory=has_shared_memory(),
        )
        self.cluster.configure(render(settings | dict(self.launch["settings"])))

    def command(self, port: int) -> Sequence[str | Path]:
        ours = {
            "config_file": self.cluster.config,
            "hba_file": self.cluster.access,
            "listen_addresses": LOOPBACK,
            "port": port,
            # A folder's path may be longer than a socket's name can be; TCP works everywhere.
            "unix_socket_directories": "",
        }
        options = [part for name, value in ours.items() for part in ("-c", f"{name}={value}")]
        return [self.binaries.bin_dir / "postgres", "-D", self.cluster.data, *options]

    def waiting_for(self, pid: int, port: int) -> str | None:
        del port  # The server tells on its pid file whether it accepts connections.
        try:
            lines = (self.cluster.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            lines = []
        own = bool(lines) and lines[0].strip() == str(pid)
        if own and len(lines) > _STATUS_LINE and lines[_STATUS_LINE].strip() == "ready":
            return None
        said = tail(self.home.log_path(NAME), lines=1)
        return said.partition("LOG:")[2].strip() or said.strip() or "no word yet"


def _find(home: Home, cluster: Cluster) -> Running | None:
    return find_running(
        home,
        NAME,
        pid_file=cluster.data / "postmaster.pid",
        program="postgres",
        mark=str(cluster.data),
    )


def _stop(identity: ProcessIdentity, timeout_s: float, clock: Clock) -> None:
    sessions = children_of(identity.pid)
    # Fast, then at once, then by force: https://www.postgresql.org/docs/current/server-shutdown.html
    steps = ((signal.SIGINT, timeout_s), (signal.SIGQUIT, 2.0), (signal.SIGKILL, 2.0))
    if not stop_process(identity, steps, clock):
        raise ServerStartError(
            f"PostgreSQL (process {identity.pid}) does not end, not even by force; see what it "
            f"waits for with `ps -o pid,stat,wchan,args {identity.pid}`"
        )
    for session in sessions:
        # They end with the postmaster, unless it was killed while they were busy.
        if not wait_gone(session, 1.0, clock):
            send(session, signal.SIGKILL)
            wait_gone(session, 1.0, clock)
