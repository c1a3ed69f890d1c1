"""What is supervised: a description of a process, and how it fares."""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    """One child process to keep alive."""

    name: str
    """Unique in a supervisor; its output goes to ``logs/NAME.log``."""
    argv: Sequence[str]
    """Program and arguments; a program without a slash is looked up on the PATH of ``env``."""
    env: Mapping[str, str] | None = None
    """The whole environment of the process; None: ours."""
    stop_rank: int = 0
    """Processes are stopped from the lowest rank to the highest; equal ranks together."""
    cwd: Path | None = None
    """Where it runs; None: where we run."""
    stop_signal: signal.Signals = field(default=signal.SIGTERM)
    """What asks it to end."""
    restart: bool = True
    """Whether it is started again when it ends by itself."""

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise ValueError(f"process name is {self.name!r}; expected a plain file name")
        if not self.argv:
            raise ValueError(f"process {self.name} has no program")


class ProcessState(StrEnum):
    """How a supervised process fares."""

    RUNNING = "running"
    WAITING = "waiting"
    """Ended by itself; started again when its pause is over."""
    STOPPED = "stopped"
    """Not started yet, stopped by us, or ended with ``restart`` off."""


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """A snapshot of one supervised process."""

    name: str
    state: ProcessState
    pid: int | None
    restarts: int
    """Starts after the first, whoever caused them."""
    uptime_s: float
    """Real seconds since its latest start; 0 unless running."""
    last_exit: str | None
    """How it last ended, in words (``exit 1``, ``SIGKILL``); None when it never did."""
    restart_in_s: float | None
    """Real seconds until it is started again; None unless waiting."""
    log: Path


@dataclass(frozen=True, slots=True)
class ProcessEvent:
    """A change that ``Supervisor.poll`` saw or made."""

    name: str
    kind: str
    """``started`` or ``ended``."""
    detail: str
    """The process id, or how it ended."""


def exit_words(code: int) -> str:
    """``exit 3`` for a plain exit, ``SIGKILL`` for a death by signal (code below zero)."""
    if code >= 0:
        return f"exit {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
