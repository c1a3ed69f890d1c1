"""The runs of a simulator that goes on with its log: for which market time the log is whole."""

from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

MOST_BYTES = 2**30
"""A larger log is not gone on with; sixty symbols round the clock write a tenth of that a day."""


@dataclass(slots=True)
class Run:
    """One process that wrote the log, market epoch seconds."""

    began: float
    ended: float | None = None
    """None while it runs. Of a run that was killed: its last line, for what it answered after that
    may be lost."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What stands beside the log."""

    market: str
    """Mark of the market whose answers the log holds: its lines name versions by their index."""
    runs: list[Run]


def runs_path(log: Path) -> Path:
    """The file beside a log."""
    return log.with_suffix(".runs.json")


def read_runs(log: Path, market: str) -> list[Run] | None:
    """The runs of a log that this market can go on with; None where it has to begin anew."""
    try:
        raw = orjson.loads(runs_path(log).read_bytes())
        kept = Kept(raw["market"], [Run(**run) for run in raw["runs"]])
        size = log.stat().st_size
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return kept.runs if kept.market == market and size <= MOST_BYTES else None


def write_runs(log: Path, market: str, runs: list[Run]) -> None:
    """Replace the file as a whole."""
    path = runs_path(log)
    draft = path.with_name(f".{path.name}")
    draft.write_bytes(orjson.dumps(asdict(Kept(market, runs))))
    draft.replace(path)
