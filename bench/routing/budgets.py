"""Measure 2: eight processes spend the budgets of three sources, are killed, and lose Redis.

The simulator counts in true rolling windows by arrival. What happens while Redis restarts is counted
apart: it may forget the last second before it died.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.request import urlopen

from bench.report import at_least, at_most, exactly
from bench.routing.callers import Callers, Event
from bench.routing.market import Stage, stage
from bench.run import MeasureError, Run
from bench.timing import percentile

_PROCESSES = 8
_SECOND, _MINUTE, _DAY = "finnhub", "polygon", "alpaca"
"""The simulator's names of the source that each kind of window binds."""
_NAMES = {_SECOND: "finnhub", _MINUTE: "polygon", _DAY: "alpaca.iex"}
_APART_S = 8.0
"""Real seconds after a restart of Redis that are counted apart: what it forgot leaves short windows."""
_REFILL_S = 66.0
"""After a FLUSHALL short windows count as full once; a minute of use is no measure then."""


@dataclass(frozen=True, slots=True)
class _Sizes:
    seconds: int
    second: int
    """Units of one second's window."""
    minute: int
    day: int
    kill_every_s: float
    least: int
    """Requests that there have to be."""


@dataclass(frozen=True, slots=True)
class _Arrival:
    at: float
    source: str
    violation: bool


def measure(run: Run) -> None:
    """Spend, disturb, count."""
    full = _Sizes(960, 170, 9600, 70_000, 20.0, 300_000)
    quick = _Sizes(24, 60, 1200, 700, 6.0, 0)
    sizes = quick if run.quick else full
    limits: Mapping[str, list[tuple[int, int]]] = {
        _SECOND: [(sizes.second, 1), (sizes.second * 60, 60), (sizes.day * 20, 86_400)],
        _MINUTE: [(sizes.second * 2, 1), (sizes.minute, 60), (sizes.day * 20, 86_400)],
        _DAY: [(sizes.second, 1), (sizes.second * 50, 60), (sizes.day, 86_400)],
    }
    sources = {
        name: {"limits": [{"units": units, "seconds": s} for units, s in windows]}
        for name, windows in limits.items()
    }
    with stage(run, sources) as made:
        story = _spend(made, sizes, limits)
        arrivals = _arrivals(made)
    _report(run, sizes, arrivals, story)


@dataclass(slots=True)
class _Story:
    began: float = 0.0
    ended: float = 0.0
    restarted: tuple[float, float] = (0.0, 0.0)
    flushed: float = 0.0
    kills: int = 0
    events: Sequence[Event] = ()


def _spend(made: Stage, sizes: _Sizes, limits: Mapping[str, list[tuple[int, int]]]) -> _Story:
    text = {
        name: ",".join(f"{units}/{s}s" for units, s in windows) for name, windows in limits.items()
    }
    callers = Callers(
        made,
        "spender",
        {
            "symbols": made.symbols(),
            "sources": {
                _NAMES[_SECOND]: {"live": 1, "backfill": 1},
                _NAMES[_MINUTE]: {"live": 1},
                _NAMES[_DAY]: {"live": 1},
            },
        },
        {
            "POLICY_QUOTES_L1": ",".join(_NAMES.values()),
            "FINNHUB_LIMITS": text[_SECOND],
            "POLYGON_LIMITS": text[_MINUTE],
            "ALPACA_LIMITS": text[_DAY],
        },
        module="bench.routing.spender_process",
    )
    clock, story = made.clock, _Story()
    callers.start_one(0, stepped=True)
    callers.wait_ready(1)
    for number in range(1, _PROCESSES):
        callers.start_one(number)
    callers.wait_ready(_PROCESSES)
    story.began = clock.timestamp()
    restart_at, flush_at = 0.4 * sizes.seconds, 0.65 * sizes.seconds
    draws, next_kill = random.Random(1), sizes.kill_every_s
    while (passed := clock.timestamp() - story.began) < sizes.seconds:
        if passed >= next_kill:
            next_kill += sizes.kill_every_s
            # The one with the wrong clock lives, so that it is wrong all the time.
            victim = draws.randrange(1, _PROCESSES)
            callers.kill(victim)
            callers.start_one(victim)
            story.kills += 1
        if passed >= restart_at and not story.restarted[0]:
            before = clock.timestamp()
            made.restart_redis()
            story.restarted = (before, clock.timestamp() + _APART_S)
        if passed >= flush_at and not story.flushed:
            made.flush()
            story.flushed = clock.timestamp()
        clock.sleep(0.1)
    story.ended = clock.timestamp()
    callers.stop()
    story.events = callers.events()
    return story


