"""``ops up``: everything on this machine, until Ctrl-C."""

import argparse
from pathlib import Path

from ops.registering import Commands


def register(commands: Commands) -> None:
    command = commands.add_parser(
        "up",
        help="run everything on this machine: servers, scheduler, workers",
        epilog="Example: ops up   or   ops up --sim   or   ops up --universe symbols.csv",
    )
    command.add_argument(
        "--sim",
        action="store_true",
        help="collect from a simulated market that trades round the clock",
    )
    command.add_argument(
        "--universe",
        type=Path,
        help="load this file first (default: a shipped sample, when there is none)",
    )
    command.add_argument(
        "--once-ready", action="store_true", help="stop again as soon as everything is up (a check)"
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run until a signal; 0 after an orderly stop."""
    from ops.up import up  # noqa: PLC0415 - everything is imported here: only when it is wanted

    return up(sim=options.sim, universe_file=options.universe, once_ready=options.once_ready)
