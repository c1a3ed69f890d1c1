"""Keeps a handful of child processes alive and ends them in order. Driven by ``poll``; no threads.

The loop of an owner::

    with StopSignals() as stop:
        supervisor.start()
        try:
            while not stop.requested:
                supervisor.poll()
                stop.wait(0.2)
        finally:
            supervisor.stop()

Call it from one thread that lives as long as the children: on Linux the kernel ties a child's life
to the thread that started it.
"""

import logging
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from core.clock import Clock
from core.settings import environment
from ops.supervise import child
from ops.supervise.errors import ProcessStartError
from ops.supervise.identity import ProcessIdentity, identify
from ops.supervise.logs import log_path, open_log
from ops.supervise.process import Process, ProcessEvent, ProcessState, ProcessStatus, exit_words
from ops.supervise.records import (
    RUN_MARK,
    ProcessRecord,
    kill_marked,
    own_identity,
    remove_record,
    stop_leftovers,
    write_record,
)

log = logging.getLogger(__name__)

LONGEST_PAUSE_S = 30.0
"""A process that keeps dying is started again after 1, 2, 4 ... and at most this many seconds."""
STEADY_S = 60.0
"""A process that lived this long has recovered: its next pause is 1 s again."""
STOP_S = 7.0
"""Seconds that all processes together get to end by themselves."""
_POLL_S = 0.02


@dataclass(slots=True)
class _Child:
    process: Process
    popen: subprocess.Popen[bytes] | None = None
    identity: ProcessIdentity | None = None
    started_at: float = 0.0
    starts: int = 0
    deaths_in_a_row: int = 0
    start_at: float | None = None
    last_exit: str | None = None
    events: list[ProcessEvent] = field(default_factory=list[ProcessEvent])


