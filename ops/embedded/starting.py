"""How any server of ours is started: taken over or stopped, given a port, waited for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from core.clock import Clock
from ops.embedded.errors import PortTakenError, ServerStartError, folder_error, start_error
from ops.embedded.home import Home
from ops.embedded.launch import collect, spawn
from ops.embedded.place import Place
from ops.embedded.ports import LOOPBACK, free_port, is_free
from ops.embedded.running import Running, last_port, remember
from ops.supervise.identity import ProcessIdentity, identify, is_alive
from ops.supervise.logs import open_log, tail

IfRunning = Literal["adopt", "restart"]
Progress = Callable[[str], None]
READY_S = 600.0
"""Real seconds that a start may take: reading gigabytes of log after a crash takes minutes."""
_PORT_ATTEMPTS = 5
_OLD_PROCESSES_S = 20.0
_POLL_S = 0.01
_REPORT_S = 2.0
_PORT_SIGNS = ("could not bind", "already in use")
_BUSY_SIGN = "still in use"


class Recipe(Protocol):
    """What differs between servers."""

    @property
    def name(self) -> str:
        """Of its log, its record and its secret."""
        ...

    @property
    def title(self) -> str:
        """For people."""
        ...

    @property
    def place(self) -> Place:
        """Where its data lies and as whom it runs."""
        ...

    @property
    def launch(self) -> Mapping[str, Any]:
        """How it is to be started; a running server with an equal one is as good as a new one."""
        ...

    def find(self) -> Running | None:
        """The server of this home, if it runs."""
        ...

    def may_adopt(self) -> bool:
        """Whether a running server can still be reached with what we know."""
        ...

    def stop(self, identity: ProcessIdentity) -> None:
        """End a running one."""
        ...

    def prepare(self) -> None:
        """Make its data ready for a start; called once, when none runs."""
        ...

    def command(self, port: int) -> Sequence[str | Path]:
        """Program and arguments, configured for this port."""
        ...

    def waiting_for(self, pid: int, port: int) -> str | None:
        """Why it is not ready yet, in words; None when it is."""
        ...


@dataclass(frozen=True, slots=True)
class Start:
    """One start of one server."""

    home: Home
    recipe: Recipe
    clock: Clock
    ready_s: float
    progress: Progress | None

    def run(self, if_running: IfRunning, port: int | None) -> Running:
        """Take over the server that runs, or start one. The caller holds the home's start lock.

        Raises:
            ServerError: one of ``ops.embedded.errors``, with the mend.
        """
        found = self.recipe.find()
        if found is not None:
            same = found.launch == self.recipe.launch and port in {None, found.port}
            if if_running == "adopt" and same and self.recipe.may_adopt():
                if self._becomes_ready(found.identity, found.port):
                    return found
            else:
                self.recipe.stop(found.identity)
        try:
            self.recipe.prepare()
        except OSError as error:
            doing = f"preparing {self.recipe.title}"
            raise folder_error(error, self.recipe.place.folder, doing) from error
        return self._fresh(port)

    def _fresh(self, port: int | None) -> Running:
        deadline = self.clock.monotonic() + _OLD_PROCESSES_S
        attempts = 0
        while True:
            chosen = self._choose_port(port, first=attempts == 0)
            running, said = self._try_start(chosen)
            if running is not None:
                return running
            if _BUSY_SIGN in said and self.clock.monotonic() < deadline:
                # The sessions of a killed server notice its death within moments.
                self.clock.sleep(0.2)
            elif any(sign in said for sign in _PORT_SIGNS):
                attempts += 1
                if port is not None or attempts >= _PORT_ATTEMPTS:
                    raise self._port_taken(chosen)
            else:
                log = self.home.log_path(self.recipe.name)
                what = f"{self.recipe.title} does not start (its log is {log})"
                raise start_error(what, said, self.recipe.place.folder)

    def _try_start(self, port: int) -> tuple[Running | None, str]:
        """Start on this port; returns the server, or what it said before it ended."""
        name, title = self.recipe.name, self.recipe.title
        try:
            command = self.recipe.command(port)
            with open_log(self.home.path, name) as log:
                offset = log.tell()
                pid = spawn(command, self.recipe.place, log)
        except OSError as error:
            raise folder_error(error, self.home.path, f"starting {title}") from error
        identity = identify(pid)
        if identity is not None:
            running = Running(identity, port, self.recipe.launch)
            # Before it is ready: if we die while it recovers, the next start must find it.
            remember(self.home, name, running)
            if self._becomes_ready(identity, port):
                return running, ""
        collect(pid)
        return None, tail(self.home.log_path(name), offset=offset, lines=50)

    def _becomes_ready(self, identity: ProcessIdentity, port: int) -> bool:
        """Wait until the server accepts work; False when it ends before."""
        title, log = self.recipe.title, self.home.log_path(self.recipe.name)
        started = self.clock.monotonic()
        report_at = started + _REPORT_S
        while (reason := self.recipe.waiting_for(identity.pid, port)) is not None:
            if not is_alive(identity):
                return False
            now = self.clock.monotonic()
            if now - started >= self.ready_s:
                raise ServerStartError(
                    f"{title} (process {identity.pid}) is not ready after {self.ready_s:.0f} s: "
                    f"{reason} (its log is {log}); it goes on, start again to wait for it"
                )
            if self.progress is not None and now >= report_at:
                report_at = now + _REPORT_S
                self.progress(f"{title} is starting: {reason}")
            self.clock.sleep(_POLL_S)
        return True

    def _choose_port(self, port: int | None, *, first: bool) -> int:
        if port is None:
            return free_port(last_port(self.home, self.recipe.name) if first else None)
        if not is_free(port):
            raise self._port_taken(port)
        return port

    def _port_taken(self, port: int) -> PortTakenError:
        return PortTakenError(
            f"{self.recipe.title} can't listen on port {port} of {LOOPBACK}: another program has "
            "it; stop that program or choose another port"
        )
