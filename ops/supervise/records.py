"""The processes file: who runs for this folder, so that a later run can end what was left."""

import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.clock import Clock
from ops.supervise.errors import SupervisorRunningError
from ops.supervise.identity import (
    ProcessIdentity,
    identify,
    is_alive,
    marked_with,
    send,
    send_group,
    wait_gone,
)

RUN_MARK = "GAPLESS_RUN"
"""Environment variable that all descendants of one supervisor carry."""
GRACE_S = 3.0
"""Real seconds that left-over processes get to end by themselves."""
_KILL_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """The content of the processes file."""

    supervisor: ProcessIdentity
    run: str
    """The value of ``RUN_MARK`` in every descendant's environment."""
    processes: Mapping[str, ProcessIdentity]


def record_path(state: Path) -> Path:
    """Where the processes of this state folder are written down."""
    return state / "run" / "processes.json"


def write_record(state: Path, record: ProcessRecord) -> None:
    """Replace the processes file in one step."""
    path = record_path(state)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = {
        "supervisor": _as_json(record.supervisor),
        "run": record.run,
        "processes": {name: _as_json(identity) for name, identity in record.processes.items()},
    }
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(content, indent=1) + "\n")
    part.replace(path)


def read_record(state: Path) -> ProcessRecord | None:
    """The processes file; None when there is none or it can't be understood (it is replaced)."""
    try:
        content = json.loads(record_path(state).read_text())
        return ProcessRecord(
            _from_json(content["supervisor"]),
            str(content["run"]),
            {str(name): _from_json(entry) for name, entry in content["processes"].items()},
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def remove_record(state: Path) -> None:
    """Forget the processes: all have ended."""
    record_path(state).unlink(missing_ok=True)


def stop_leftovers(state: Path, clock: Clock) -> list[str]:
    """End what a killed supervisor left running for this folder; returns the names, sorted.

    A process is touched only if its id and its start are those written down, or if it carries the
    mark of that run in its environment. Running it twice changes nothing.

    Raises:
        SupervisorRunningError: when the recorded supervisor lives and is not this process.
    """
    record = read_record(state)
    if record is None:
        return []
    if is_alive(record.supervisor) and record.supervisor.pid != os.getpid():
        raise SupervisorRunningError(
            f"the processes of {state} are looked after by process {record.supervisor.pid}, which "
            f"is alive; stop it with `kill {record.supervisor.pid}` or use another state folder"
        )
    left = {name: identity for name, identity in record.processes.items() if is_alive(identity)}
    for identity in left.values():
        send_group(identity, signal.SIGTERM)
    deadline = clock.monotonic() + GRACE_S
    for identity in left.values():
        if not wait_gone(identity, deadline - clock.monotonic(), clock):
            send_group(identity, signal.SIGKILL)
            wait_gone(identity, GRACE_S, clock)
    kill_marked(record.run)
    remove_record(state)
    return sorted(left)


def kill_marked(run: str) -> None:
    """Kill every process that carries this run's mark: grandchildren that left their group."""
    # Once more after a kill: a process may have forked while the table was read.
    for _ in range(_KILL_ROUNDS):
        found = marked_with(RUN_MARK, run)
        for identity in found:
            send(identity, signal.SIGKILL)
        if not found:
            return


def own_identity() -> ProcessIdentity:
    """This process."""
    identity = identify(os.getpid())
    if identity is None:  # pragma: no cover - /proc without ourselves
        raise RuntimeError(f"process {os.getpid()} does not see itself in the process table")
    return identity


def _as_json(identity: ProcessIdentity) -> dict[str, Any]:
    return {"pid": identity.pid, "started": identity.started}


def _from_json(entry: Mapping[str, Any]) -> ProcessIdentity:
    return ProcessIdentity(int(entry["pid"]), str(entry["started"]))
