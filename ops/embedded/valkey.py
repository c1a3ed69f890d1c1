"""A Valkey server of our own: started, found again, stopped."""

import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from core.clock import Clock, SystemClock
from ops.embedded.binaries import find_valkey
from ops.embedded.errors import ServerStartError
from ops.embedded.files import make_folder, write_file
from ops.embedded.home import Home
from ops.embedded.place import Place
from ops.embedded.ports import LOOPBACK
from ops.embedded.running import Running, find_running, stop_process
from ops.embedded.starting import READY_S, IfRunning, Progress, Start
from ops.supervise.identity import ProcessIdentity, is_alive

NAME = "valkey"
_STOP_FIRST_S = 10.0


@dataclass(frozen=True, slots=True)
class ValkeyServer:
    """A server that accepts commands."""

    home: Home
    running: Running
    clock: Clock

    @property
    def url(self) -> str:
        """Where to connect, database 0; holds the password."""
        return f"redis://:{self.home.secret(NAME)}@{LOOPBACK}:{self.running.port}/0"

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self.running.identity.pid

    @property
    def port(self) -> int:
        """On the loopback interface."""
        return self.running.port

    @classmethod
    def start(
        cls,
        home: Home,
        *,
        durable: bool = True,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        if_running: IfRunning = "adopt",
        ready_s: float = READY_S,
        progress: Progress | None = None,
        clock: Clock | None = None,
    ) -> Self:
        """Start the server of this home, or take over the one that runs. It outlives us.

        Args:
            home: Where its data belongs.
            durable: Keep an append-only file, synced every second; False: nothing is kept.
            port: On the loopback interface; None: the last one if it is free, else any free one.
            settings: More settings, or other values than ours.
            if_running: What to do with a server of this home that an earlier owner left: ``adopt``
                it if it was started as asked here, else (or with ``restart``) stop it first.
            ready_s: Real seconds until it must accept commands.
            progress: Told in words how a long start gets on, every 2 s.
            clock: For waiting.

        Raises:
            ServerError: one of ``ops.embedded.errors``, with the mend.
        """
        clock = clock or SystemClock()
        place = home.place()
        with home.starting(NAME):
            program = find_valkey(place)
            launch: dict[str, Any] = {
                "program": str(program),
                "durable": durable,
                "settings": dict(settings or {}),
            }
            recipe = _ValkeyRecipe(home, place, program, launch, clock)
            running = Start(home, recipe, clock, ready_s, progress).run(if_running, port)
            return cls(home, running, clock)

    @classmethod
    def find(cls, home: Home, *, clock: Clock | None = None) -> Self | None:
        """The server of this home if one runs and is ours; starts and changes nothing."""
        place = home.known_place()
        running = _find(home, place) if place is not None else None
        return cls(home, running, clock or SystemClock()) if running is not None else None

    def alive(self) -> bool:
        """Whether the process lives."""
        return is_alive(self.running.identity)

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the server, by force after ``timeout_s`` real seconds. Twice changes nothing.

        Raises:
            ServerStartError: when the process can't be ended.
        """
        _stop(self.running.identity, timeout_s, self.clock)


@dataclass(frozen=True, slots=True)
class _ValkeyRecipe:
    home: Home
    place: Place
    program: Path
    launch: Mapping[str, Any]
    clock: Clock
    name: str = NAME
    title: str = "Valkey"

    def find(self) -> Running | None:
        return _find(self.home, self.place)

    def may_adopt(self) -> bool:
        # It knows the password that its configuration was written with.
        return f'requirepass "{self.home.secret(NAME)}"' in _config(self.place).read_text()

    def stop(self, identity: ProcessIdentity) -> None:
        _stop(identity, _STOP_FIRST_S, self.clock)

    def prepare(self) -> None:
        make_folder(_data(self.place), account=self.place.account)

    def command(self, port: int) -> Sequence[str | Path]:
        settings = {
            "bind": LOOPBACK,
            "port": str(port),
            "requirepass": self.home.secret(NAME),
            "dir": str(_data(self.place)),
            "pidfile": str(_pid_file(self.place)),
            # The command line keeps our configuration's path: that is how it is found again.
            "set-proc-title": "no",
            "daemonize": "no",
            "logfile": "",
            "tcp-backlog": "128",
            "save": "",
            "appendonly": "yes" if self.launch["durable"] else "no",
            "appendfsync": "everysec",
            # A queue that silently drops work is worse than one that refuses it.
            "maxmemory-policy": "noeviction",
        } | dict(self.launch["settings"])
        text = "".join(f"{name} {_quoted(value)}\n" for name, value in settings.items())
        write_file(_config(self.place), text, account=self.place.account)
        return [self.program, _config(self.place)]

    def waiting_for(self, pid: int, port: int) -> str | None:
        del pid  # Our password is what tells it from a stranger on that port.
        try:
            with socket.create_connection((LOOPBACK, port), timeout=1.0) as connection:
                connection.sendall(f"AUTH {self.home.secret(NAME)}\r\nPING\r\n".encode())
                said = b""
                while said.count(b"\r\n") < 2 and (part := connection.recv(256)):
                    said += part
        except OSError as error:
            return error.strerror or str(error)
        answers = said.decode(errors="replace").split("\r\n")
        return None if answers[:2] == ["+OK", "+PONG"] else " ".join(answers).strip()


def _data(place: Place) -> Path:
    return place.folder / "valkey"


def _config(place: Place) -> Path:
    return place.folder / "valkey.conf"


def _pid_file(place: Place) -> Path:
    return _data(place) / "valkey.pid"


def _find(home: Home, place: Place) -> Running | None:
    return find_running(
        home,
        NAME,
        pid_file=_pid_file(place),
        program="valkey-server",
        mark=str(_config(place)),
    )


def _stop(identity: ProcessIdentity, timeout_s: float, clock: Clock) -> None:
    if not stop_process(identity, ((signal.SIGTERM, timeout_s), (signal.SIGKILL, 2.0)), clock):
        raise ServerStartError(
            f"Valkey (process {identity.pid}) does not end, not even by force; see what it "
            f"waits for with `ps -o pid,stat,wchan,args {identity.pid}`"
        )


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
