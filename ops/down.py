"""Ends what runs in a state folder and below it, and deletes its data when that is asked for."""

import signal
from collections.abc import Callable
from pathlib import Path

from core.clock import Clock
from ops.embedded.errors import ServerStartError
from ops.embedded.home import Home
from ops.embedded.postgres import PostgresServer
from ops.embedded.valkey import ValkeyServer
from ops.stack_file import BELOW, read_stack, remove_stack, shown
from ops.supervise.identity import send, wait_gone
from ops.supervise.records import stop_leftovers

_STOP_S = 30.0
"""Real seconds that a live `ops up` gets to end in order."""


def homes(folder: Path, clock: Clock) -> list[Home]:
    """The state folders that are there, those below first; creates none."""
    folders = (*(folder / name for name in BELOW), folder)
    return [Home(path, clock=clock) for path in folders if (path / "run").is_dir()]


def data_folders(home: Home) -> list[Path]:
    """What ``forget`` deletes of one state folder: itself, and the servers' data outside it."""
    place = home.known_place()
    outside = [place.folder] if place is not None and place.account is not None else []
    return [home.path, *outside]


def stop(home: Home, clock: Clock, say: Callable[[str], None]) -> None:
    """End the stack of one state folder, also what a killed one left. Twice changes nothing.

    Raises:
        AlreadyRunningError: somebody holds the folder who can't be asked to end.
        ServerStartError: a process does not end.
    """
    name = shown(home.path)
    info = read_stack(home.path)
    if info is not None and info.owner is not None and info.alive:
        say(f"stopping `{info.command}` in {name} (process {info.owner.pid}) ...")
        send(info.owner, signal.SIGTERM)
        if not wait_gone(info.owner, _STOP_S, clock):
            raise ServerStartError(
                f"`{info.command}` (process {info.owner.pid}) does not end within {_STOP_S:.0f} s; "
                f"end it with `kill -9 {info.owner.pid}` and run `ops down` again"
            )
    with home.lock("ops down"):
        for left in stop_leftovers(home.path, clock):
            say(f"{name}: ended {left}, which a killed run had left")
        for title, server in (
            ("Valkey", ValkeyServer.find(home)),
            ("PostgreSQL", PostgresServer.find(home)),
        ):
            if server is not None:
                server.stop()
                say(f"{name}: stopped {title}, which a killed run had left")
        remove_stack(home.path)
