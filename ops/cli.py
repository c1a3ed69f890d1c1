"""The ``ops`` command: parses, calls one command module, turns known errors into one clear message.

Exit codes: 0 fine, 1 found trouble, 2 the command was used wrongly.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from core.errors import GaplessError, UsageError
from core.log import configure, mask

GROUPS = (
    "up",
    "down",
    "demo",
    "migrate",
    "universe",
    "plan",
    "backfill",
    "bars",
    "transfer",
    "cursor",
    "coverage",
    "providers",
    "queues",
    "status",
    "url",
    "verify",
    "validate",
    "reload",
    "calendar",
    "exporter",
)
"""Modules of ``ops.commands``, in the order of the help text."""

_MODULES = {
    "enqueue-backfill": "backfill",
    "gaps": "coverage",
    "export": "transfer",
    "import": "transfer",
}
"""Commands that live in a module of another name."""


def parser(groups: Sequence[str] = GROUPS) -> argparse.ArgumentParser:
    """The whole command tree, or the part of it that the given groups make up."""
    root = argparse.ArgumentParser(
        prog="ops",
        description="gapless: market data collection that is gap-safe and point-in-time-safe.",
        epilog="Start with `ops demo` (a simulated day, nothing needed) or `ops up`.",
    )
    root.add_argument(
        "--log-level",
        type=str.upper,
        choices=["DEBUG", "INFO", "WARNING", "ERROR"],
        default="WARNING",
        help="DEBUG, INFO, WARNING (default) or ERROR",
    )
    commands = root.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for group in groups:
        importlib.import_module(f"ops.commands.{group}").register(commands)
    return root


def _relevant(arguments: Sequence[str]) -> Sequence[str]:
    """The one group that the words name, so that a command pays for its own imports only."""
    words = [word for word in arguments if not word.startswith("-")]
    for word in words[:2]:
        group = _MODULES.get(word, word)
        if group in GROUPS:
            return (group,)
    return GROUPS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code and never shows a traceback for a known error."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = parser(_relevant(words)).parse_args(words)
    configure(options.log_level)
    try:
        return int(options.run(options) or 0)
    except UsageError as error:
        print(f"ops: {mask(str(error))}", file=sys.stderr)
        return 2
    except GaplessError as error:
        print(f"ops: {mask(str(error))}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of our output went away (`ops bars ... | head`): not an error of ours. Python
        # would complain again when it flushes stdout at exit, so point it at nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("ops: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
