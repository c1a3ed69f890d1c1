"""Who a process is: its id together with its start, because the system gives ids out again.

Nothing here ever signals a process by its id alone. The start is an opaque word that is equal for
as long as the process lives and differs for any other process that gets the same id later.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from core.clock import Clock

_PROC = Path("/proc")
_BOOT_ID = _PROC / "sys/kernel/random/boot_id"
_POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process of this machine, never confused with a later one of the same id."""

    pid: int
    started: str
    """Opaque: boot and start tick on Linux, the start date elsewhere."""


@dataclass(frozen=True, slots=True)
class _Stat:
    state: str
    ppid: int
    pgid: int
    started: str


def identify(pid: int) -> ProcessIdentity | None:
    """The living process with this id; None when there is none or only its rest (a zombie)."""
    stat = _stat(pid)
    if stat is None or stat.state in "ZX":
        return None
    return ProcessIdentity(pid, stat.started)


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether exactly this process still runs; a zombie does not."""
    return identify(identity.pid) == identity


def send(identity: ProcessIdentity, signum: int) -> bool:
    """Signal exactly this process. False when it is gone; a stranger with its id is never touched.

    Raises:
        PermissionError: when the process belongs to somebody else.
    """
    if sys.platform != "linux":
        if not is_alive(identity):
            return False
        with suppress(ProcessLookupError):
            os.kill(identity.pid, signum)
            return True
        return False
    try:
        handle = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    try:
        # The handle pins the process, so that it can't change between the look and the signal.
        if not is_alive(identity):
            return False
        signal.pidfd_send_signal(handle, signum)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def send_group(leader: ProcessIdentity, signum: int) -> bool:
    """Signal the process group that this living process leads; False when the leader is gone."""
    if not is_alive(leader):
        return False
    try:
        os.killpg(leader.pid, signum)
    except ProcessLookupError:
        return False
    return True


def wait_gone(identity: ProcessIdentity, timeout_s: float, clock: Clock) -> bool:
    """Wait until exactly this process ended; False when it outlives ``timeout_s`` real seconds."""
    deadline = clock.monotonic() + timeout_s
    while is_alive(identity):
        if clock.monotonic() >= deadline:
            return False
        clock.sleep(_POLL_S)
    return True


def children_of(pid: int) -> list[ProcessIdentity]:
    """The living children of a process (Linux; elsewhere empty)."""
    found: list[ProcessIdentity] = []
    for other in _all_pids():
        stat = _stat(other)
        if stat is not None and stat.ppid == pid and stat.state not in "ZX":
            found.append(ProcessIdentity(other, stat.started))
    return found


def marked_with(name: str, value: str) -> list[ProcessIdentity]:
    """Living processes started with this environment variable (Linux; elsewhere empty).

    Only processes whose environment we may read are seen: our own, or all as root.
    """
    needle = b"\0" + f"{name}={value}".encode() + b"\0"
    found: list[ProcessIdentity] = []
    for pid in _all_pids():
        if pid == os.getpid():
            continue
        with suppress(OSError):
            environment = b"\0" + (_PROC / str(pid) / "environ").read_bytes() + b"\0"
            identity = identify(pid) if needle in environment else None
            if identity is not None:
                found.append(identity)
    return found


def command_line(pid: int) -> list[str]:
    """Program and arguments of a process; empty when there is none or it can't be read."""
    if _PROC.joinpath("self").exists():
        try:
            raw = (_PROC / str(pid) / "cmdline").read_bytes()
        except OSError:
            return []
        return [part.decode(errors="replace") for part in raw.rstrip(b"\0").split(b"\0") if part]
    return _ps(pid, "command=").split()


def _all_pids() -> Iterator[int]:
    if _PROC.joinpath("self").exists():
        yield from (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())


def _stat(pid: int) -> _Stat | None:
    if not _PROC.joinpath("self").exists():
        return _stat_by_ps(pid)
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
        boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
    except OSError:
        return None
    # The name in parentheses may itself hold spaces and parentheses; fields are counted after it.
    fields = text.rpartition(")")[2].split()
    return _Stat(fields[0], int(fields[1]), int(fields[2]), f"{boot}:{fields[19]}")


def _stat_by_ps(pid: int) -> _Stat | None:
    fields = _ps(pid, "stat=,ppid=,pgid=,lstart=").split(maxsplit=3)
    if len(fields) < 4:
        return None
    return _Stat(fields[0][0], int(fields[1]), int(fields[2]), " ".join(fields[3].split()))


def _ps(pid: int, columns: str) -> str:
    done = subprocess.run(
        ["/bin/ps", "-o", columns, "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()
