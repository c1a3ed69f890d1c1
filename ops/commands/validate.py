"""``ops validate``: check settings, a universe file or coordinator elements before anything uses them."""

import argparse
from collections.abc import Callable
from pathlib import Path

from core.errors import UsageError
from core.settings import load
from core.words import Capability, Tier
from ops.registering import Commands
from ops.universe_files import read
from workers import elements


def register(commands: Commands) -> None:
    command = commands.add_parser(
        "validate",
        help="check settings and files, change nothing",
        epilog="Example: ops validate --settings .env --universe symbols.csv --elements jobs.ndjson",
    )
    command.add_argument(
        "--settings", type=Path, help="a file like .env (default: .env and the environment)"
    )
    command.add_argument("--universe", type=Path)
    command.add_argument(
        "--elements", type=Path, help="coordinator elements, one JSON object a line"
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Check everything that was named; 1 when anything is wrong."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("settings", lambda: _settings(options.settings))
    ]
    if options.universe:
        checks.append(
            ("universe", lambda: f"{len(read(options.universe, default_tier=Tier.T2))} symbols")
        )
    if options.elements:
        checks.append(("elements", lambda: _elements(options.elements)))
    failed = 0
    for name, check in checks:
        try:
            print(f"{name}: fine, {check()}")
        except UsageError as error:
            failed += 1
            print(f"{name}: {error}")
    return 1 if failed else 0


def _settings(path: Path | None) -> str:
    if path is not None and not path.exists():
        raise UsageError(f"settings file {path} does not exist; copy .env.example to start one")
    config = load(path)
    return "policies " + "; ".join(
        f"{capability}: {' > '.join(' | '.join(band) for band in config.policy(capability))}"
        for capability in Capability
    )


def _elements(path: Path) -> str:
    try:
        lines = [line for line in path.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        raise UsageError(f"element file {path} can't be read: {error.strerror}") from None
    problems: list[str] = []
    for number, line in enumerate(lines, start=1):
        problem = elements.read(line).problem
        if problem is not None:
            problems.append(f"line {number}: {problem}")
    if problems:
        raise UsageError(
            f"{len(problems)} of {len(lines)} elements are bad:\n  " + "\n  ".join(problems[:20])
        )
    return f"{len(lines)} elements"
