"""What `ops demo` can be asked for."""

import argparse
import json
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import Any

from core.errors import UsageError

DEFAULT_SESSION = date(2025, 3, 10)
"""A full New York session, the first one after a change of daylight saving time."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """One run of the demo."""

    symbols: int
    session: date
    start: time | None
    """Begin here (UTC) instead of 5 minutes before the open."""
    end: time | None
    """End of the part that is collected (UTC) instead of the close."""
    speed: float | None
    """None: auto."""
    seed: int
    faults: list[dict[str, Any]] | None
    """None: the default timeline; empty: none."""
    bars: Path | None
    calendar: str | None
    report: Path | None
    keep: bool
    budgets: bool
    """False: our side ignores every limit, to show that the checker counts violations."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options; times are UTC."""
    command.add_argument(
        "--symbols",
        type=int,
        default=300,
        help="how many (default 300: 10 %% T0, 23 %% T1, rest T2)",
    )
    command.add_argument(
        "--session", type=_date, default=None, help=f"date to replay (default {DEFAULT_SESSION})"
    )
    command.add_argument(
        "--from", dest="start", type=_time, help="HH:MM UTC, instead of 5 min before the open"
    )
    command.add_argument("--to", dest="end", type=_time, help="HH:MM UTC, instead of the close")
    command.add_argument(
        "--speed", type=_speed, default=None, metavar="X|auto", help="market seconds a second"
    )
    command.add_argument("--seed", type=int, default=1, help="of the simulated market")
    command.add_argument(
        "--faults", type=Path, help="JSON list of faults; `none` switches them off"
    )
    command.add_argument(
        "--bars", type=Path, help="folder <SYMBOL>/<date>.csv to use as the market"
    )
    command.add_argument(
        "--calendar", help="calendar of the bars (default: inferred from their hours)"
    )
    command.add_argument("--json", dest="report", type=Path, help="write the report to this file")
    command.add_argument(
        "--no-budgets",
        dest="budgets",
        action="store_false",
        help="ignore limits, set to a quarter of the demand: shows that the checker counts violations",
    )
    command.add_argument(
        "--keep", action="store_true", help="leave the servers running to look around"
    )


def from_arguments(parsed: argparse.Namespace) -> DemoOptions:
    """Check what needs more than one word.

    Raises:
        UsageError: with the mend.
    """
    if parsed.symbols < 3:
        raise UsageError(f"--symbols is {parsed.symbols}; expected at least 3, one for each tier")
    if parsed.bars is not None and not parsed.bars.is_dir():
        raise UsageError(f"--bars {parsed.bars} is no folder; expected <SYMBOL>/<date>.csv in it")
    if parsed.bars is not None and parsed.session is None:
        raise UsageError("--bars needs --session YYYY-MM-DD, the date of the files to replay")
    if parsed.start and parsed.end and parsed.end <= parsed.start:
        raise UsageError(
            f"--to {parsed.end:%H:%M} is not after --from {parsed.start:%H:%M}; both are UTC"
        )
    return DemoOptions(
        symbols=parsed.symbols,
        session=parsed.session or DEFAULT_SESSION,
        start=parsed.start,
        end=parsed.end,
        speed=parsed.speed,
        seed=parsed.seed,
        faults=_faults(parsed.faults),
        bars=parsed.bars.resolve() if parsed.bars else None,
        calendar=parsed.calendar,
        report=parsed.report,
        keep=parsed.keep,
        budgets=parsed.budgets,
    )


def _faults(path: Path | None) -> list[dict[str, Any]] | None:
    if path is None:
        return None
    if str(path) == "none":
        return []
    try:
        faults = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise UsageError(
            f"--faults {path} can't be read: {error}; expected a JSON list of faults"
        ) from None
    if not isinstance(faults, list):
        raise UsageError(
            f"--faults {path} holds {type(faults).__name__}; expected a JSON list of faults"
        )
    return faults  # pyright: ignore[reportUnknownVariableType] - the simulator checks each one


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date; expected YYYY-MM-DD") from None


def _time(text: str) -> time:
    try:
        return time.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; expected HH:MM in UTC") from None


def _speed(text: str) -> float | None:
    if text == "auto":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if speed <= 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no speed; expected a number above 0, or auto"
        )
    return speed
