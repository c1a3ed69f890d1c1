"""Which of our servers run: written down at the start, found again by whoever comes later."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.clock import Clock
from ops.embedded.files import write_file
from ops.embedded.home import Home
from ops.embedded.launch import collect
from ops.supervise.identity import (
    ProcessIdentity,
    command_line,
    identify,
    is_alive,
    send,
    wait_gone,
)


@dataclass(frozen=True, slots=True)
class Running:
    """A server process that lives."""

    identity: ProcessIdentity
    port: int
    """0 when nothing tells."""
    launch: Mapping[str, Any]
    """How it was started; empty when its owner died before writing that down."""


def remember(home: Home, name: str, running: Running) -> None:
    """Write down a server that was started."""
    content = {
        "pid": running.identity.pid,
        "started": running.identity.started,
        "port": running.port,
        "launch": dict(running.launch),
    }
    write_file(_record_path(home, name), json.dumps(content, indent=1) + "\n")


def last_port(home: Home, name: str) -> int | None:
    """The port of the latest start, so that the next one can keep it."""
    record = _read(home, name)
    return record.port if record is not None and record.port else None


def find_running(
    home: Home, name: str, *, pid_file: Path, program: str, mark: str
) -> Running | None:
    """The server ``name`` of this home if it lives, whoever started it.

    Args:
        home: The state folder.
        name: ``postgres`` or ``valkey``.
        pid_file: Written by the server itself; its first line is the process id.
        program: File name of the server program.
        mark: An argument that only the server of this very data has on its command line.
    """
    found = _read(home, name)
    if found is None or not is_alive(found.identity):
        try:
            identity = identify(int(pid_file.read_text().split()[0]))
        except (OSError, ValueError, IndexError):
            return None
        if identity is None:
            return None
        found = Running(identity, 0, {})
    # A stranger may have the id by now, and in a copied folder the record is the original's.
    arguments = command_line(found.identity.pid)
    if not arguments or Path(arguments[0]).name != program or mark not in arguments:
        return None
    return found


def stop_process(
    identity: ProcessIdentity, steps: Sequence[tuple[int, float]], clock: Clock
) -> bool:
    """Send each signal in turn and give it its seconds; True as soon as the process is gone."""
    for signum, seconds in steps:
        send(identity, signum)
        if wait_gone(identity, seconds, clock):
            collect(identity.pid)
            return True
    return False


def _record_path(home: Home, name: str) -> Path:
    return home.path / "run" / f"{name}.json"


def _read(home: Home, name: str) -> Running | None:
    try:
        content = json.loads(_record_path(home, name).read_text())
        return Running(
            ProcessIdentity(int(content["pid"]), str(content["started"])),
            int(content["port"]),
            dict(content["launch"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
