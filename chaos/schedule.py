"""What goes wrong when: the same seed gives the same schedule, on any machine."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from sim.faults import KINDS


class Kind(StrEnum):
    """What can go wrong."""

    KILL = "kill"
    """SIGKILL of one process."""
    PAUSE = "pause"
    """SIGSTOP, later SIGCONT, of one process."""
    TERM = "term"
    """SIGTERM of one process."""
    REDIS_KILL = "redis_kill"
    """SIGKILL of the server; it comes back with what its append-only file holds."""
    REDIS_RESTART = "redis_restart"
    """An orderly stop and start."""
    REDIS_FLUSH = "redis_flush"
    """FLUSHALL."""
    REDIS_TRUNCATED = "redis_truncated"
    """SIGKILL, and the end of the append-only file is cut off before the server comes back."""
    POSTGRES_STOP = "postgres_stop"
    """Immediate stop, which aborts every transaction and writes no checkpoint, and start."""
    CUT = "cut"
    """Connections to one server are reset, and refused for a while."""
    DELAY = "delay"
    """Connections to one server get slow, or silent."""
    PROVIDER = "provider"
    """A provider answers badly or not at all."""


PROCESSES: Sequence[str] = (
    "scheduler",
    "scheduler-2",
    "collect-t0",
    "collect-t1",
    "collect-t2",
    "backfill-t0",
    "backfill-t1",
    "backfill-t2",
    "intake",
    "intake-2",
    "exporter",
)
_WEIGHTS: Mapping[Kind, int] = {
    Kind.KILL: 3,
    Kind.PAUSE: 11,
    Kind.TERM: 8,
    Kind.REDIS_KILL: 8,
    Kind.REDIS_RESTART: 8,
    Kind.REDIS_FLUSH: 8,
    Kind.REDIS_TRUNCATED: 8,
    Kind.POSTGRES_STOP: 9,
    Kind.CUT: 8,
    Kind.DELAY: 4,
    Kind.PROVIDER: 13,
}
_UNTRUE = ("stale", "wrong_prices")
"""The routing bench's: what a source says of a bar is stored as what it said."""
_PROVIDER_FAULTS = tuple(kind for kind in KINDS if kind not in _UNTRUE)
_SOURCES = ("finnhub", "yahoo")
_LINKS = ("postgres-link", "postgres-link", "redis-link")
_WRITERS = ("collect-t1", "collect-t1", "collect-t0", "backfill-t2")
"""T1 stores bars that are settled when they are first asked for."""
_AMBUSHES: Sequence[tuple[str, Sequence[str], float]] = (
    ("candles_intraday", _WRITERS, 4.0),
    ("candles_intraday", ("backfill",), 9.0),
    ("rlc_inbox", ("intake",), 9.0),
)
"""In each run one of these is killed at this table, in the midst of its transaction; and for how many real seconds
it is waited for. A name without a tier is the first of these processes that comes by."""
_DURING_DELAY = frozenset({Kind.KILL, Kind.TERM, Kind.POSTGRES_STOP, Kind.CUT})
_DURING_SHARE = 0.6
"""Of these, those that strike while PostgreSQL's connections are slow: transactions are open for long then,
and what dies, dies in the middle of one."""
_LEADING_SHARE = 0.35
"""Of the strikes against a process, those against the scheduler that leads or a writer of live bars."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong."""

    at_s: float
    """Real seconds after the replay began."""
    kind: Kind
    target: str
    """Process, server, link to a server, or source."""
    lasts_s: float = 0.0
    """Real seconds from its begin to its end; 0 for what is over at once."""
    detail: Mapping[str, float | str] = field(default_factory=dict[str, "float | str"])

    @property
    def ends_s(self) -> float:
        return self.at_s + self.lasts_s

    def __str__(self) -> str:
        words = [f"{self.at_s:6.2f} s", self.kind.value, self.target]
        if self.lasts_s:
            words.append(f"for {self.lasts_s:.2f} s")
        words += [f"{name}={value}" for name, value in self.detail.items()]
        return " ".join(words)


def schedule(
    seed: int, count: int, first_s: float, last_s: float, kinds: Sequence[Kind] = ()
) -> tuple[Fault, ...]:
    """Faults of one run, by begin.

    Strikes come in random order at random instants, many while transactions are slow; two against the
    same target keep apart, so that each finds it alive, but they overlap with everything else.

    Args:
        seed: Of every draw.
        count: How many.
        first_s: None begins earlier, real seconds.
        last_s: Each has ended by then.
        kinds: Only these; empty: all of them, and a slow database in each run.
    """
    draws = random.Random(f"gapless chaos {seed}")
    always = [] if kinds else [_slow_database(draws), *_ambushes(draws)]
    drawn = [_fault(draws, kind) for kind in _kinds(draws, count - len(always), kinds)]
    drawn = sorted([*always, *drawn], key=_delays_first)[:count]
    found: list[Fault] = []
    for fault in drawn:
        # A few tries to find a free moment for this target; else it is left out.
        for _ in range(40):
            placed = _placed(draws, fault, found, first_s, last_s)
            if all(_apart(placed, other) for other in found):
                found.append(placed)
                break
    return tuple(sorted(found, key=lambda one: (one.at_s, one.kind, one.target)))


