"""The file by which a running stack is found by the commands typed near it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from core.errors import UsageError
from ops.supervise.identity import ProcessIdentity, is_alive

STACK_FILE = "stack.json"
BELOW = ("sim", "demo")
"""Folders of the state folder in which `ops up --sim` and `ops demo` keep a state folder of their own."""


@dataclass(frozen=True, slots=True)
class StackInfo:
    """Where the stack that `ops up` or `ops demo` started can be reached."""

    command: str
    """What was typed to start it, ``ops up``, ``ops up --sim`` or ``ops demo``."""
    database_url: str
    redis_url: str
    sim_admin: str | None = None
    env: dict[str, str] | None = None
    """Settings that its processes run with and that a command must share (base URLs, policies)."""
    owner: ProcessIdentity | None = None
    """Who looks after it; when that process is gone, it was killed."""

    @property
    def alive(self) -> bool:
        """Whether its owner lives. Servers outlive an owner that was killed; processes don't."""
        return self.owner is not None and is_alive(self.owner)


@dataclass(frozen=True, slots=True)
class Found:
    """A stack and the state folder that it runs in."""

    home: Path
    info: StackInfo


def write_stack(home: Path, info: StackInfo) -> None:
    """Publish a running stack to the commands typed in the same folder; only the owner may read it."""
    path = home / STACK_FILE
    fresh = path.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_text(json.dumps(asdict(info)))
    fresh.replace(path)


def remove_stack(home: Path) -> None:
    """Forget the stack; safe when there is none."""
    (home / STACK_FILE).unlink(missing_ok=True)


def read_stack(home: Path) -> StackInfo | None:
    """The stack published in this folder, None when there is none."""
    try:
        fields = json.loads((home / STACK_FILE).read_text())
    except FileNotFoundError:
        return None
    owner = fields.pop("owner", None)
    if "kind" in fields:
        # As earlier versions wrote it: the words after `ops`.
        fields["command"] = f"ops {fields.pop('kind')}"
    return StackInfo(**fields, owner=ProcessIdentity(**owner) if owner else None)


def stacks(home: Path) -> list[Found]:
    """Every stack that was published in this state folder and below it, live or not."""
    folders = (home, *(home / name for name in BELOW))
    return [Found(folder, info) for folder in folders if (info := read_stack(folder)) is not None]


def find_stack(home: Path) -> Found | None:
    """The stack that commands speak to: the folder's own, else the only live one below it.

    Raises:
        UsageError: several live ones below it; says how to choose.
    """
    found = stacks(home)
    if found and found[0].home == home:
        own = found[0]
        others = [one for one in found[1:] if one.info.alive]
        if own.info.alive or len(others) != 1:
            return own
        return others[0]
    live = [one for one in found if one.info.alive]
    if len(live) > 1:
        listed = " and ".join(f"{shown(one.home)} ({one.info.command})" for one in live)
        raise UsageError(
            f"several stacks run here: {listed}; choose one by its folder, such as "
            f"GAPLESS_HOME={shown(live[0].home)}"
        )
    return live[0] if live else None


def shown(path: Path) -> str:
    """A path as people type it: relative where it lies below the current folder."""
    here = Path.cwd()
    whole = path if path.is_absolute() else here / path
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(whole)
