"""Measure 1: faults on the preferred source under load, each on its own, and the way back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.report import at_most
from bench.routing.callers import Callers, Event, share
from bench.routing.market import Stage, stage
from bench.run import MeasureError, Run

_PREFERRED = "finnhub"
_SOURCES: Mapping[str, Any] = {
    "finnhub": {"latency_ms": 25},
    "polygon": {"latency_ms": 25},
    "yahoo": {"latency_ms": 25},
}
_POLICY = "finnhub,polygon,yfinance"
_AMPLE = "100000/60s"
_PROCESSES, _PER_S = 4, 15.0
"""Calls per second of one process: together enough to see, little enough for two cores."""
_ELSEWHERE, _BACK, _WINDOW_S = 0.95, 0.9, 3.0
_ALLOWED_EACH = 5


@dataclass(frozen=True, slots=True)
class _Fault:
    name: str
    words: Mapping[str, Any]
    hard: bool


_FAULTS = (
    _Fault("refused", {"kind": "refuse"}, hard=True),
    _Fault("black_hole", {"kind": "hang"}, hard=True),
    _Fault("5xx", {"kind": "5xx"}, hard=True),
    _Fault("garbage", {"kind": "garbage", "variant": "truncated"}, hard=True),
    _Fault("throttle_200", {"kind": "throttle_200"}, hard=True),
    _Fault("429_storm", {"kind": "429"}, hard=True),
    _Fault("expired_key", {"kind": "expired_key"}, hard=True),
    _Fault("slow_10x", {"kind": "slow", "seconds": 0.4}, hard=False),
    _Fault("stale", {"kind": "stale", "age_s": 1800}, hard=False),
    _Fault("wrong_prices", {"kind": "wrong_prices", "factor": 1.1}, hard=False),
    _Fault("dropped_bars", {"kind": "drop_bars", "fraction": 0.3}, hard=False),
)
_QUICK = ("5xx", "wrong_prices", "dropped_bars")


@dataclass(frozen=True, slots=True)
class _Found:
    failover_s: float
    """From the onset until 95 % of the new calls went elsewhere and stayed there."""
    failed: int
    """Failed calls after the onset, probes aside."""
    flying: int
    """Calls that were out at the onset."""
    asked: int
    """Calls of all sources while the fault lasted."""
    answered: int
    """Questions that these answered."""
    unanswered: int
    back_s: float | None
    """From the end of the fault until the source had its share again; None: not waited for."""
    probes_at_once: int


def measure(run: Run) -> None:
    """Every fault, a fresh fleet each."""
    base = 0.0
    found: dict[str, _Found] = {}
    wanted = [fault for fault in _FAULTS if not run.quick or fault.name in _QUICK]
    with stage(run, _SOURCES) as made:
        base = _faultless(made)
        for fault in wanted:
            run.say(f"  {fault.name}")
            found[fault.name] = _one(made, fault)
    _report(run, wanted, found, base)


def _callers(made: Stage, name: str) -> Callers:
    task = {"per_s": _PER_S, "symbols": made.symbols(), "batch": 1, "loops": 8}
    settings = {
        "POLICY_BARS_1M": _POLICY,
        "FINNHUB_LIMITS": _AMPLE,
        "POLYGON_LIMITS": _AMPLE,
        "YFINANCE_LIMITS": _AMPLE,
    }
    made.forget_health()
    callers = Callers(made, name, task, settings)
    callers.start(_PROCESSES)
    return callers


def _faultless(made: Stage) -> float:
    """Calls per answered question when nothing is wrong."""
    callers = _callers(made, "faultless")
    made.clock.sleep(made.run.size(15, 4))
    callers.stop()
    events = callers.events()
    answered = sum(event.what == "q" for event in events)
    if not answered:
        raise MeasureError("nothing was answered although nothing was wrong")
    return sum(event.what == "s" for event in events) / answered


def _one(made: Stage, fault: _Fault) -> _Found:
    clock = made.clock
    callers = _callers(made, fault.name)
    try:
        # What is usual has to be known before anything can be unusual.
        clock.sleep(made.run.size(15, 7))
        before = callers.events()
        if (share(before, "s", _PREFERRED) or 0) < _BACK:
            raise MeasureError(
                f"{fault.name}: the preferred source is not preferred before the fault"
            )
        # Counted as of just before the fault could be felt.
        onset = clock.timestamp()
        made.fault(source=_PREFERRED, **fault.words)
        clock.sleep(made.run.size(45, 6) if fault.hard else made.run.size(60, 10))
        healed = clock.timestamp()
        made.heal()
        back_s = None
        if not made.run.quick or fault.name == "5xx":
            back_s = _wait_back(callers, healed)
        callers.stop()
    finally:
        made.heal()
    events = callers.events()
    during = [event for event in events if onset <= event.at < healed]
    probes = {event.more for event in events if event.what == "p"}
    failed = sum(event.what == "f" and event.source == _PREFERRED for event in during) - sum(
        event.what == "p" for event in during
    )
    return _Found(
        failover_s=_failover(during, onset, healed),
        failed=max(0, failed),
        flying=_flying([event for event in events if event.at < onset]),
        asked=sum(event.what == "s" for event in during),
        answered=sum(event.what == "q" for event in during),
        unanswered=sum(event.what == "x" for event in during),
        back_s=back_s,
        probes_at_once=_at_once(events) if probes else 0,
    )


def _wait_back(callers: Callers, healed: float) -> float:
    """Seconds from the end of the fault until the source had its full share for three seconds."""
    clock = callers.stage.clock
    while True:
        now = clock.timestamp()
        recent = [event for event in callers.events(now - _WINDOW_S) if event.what == "s"]
        part = share(recent, "s", _PREFERRED)
        if part is not None and part >= _BACK and now - healed > _WINDOW_S:
            return now - _WINDOW_S - healed
        if now - healed > 90:
            return float("inf")
        clock.sleep(0.25)


def _failover(during: Sequence[Event], onset: float, healed: float) -> float:
    """The first instant from which 95 % of the calls until the fault's end went elsewhere."""
    calls = [event for event in during if event.what == "s"]
    elsewhere, since = 0, healed
    for total, event in enumerate(reversed(calls), start=1):
        elsewhere += event.source != _PREFERRED
        if elsewhere / total >= _ELSEWHERE:
            since = event.at
    return since - onset


