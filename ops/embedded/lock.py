"""Locks on a state folder that end with their holder, however it ends."""

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from core.clock import Clock
from ops.embedded.errors import AlreadyRunningError, ServerStartError, folder_error

_POLL_S = 0.02


class FolderLock:
    """The right to run processes over a state folder; one holder at a time.

    The kernel keeps it on an open file, so a killed holder frees it at once. Children do not
    inherit it: servers that outlive their owner do not hold its lock.
    """

    def __init__(self, path: Path, description: str, clock: Clock) -> None:
        self._path = path
        self._description = description
        self._clock = clock
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock, now or never.

        Raises:
            AlreadyRunningError: naming the process that holds it.
        """
        descriptor = open_lock(self._path)
        if not try_lock(descriptor):
            os.close(descriptor)
            raise AlreadyRunningError(self._held_by())
        holder = {
            "pid": os.getpid(),
            "description": self._description,
            "since": self._clock.now().isoformat(timespec="seconds"),
        }
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; without one nothing happens."""
        if self._descriptor is not None:
            # The file stays: removing it would let two later holders lock two different files.
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _held_by(self) -> str:
        folder = self._path.parent
        try:
            holder = json.loads(self._path.read_text())
            pid, what, since = int(holder["pid"]), holder["description"], holder["since"]
        except (OSError, ValueError, KeyError, TypeError):
            # The holder writes its name after it has the lock.
            return f"another process starts in {folder}; wait for it or use another state folder"
        return (
            f"`{what}` already runs in {folder} (process {pid}, since {since}); stop it with "
            f"Ctrl-C or `kill {pid}`, or use another state folder"
        )


class StartLock:
    """Serialises the starts of one server: who comes second waits, then finds the first one's."""

    def __init__(self, path: Path, timeout_s: float, clock: Clock) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._clock = clock
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        descriptor = open_lock(self._path)
        deadline = self._clock.monotonic() + self._timeout_s
        while not try_lock(descriptor):
            if self._clock.monotonic() >= deadline:
                os.close(descriptor)
                raise ServerStartError(
                    f"another process has been starting a server in {self._path.parent} for "
                    f"{self._timeout_s:.0f} s; wait for it or stop it, then start again"
                )
            self._clock.sleep(_POLL_S)
        self._descriptor = descriptor
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def open_lock(path: Path) -> int:
    """Open a lock file, created with mode 0600.

    Raises:
        StateFolderError: when it can't be written.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise folder_error(error, path.parent, "taking the folder's lock") from error


def try_lock(descriptor: int) -> bool:
    """Lock an open file if nobody holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
