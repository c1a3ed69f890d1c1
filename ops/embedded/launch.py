"""Runs server programs: as the place's user, in a clean environment, in a session of their own."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from ops.embedded.errors import ServerStartError
from ops.embedded.place import Place

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run(
    argv: Sequence[str | Path], place: Place, *, stdin: str | None = None, timeout_s: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return what it said.

    Raises:
        PermissionError, FileNotFoundError: when the program can't be executed by the place's user.
        ServerStartError: when it takes longer than ``timeout_s`` real seconds.
    """
    try:
        return subprocess.run(
            [str(part) for part in argv],
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            **_conditions(place),
        )
    except subprocess.TimeoutExpired as error:
        raise ServerStartError(f"{argv[0]} did not end within {timeout_s:.0f} s") from error


def spawn(argv: Sequence[str | Path], place: Place, log: BinaryIO) -> int:
    """Start a server that outlives us; returns its process id, ours until ``collect``.

    Raises:
        PermissionError, FileNotFoundError: when the program can't be executed by the place's user.
    """
    popen = subprocess.Popen(
        [str(part) for part in argv],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        **_conditions(place),
    )
    # Declared done: the server is meant to live on when this object is forgotten.
    popen.returncode = 0
    return popen.pid


def collect(pid: int) -> None:
    """Let the system forget an ended server, if it was our child."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _conditions(place: Place) -> Mapping[str, Any]:
    account = place.account
    conditions: dict[str, Any] = {
        "cwd": place.folder,
        "env": {"PATH": _PATH, "HOME": str(place.folder), "LC_ALL": "C", "TZ": "UTC"},
        "umask": 0o077,
    }
    if account is not None:
        conditions |= {"user": account.uid, "group": account.gid, "extra_groups": []}
    return conditions
