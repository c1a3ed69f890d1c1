"""``ops demo``: a simulated day, collected, checked and reported."""

import argparse

from ops.demo.options import add_arguments, from_arguments
from ops.registering import Commands


def register(commands: Commands) -> None:
    command = commands.add_parser(
        "demo",
        help="collect a simulated day with faults and check every bar",
        epilog="Example: ops demo --symbols 100 --speed 60   or   ops demo --bars FOLDER --session 2013-10-08",
    )
    add_arguments(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the demo; 0 only when the checker found nothing wrong."""
    from ops.demo.run import demo  # noqa: PLC0415 - everything is imported here: only when it is wanted

    return demo(from_arguments(options))
