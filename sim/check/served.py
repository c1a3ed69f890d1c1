"""What sources answered, from the simulator's request log."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from sim.check.truth import Admin, TrueBar, Values
from sim.check.words import limit, utc

Key = tuple[str, str, int]
"""Interval, symbol, start in epoch seconds."""


@dataclass(frozen=True, slots=True)
class Serving:
    """One bar in one answer."""

    values: Values
    answered: float
    """Market epoch seconds of the state that was served."""
    closed: bool
    """False for a bar that could still grow when it was served."""


@dataclass(slots=True)
class Served:
    """The whole log, turned around: by provider and bar."""

    requests: int = 0
    violations: int = 0
    violation_examples: list[str] = field(default_factory=list[str])
    bars: dict[str, dict[Key, list[Serving]]] = field(
        default_factory=dict[str, dict[Key, list[Serving]]]
    )
    answers: list[tuple[str, str, float, float, bool]] = field(
        default_factory=list[tuple[str, str, float, float, bool]]
    )
    """Provider, capability, arrived (market), arrived (real), whether it was a plain 200."""
    quotes: set[tuple[str, str, int]] = field(default_factory=set[tuple[str, str, int]])
    """Provider, symbol, event second of every quote that was served."""
    last_bars: float = float("-inf")
    """Market epoch seconds of the last good answer with bars."""


_INTERVAL = {"bars_1m": "1m", "bars_eod": "1d"}
_MINUTE = 60


def read_served(
    admin: Admin,
    providers: dict[str, str],
    truth: dict[str, dict[tuple[str, int], TrueBar]],
    since: float | None = None,
) -> Served:
    """Read the log.

    Args:
        admin: The simulator.
        providers: Source name of the simulator -> our source name.
        truth: Interval -> bars; the log names versions by their index.
        since: Leave out what was answered before, market epoch seconds; None: nothing.
    """
    served = Served(bars={name: defaultdict(list) for name in providers.values()})
    part = {"since": 0} if since is None else {"from": since}
    for row in admin.lines("/admin/served", **part):
        provider = providers[row["source"]]
        if row.get("feed"):
            # Feeds of one vendor are sources of their own.
            provider = f"{provider}.{row['feed']}"
        served.requests += 1
        if row["violation"]:
            served.violations += 1
            served.violation_examples.append(
                f"{row['source']} was asked over {limit(row['violation'])}, at {utc(row['arrived'])}"
            )
        good = row["status"] == 200 and not row["fault"]
        served.answers.append(
            (provider, row["capability"], row["arrived"], row["arrived_real"], good)
        )
        interval = _INTERVAL.get(row["capability"])
        if interval is not None:
            if good:
                served.last_bars = max(served.last_bars, row["answered"])
            bars = served.bars.setdefault(provider, defaultdict(list))
            _read_bars(bars, row, interval, truth[interval])
        for symbol, ts, *_values in row.get("quotes", ()):
            served.quotes.add((provider, symbol, int(ts)))
    return served


def _read_bars(
    into: dict[Key, list[Serving]],
    row: dict[str, Any],
    interval: str,
    truth: dict[tuple[str, int], TrueBar],
) -> None:
    answered = float(row["answered"])
    served: list[tuple[str, list[int], list[int]]] = row.get("served", [])
    for symbol, starts, indexes in served:
        for start, index in zip(starts, indexes, strict=True):
            bar = truth.get((symbol, start))
            if bar is not None:
                into[(interval, symbol, start)].append(
                    Serving(bar.versions[index].values, answered, closed=True)
                )
    for symbol, ts, *values, kind in row.get("inline", ()):
        start = int(ts) // _MINUTE * _MINUTE if interval == "1m" else int(ts)
        # Yahoo's first row says volume 0 whatever was traded: whoever knows that keeps the prices only.
        volume = None if kind == "first" else values[4]
        prices: Values = (values[0], values[1], values[2], values[3], volume)
        closed = kind in ("fault", "adjusted", "first")
        into[(interval, symbol, start)].append(Serving(prices, answered, closed))