def _arrivals(made: Stage) -> list[_Arrival]:
    found: list[_Arrival] = []
    with urlopen(f"{made.endpoints['admin']}/admin/served?since=0", timeout=120) as answer:  # noqa: S310 - loopback
        for line in answer:
            row: dict[str, Any] = json.loads(line)
            if row["capability"] == "quotes_l1":
                found.append(
                    _Arrival(row["arrived_real"], row["source"], row["violation"] is not None)
                )
    return sorted(found, key=lambda one: one.at)


def _report(run: Run, sizes: _Sizes, arrivals: Sequence[_Arrival], story: _Story) -> None:
    if len(arrivals) < sizes.least:
        raise MeasureError(f"{len(arrivals)} requests; {sizes.least} were to be made")
    report = run.report
    low, high = story.restarted
    over = [one for one in arrivals if one.violation]
    apart = sum(low <= one.at <= high for one in over)
    report.number("requests", "requests that arrived", len(arrivals))
    report.number("kills", "processes killed and started again", story.kills)
    report.number("limit_violations", "arrivals over a limit", len(over) - apart, "", exactly(0))
    report.number("limit_violations_at_restart", "  of these apart, while Redis restarted", apart)
    wrong = [abs(float(e.more)) for e in story.events if e.what == "c" and abs(float(e.more)) > 1]
    report.number(
        "clock_step_s",
        "steps of one process's wall clock",
        max(wrong, default=0.0),
        "s",
        at_least(29),
    )
    report.number(
        "budget_used_1s_ratio",
        "used of a window of a second while work waits",
        _used(arrivals, story, _SECOND, sizes.second, 1.0),
        "",
        at_least(0.80),
    )
    minute = _used(arrivals, story, _MINUTE, sizes.minute, 60.0)
    day = sum(one.source == _DAY and not one.violation for one in arrivals) / sizes.day
    if run.quick:
        # The first minute is spent in bursts; nothing rolls yet.
        mine = [o for o in arrivals if o.source == _MINUTE and o.at < story.flushed]
        minute = len(mine) / sizes.minute
    report.number(
        "budget_used_minute_ratio", "used of a window of a minute", minute, "", at_least(0.95)
    )
    report.number(
        "budget_used_day_ratio", "used of a day's cap, FLUSHALL included", day, "", at_most(1)
    )
    report.number(
        "budget_used_ratio",
        "used of windows of a minute and more, the least",
        min(minute, day),
        "",
        at_least(0.95),
    )
    looks = [float(e.more) for e in story.events if e.what == "b" and not low <= e.at <= high]
    report.number("acquire_p50_ms", "look that is granted, median", percentile(looks, 0.5), "ms")
    report.number(
        "acquire_p99_ms", "look that is granted, p99", percentile(looks, 0.99), "ms", at_most(2)
    )


def _used(
    arrivals: Sequence[_Arrival], story: _Story, source: str, units: int, window_s: float
) -> float:
    """Rate over what the window allows, restart and FLUSHALL with their refill left out."""
    out = [
        (story.restarted[0], story.restarted[1] + min(window_s, _REFILL_S)),
        (story.flushed, story.flushed + max(3.0, min(_REFILL_S, window_s + 6.0))),
        (story.began, story.began + window_s),
    ]

    def counts(at: float) -> bool:
        return not any(low <= at < high for low, high in out)

    slots = [
        at
        for at in range(int(story.began) + 1, int(story.ended) - 1)
        if counts(at) and counts(at + 0.999)
    ]
    if not slots:
        return 0.0
    wanted = set(slots)
    calls = sum(
        one.source == source and not one.violation and int(one.at) in wanted for one in arrivals
    )
    return calls / (len(slots) / window_s * units)
