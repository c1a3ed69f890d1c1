"""``ops verify``: let the independent checker compare what is stored with the truth."""

import argparse
from datetime import datetime
from pathlib import Path
from typing import Any

from ops import output
from ops.connect import database, settings, stack_of
from ops.registering import Commands
from ops.stack_file import StackInfo
from ops.times import instant

_COUNTS = (
    "expected", "present", "confirmed_empty", "false_confirmed_empty", "unexplained", "missing", "in_hand", "wrong",
    "duplicate", "lookahead", "revised", "restated_missed", "stale_revision", "unjudged", "gaps_found", "gaps_filled",
    "as_of_reads", "requests", "limit_violations",
)  # fmt: skip


def register(commands: Commands) -> None:
    command = commands.add_parser(
        "verify",
        help="compare what is stored with the truth, or check the invariants where there is no simulator",
        epilog="Example: ops verify   (in a folder where `ops demo --keep` or `ops up --sim` runs)",
    )
    command.add_argument(
        "--from",
        dest="start",
        help="first bar to judge, instant (default: the newest session's open)",
    )
    command.add_argument(
        "--to", dest="end", help="open end, instant (default: that session's close)"
    )
    command.add_argument("--json", action="store_true")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """0 when nothing is wrong, 1 when anything is."""
    from sim.check.report import Range, verify  # noqa: PLC0415 - only this command needs the checker
    from sim.check.stack import StackFile  # noqa: PLC0415

    config = settings()
    home, stack = Path(config.gapless_home), stack_of(config)
    if stack is None:
        with database(config):
            stack = StackInfo("database", config.database_url, config.redis_url)
    probes = home / "probes.ndjson"
    span = Range(_instant(options.start, "--from"), _instant(options.end, "--to"))
    result: dict[str, Any] = verify(StackFile(stack.database_url, stack.sim_admin), span, probes)
    if options.json:
        output.as_json(result)
    else:
        _print(result)
    return 0 if result["ok"] else 1


def _print(result: dict[str, Any]) -> None:
    names = _COUNTS
    if result.get("simulator") is False:
        print("no simulator here: only what must hold in every database was checked")
        names = tuple(name for name, value in result.items() if type(value) is int)
    else:
        print(f"bars from {result['judged_from']} to {result['judged_to']}")
    output.table(({"count": name, "value": result[name]} for name in names), ["count", "value"])
    for line in [*result.get("notes", ()), *result["examples"]]:
        print(f"  {line}")
    print("fine" if result["ok"] else "TROUBLE: see the counts that are not 0")


def _instant(text: str | None, what: str) -> datetime | None:
    return instant(text, what) if text else None
