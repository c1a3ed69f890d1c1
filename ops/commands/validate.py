"""``ops validate``: check settings, a universe file or coordinator elements before anything uses them."""

import argparse
from collections.abc import Callable
from pathlib import Path

from core.clock import SystemClock
from core.errors import UsageError
from core.setting_names import unknown_names
from core.settings import Settings, load
from core.words import Capability, Tier
from ops.registering import Commands
from ops.universe_files import read
from ops.words import counted
from workers import elements
from workers.wiring import build_sources

_POLICIES = {
    Capability.BARS_1M: "POLICY_BARS_1M",
    Capability.BARS_EOD: "POLICY_EOD",
    Capability.QUOTES_L1: "POLICY_QUOTES_L1",
    Capability.OPTIONS_CHAIN: "POLICY_OPTIONS_CHAIN",
}


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
            (
                "universe",
                lambda: counted(len(read(options.universe, default_tier=Tier.T2)), "symbol"),
            )
        )
    if options.elements:
        checks.append(("elements", lambda: _elements(options.elements)))
    for line in _doubtful(options.settings):
        print(f"settings: warning, {line}")
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
    _check_policies(config)
    return "policies " + "; ".join(
        f"{capability}: {' > '.join(' | '.join(band) for band in config.policy(capability))}"
        for capability in Capability
    )


def _doubtful(path: Path | None) -> list[str]:
    """A word on each name that nothing reads."""
    file = path or Path(".env")
    return [
        f"{name} in {file} is no setting and changes nothing"
        + (f" (did you mean {near}?)" if near else "; .env.example lists them all")
        for name, near in unknown_names(file)
    ]


def _check_policies(config: Settings) -> None:
    """Refuse names that no adapter has.

    Raises:
        UsageError: with every such name.
    """
    known = [source.name for source in build_sources(config, SystemClock())]
    problems = [
        f"{_POLICIES[capability]} names {name!r}, which is no provider"
        for capability in Capability
        for band in config.policy(capability)
        for name in band
        if name not in known
    ]
    if problems:
        raise UsageError("; ".join(problems) + f"; expected names of {', '.join(sorted(known))}")


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
    return counted(len(lines), "element")
