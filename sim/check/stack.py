"""Where the running system is: the stack file that `ops` writes, readable by its owner only."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StackFile:
    """What the checker needs of it."""

    database_url: str
    sim_admin: str | None
    """None: no simulator, so only invariants can be checked."""


def read_stack(path: Path) -> StackFile:
    """Read a stack file."""
    fields = json.loads(path.read_text())
    return StackFile(fields["database_url"], fields.get("sim_admin"))