class Supervisor:
    """The processes of one state folder."""

    def __init__(self, home: str | os.PathLike[str], clock: Clock) -> None:
        self._state = Path(home)
        self._clock = clock
        self._children: dict[str, _Child] = {}
        self._run = uuid.uuid4().hex

    def add(self, process: Process) -> None:
        """Look after one more process; it is started by ``start``.

        Raises:
            ValueError: when the name is taken.
        """
        if process.name in self._children:
            raise ValueError(f"process {process.name} is there already; give each its own name")
        self._children[process.name] = _Child(process)

    def start(self) -> list[str]:
        """Start every process that does not run; returns the names of an earlier run's ended first.

        Raises:
            SupervisorRunningError: when another live supervisor owns this folder.
            ProcessStartError: when a program can't be executed; those started before it run on.
        """
        ended = stop_leftovers(self._state, self._clock) if not self.alive() else []
        for kept in self._children.values():
            if kept.popen is None:
                self._start(kept)
        return ended

    def poll(self) -> list[ProcessEvent]:
        """Notice deaths and start again what is due; returns what changed. Never waits."""
        now = self._clock.monotonic()
        for kept in self._children.values():
            if kept.popen is not None and _has_ended(kept.popen):
                self._bury(kept)
                if kept.process.restart:
                    self._postpone(kept, now)
            elif kept.start_at is not None and kept.start_at <= now:
                try:
                    self._start(kept)
                except ProcessStartError as error:
                    kept.last_exit = str(error)
                    self._postpone(kept, now)
        events = [event for kept in self._children.values() for event in kept.events]
        for kept in self._children.values():
            kept.events.clear()
        return events

    def alive(self) -> list[str]:
        """Names of the processes that run now."""
        return [
            name
            for name, kept in self._children.items()
            if kept.popen is not None and not _has_ended(kept.popen)
        ]

    def status(self) -> list[ProcessStatus]:
        """How each process fares, in the order in which they were added."""
        now = self._clock.monotonic()
        return [self._status(kept, now) for kept in self._children.values()]

    def kill(self, name: str, signum: int = signal.SIGKILL) -> int | None:
        """Signal one process, not its group; returns its id, None when it does not run."""
        kept = self._child(name)
        if kept.popen is None or _has_ended(kept.popen):
            return None
        os.kill(kept.popen.pid, signum)
        return kept.popen.pid

    def restart(self, name: str, *, grace_s: float = STOP_S) -> None:
        """End one process, by force after ``grace_s`` seconds, and start it again at once.

        Raises:
            ProcessStartError: when its program can't be executed.
        """
        kept = self._child(name)
        self._end([kept], grace_s)
        kept.deaths_in_a_row = 0
        self._start(kept)

    def stop(self, timeout_s: float = STOP_S) -> None:
        """End everything, rank by rank, and leave nothing behind. Stopping twice changes nothing."""
        self._end_in_order(list(self._children.values()), timeout_s)
        if any(kept.starts for kept in self._children.values()):
            kill_marked(self._run)
            remove_record(self._state)

    def stop_all_but(self, names: Collection[str], timeout_s: float = STOP_S) -> None:
        """End everything else, rank by rank; what was ended is not started again by ``poll``."""
        others = [kept for name, kept in self._children.items() if name not in names]
        self._end_in_order(others, timeout_s)
        self._write_record()

    def _end_in_order(self, children: list[_Child], timeout_s: float) -> None:
        """Ask each rank to end, then kill its process groups.

        A rank gets an equal share of the seconds that are left; what it does not need goes to the
        next.
        """
        deadline = self._clock.monotonic() + timeout_s
        ordered = sorted(children, key=lambda kept: kept.process.stop_rank)
        ranks = [list(same) for _, same in groupby(ordered, lambda kept: kept.process.stop_rank)]
        for number, same in enumerate(ranks):
            left = max(0.0, deadline - self._clock.monotonic())
            self._end(same, left / (len(ranks) - number))

    def _child(self, name: str) -> _Child:
        try:
            return self._children[name]
        except KeyError:
            known = ", ".join(self._children) or "none"
            raise ValueError(f"no process {name!r}; there are: {known}") from None

    def _start(self, kept: _Child) -> None:
        process = kept.process
        env = dict(environment() if process.env is None else process.env) | {RUN_MARK: self._run}
        if shutil.which(process.argv[0], path=env.get("PATH", os.defpath)) is None:
            raise ProcessStartError(
                f"can't start process {process.name}: no program {process.argv[0]} that we may "
                "run, nor one of that name on its PATH"
            )
        argv = [sys.executable, "-I", "-S", str(child.__file__), str(os.getpid()), *process.argv]
        try:
            with open_log(self._state, process.name) as output:
                kept.popen = subprocess.Popen(
                    argv,
                    env=env,
                    cwd=process.cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    # Its own session: Ctrl-C in the terminal reaches us alone; we stop in order.
                    start_new_session=True,
                )
        except OSError as error:
            raise ProcessStartError(
                f"can't start process {process.name}: {error.strerror}: {error.filename}"
            ) from error
        kept.identity = identify(kept.popen.pid)
        kept.started_at = self._clock.monotonic()
        kept.start_at = None
        kept.starts += 1
        kept.events.append(ProcessEvent(process.name, "started", f"pid {kept.popen.pid}"))
        self._write_record()

    def _bury(self, kept: _Child) -> None:
        """Collect a dead process and what is left of its group."""
        popen = kept.popen
        if popen is None:
            return
        # The dead leader still holds the group's number, so the group is certainly its own.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(popen.pid, signal.SIGKILL)
        kept.last_exit = exit_words(popen.wait())
        kept.popen = None
        kept.identity = None
        kept.events.append(ProcessEvent(kept.process.name, "ended", kept.last_exit))
        self._write_record()

    def _postpone(self, kept: _Child, now: float) -> None:
        steady = now - kept.started_at >= STEADY_S
        kept.deaths_in_a_row = 1 if steady else kept.deaths_in_a_row + 1
        # Doublings past the longest pause would overflow in a process that dies for days.
        doublings = min(kept.deaths_in_a_row - 1, 10)
        kept.start_at = now + min(LONGEST_PAUSE_S, 2.0**doublings)

    def _end(self, same_rank: list[_Child], grace_s: float) -> None:
        running: list[_Child] = []
        for kept in same_rank:
            kept.start_at = None
            if kept.popen is not None:
                running.append(kept)
                _signal_group(kept.popen, kept.process.stop_signal)
                # One that was stopped (SIGSTOP) could not even hear that.
                _signal_group(kept.popen, signal.SIGCONT)
        deadline = self._clock.monotonic() + grace_s
        while running:
            for kept in running:
                if kept.popen is not None and _has_ended(kept.popen):
                    self._bury(kept)
            running = [kept for kept in running if kept.popen is not None]
            if not running:
                return
            if self._clock.monotonic() >= deadline:
                break
            self._clock.sleep(_POLL_S)
        for kept in running:
            if kept.popen is not None:
                _signal_group(kept.popen, signal.SIGKILL)
                self._bury(kept)

    def _status(self, kept: _Child, now: float) -> ProcessStatus:
        running = kept.popen is not None and not _has_ended(kept.popen)
        waiting = not running and (kept.start_at is not None or kept.popen is not None)
        return ProcessStatus(
            name=kept.process.name,
            state=ProcessState.RUNNING
            if running
            else (ProcessState.WAITING if waiting else ProcessState.STOPPED),
            pid=kept.popen.pid if kept.popen is not None and running else None,
            restarts=max(0, kept.starts - 1),
            uptime_s=now - kept.started_at if running else 0.0,
            last_exit=kept.last_exit,
            restart_in_s=max(0.0, kept.start_at - now) if kept.start_at is not None else None,
            log=log_path(self._state, kept.process.name),
        )

    def _write_record(self) -> None:
        identities = {name: kept.identity for name, kept in self._children.items() if kept.identity}
        try:
            write_record(self._state, ProcessRecord(own_identity(), self._run, identities))
        except OSError as error:
            # A full disk must not end the collectors; it costs only the clean-up after a SIGKILL.
            log.warning("processes file not written", extra={"reason": str(error)})


def _has_ended(popen: subprocess.Popen[bytes]) -> bool:
    """Whether the process is dead; it is left uncollected, so that its id stays reserved."""
    try:
        return os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _signal_group(popen: subprocess.Popen[bytes], signum: int) -> None:
    """Signal a group whose leader we have not collected yet."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(popen.pid, signum)
