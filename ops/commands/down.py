"""``ops down``: end what runs in this folder, and forget what it collected when asked to."""

import argparse
from pathlib import Path

from core.clock import SystemClock
from core.errors import UsageError
from core.settings import load
from ops.registering import Commands
from ops.stack_file import shown


def register(commands: Commands) -> None:
    command = commands.add_parser(
        "down",
        help="end what runs on this machine, also what a killed `ops up` left behind",
        epilog="Example: ops down   or   ops down --forget --yes",
    )
    command.add_argument(
        "--forget", action="store_true", help="delete its servers' data, logs and secrets, for good"
    )
    command.add_argument("--yes", action="store_true", help="really delete")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """End, and delete with ``--forget --yes``; 0 also when there was nothing."""
    from ops.down import data_folders, homes, stop  # noqa: PLC0415 - servers: only when wanted

    clock = SystemClock()
    folder = Path(load().gapless_home)
    found = homes(folder, clock)
    if options.forget and not options.yes:
        listed = "".join(f"\n  {shown(path)}" for home in found for path in data_folders(home))
        raise UsageError(
            f"--forget deletes for good:{listed or ' nothing'}\nnothing was done; add --yes to do it"
        )
    for home in found:
        stop(home, clock, print)
    if options.forget:
        for home in found:
            deleted = data_folders(home)
            home.remove()
            print(f"deleted {', '.join(shown(path) for path in deleted)}")
    print(f"nothing runs in {shown(folder)}")
    return 0