def _flying(before: Sequence[Event]) -> int:
    """Calls to the preferred source that had left and not come back."""
    mine = [event for event in before if event.source == _PREFERRED]
    left = sum(event.what == "s" for event in mine)
    return max(0, left - sum(event.what in "af" for event in mine))


def _at_once(events: Sequence[Event]) -> int:
    """The most probes of the preferred source that were out together."""
    out: set[str] = set()
    most = 0
    for event in events:
        if event.source != _PREFERRED:
            continue
        if event.what == "p":
            out.add(event.more)
            most = max(most, len(out))
        elif event.what == "e":
            out.discard(event.more)
    return most


def _report(run: Run, wanted: Sequence[_Fault], found: Mapping[str, _Found], base: float) -> None:
    report = run.report
    excess = {
        name: one.failed - one.flying - _ALLOWED_EACH * _PROCESSES for name, one in found.items()
    }
    amplification = {name: one.asked / max(1, one.answered) / base for name, one in found.items()}
    hard = {f.name: found[f.name].failover_s for f in wanted if f.hard}
    gray = {f.name: found[f.name].failover_s for f in wanted if not f.hard}
    for group, limit, key in ((hard, 5, "failover_hard_s_max"), (gray, 15, "failover_gray_s_max")):
        worst = max(group, key=lambda name: group[name])
        report.number(
            key, f"95 % of new calls elsewhere, worst: {worst}", group[worst], "s", at_most(limit)
        )
    for name, one in found.items():
        report.number(f"failover_{name}_s", f"  {name}", one.failover_s, "s")
    few = {f.name: excess[f.name] for f in wanted if f.hard}
    worst = max(few, key=lambda name: few[name])
    report.number(
        "failed_calls_over_max",
        f"failed calls beyond those out and 5 a process, worst: {worst}",
        few[worst],
        "",
        at_most(0),
    )
    worst = max(amplification, key=lambda name: amplification[name])
    report.number(
        "amplification_max",
        f"provider calls of a faultless run, worst: {worst}",
        amplification[worst],
        "x",
        at_most(1.2),
    )
    waits = [one.back_s for one in found.values() if one.back_s is not None]
    if waits:
        report.number(
            "recovery_s_max", "full share again after recovery, worst", max(waits), "s", at_most(60)
        )
    report.number(
        "probes_at_once_max",
        "probes of one source out at the same time",
        max(one.probes_at_once for one in found.values()),
        "",
        at_most(1),
    )
    report.number(
        "unanswered", "questions that nobody answered", sum(o.unanswered for o in found.values())
    )