def _delays_first(fault: Fault) -> bool:
    return fault.kind is not Kind.DELAY


def _placed(
    draws: random.Random, fault: Fault, found: Sequence[Fault], first_s: float, last_s: float
) -> Fault:
    # A short run has no time for the long ones.
    fault = replace(fault, lasts_s=min(fault.lasts_s, round(last_s - first_s, 2)))
    slow = [one for one in found if one.kind is Kind.DELAY and one.target == "postgres-link"]
    anywhere = "at" in fault.detail or fault.kind not in _DURING_DELAY
    if slow and not anywhere and draws.random() < _DURING_SHARE:
        delay = draws.choice(slow)
        at_s = min(draws.uniform(delay.at_s + 0.1, delay.ends_s), last_s - fault.lasts_s)
        target = fault.target
        if fault.kind in BY_SIGNAL:
            target = draws.choice(_WRITERS)
        return Fault(round(at_s, 2), fault.kind, target, fault.lasts_s, fault.detail)
    at_s = draws.uniform(first_s, last_s - fault.lasts_s)
    return Fault(round(at_s, 2), fault.kind, fault.target, fault.lasts_s, fault.detail)


def _kinds(draws: random.Random, count: int, only: Sequence[Kind]) -> list[Kind]:
    names = list(only or _WEIGHTS)
    return draws.choices(names, weights=[_WEIGHTS[name] for name in names], k=max(0, count))


BY_SIGNAL = frozenset({Kind.KILL, Kind.TERM, Kind.PAUSE})
"""Kinds that strike a process."""
_SETTLED_S: Mapping[str, float] = {
    "postgres": 1.2,
    "redis": 0.6,
    "postgres-link": 0.6,
    "redis-link": 0.6,
}
"""Real seconds that a server needs to be back before it is struck again."""
_STARTED_S = 2.5
"""The same for a process."""


def _apart(one: Fault, other: Fault) -> bool:
    if one.target != other.target or {one.kind, other.kind} == {Kind.CUT, Kind.DELAY}:
        return True
    rest_s = _SETTLED_S.get(one.target, _STARTED_S)
    return one.at_s >= other.ends_s + rest_s or other.at_s >= one.ends_s + rest_s


def _fault(draws: random.Random, kind: Kind) -> Fault:
    match kind:
        case Kind.KILL | Kind.TERM:
            return Fault(0.0, kind, _process(draws))
        case Kind.PAUSE:
            # Longer than a scheduler's lease, a worker's, or neither.
            return Fault(0.0, kind, _process(draws), round(draws.choice((0.3, 1.5, 4.0, 6.0)), 2))
        case Kind.REDIS_KILL | Kind.REDIS_RESTART:
            return Fault(0.0, kind, "redis", round(draws.uniform(0.1, 2.0), 2))
        case Kind.REDIS_TRUNCATED:
            cut = float(draws.choice((1, 40, 700, 20_000)))
            return Fault(0.0, kind, "redis", round(draws.uniform(0.1, 1.0), 2), {"bytes": cut})
        case Kind.REDIS_FLUSH:
            return Fault(0.0, kind, "redis")
        case Kind.POSTGRES_STOP:
            return Fault(0.0, kind, "postgres", round(draws.uniform(0.2, 2.0), 2))
        case Kind.CUT:
            lasts_s = round(draws.choice((0.0, 0.5, 1.5)), 2)
            return Fault(0.0, kind, draws.choice(_LINKS), lasts_s)
        case Kind.DELAY:
            delay_s = draws.choice((0.02, 0.1, 0.3, 0.3, 5.0))
            lasts_s = round(draws.uniform(1.0, 3.0), 2)
            return Fault(0.0, kind, draws.choice(_LINKS), lasts_s, {"seconds": delay_s})
        case Kind.PROVIDER:
            detail = {"fault": draws.choice(_PROVIDER_FAULTS)}
            lasts_s = round(draws.uniform(1.0, 4.0), 2)
            return Fault(0.0, kind, draws.choice(_SOURCES), lasts_s, detail)


def _slow_database(draws: random.Random) -> Fault:
    """Each run has one: a transaction takes a second or two meanwhile."""
    lasts_s = round(draws.uniform(2.0, 4.0), 2)
    detail = {"seconds": draws.choice((0.05, 0.15, 0.3))}
    return Fault(0.0, Kind.DELAY, "postgres-link", lasts_s, detail)


def _ambushes(draws: random.Random) -> list[Fault]:
    """Each run has these: a process dies with its transaction open."""
    return [
        Fault(0.0, Kind.KILL, draws.choice(targets), lasts_s, {"at": table})
        for table, targets, lasts_s in _AMBUSHES
    ]


def _process(draws: random.Random) -> str:
    if draws.random() < _LEADING_SHARE:
        return draws.choice(("scheduler", "collect-t0", "collect-t1", "intake"))
    return draws.choice(PROCESSES)
