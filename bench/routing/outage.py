"""Measure 3: Redis stands still; calls go on, no limit is broken, and nothing needs a restart."""

import os
import signal
from collections.abc import Mapping
from typing import Any

from bench.report import at_least, at_most, exactly
from bench.routing.callers import Callers
from bench.routing.market import Stage, stage
from bench.run import MeasureError, Run
from bench.timing import percentile

_LIMITED, _AMPLE, _UNITS = "finnhub", "100000/60s", 40
_PROCESSES, _PER_S = 4, 15.0
_SOURCES: Mapping[str, Any] = {
    "finnhub": {"latency_ms": 20, "limits": [{"units": _UNITS, "seconds": 1}]},
    "yahoo": {"latency_ms": 20},
}


def measure(run: Run) -> None:
    """Stop Redis under load, let it go on."""
    with stage(run, _SOURCES) as made:
        _measure(run, made)


def _measure(run: Run, made: Stage) -> None:
    clock = made.clock
    callers = Callers(
        made,
        "outage",
        {"per_s": _PER_S, "symbols": made.symbols(), "batch": 1, "loops": 6, "waits": True},
        {
            "POLICY_BARS_1M": "finnhub,csv,yfinance",
            "FINNHUB_LIMITS": f"{_UNITS}/1s",
            # Without limits of its own it can be asked while nobody gives tokens.
            "POLICY_QUOTES_L1": "finnhub",
            "YFINANCE_LIMITS": _AMPLE,
        },
    )
    callers.start(_PROCESSES)
    clock.sleep(run.size(15, 3))
    before = clock.timestamp()
    pid = made.redis.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        clock.sleep(run.size(20, 5))
    finally:
        os.kill(pid, signal.SIGCONT)
    resumed = clock.timestamp()
    back_s = _wait_answers(callers, resumed)
    clock.sleep(run.size(15, 3))
    callers.stop()
    events = callers.events()
    usual = [float(e.source) for e in events if e.what == "b" and e.at < before]
    during = [float(e.source) for e in events if e.what == "b" and before <= e.at < resumed]
    if not during:
        raise MeasureError("no call looked for a source while Redis stood still")
    violations = sum(
        source["violations"] for source in made.admin.get("/admin/stats")["sources"].values()
    )
    report = run.report
    report.number("blocked_ms_p99_usual", "look for a source, p99", percentile(usual, 0.99), "ms")
    report.number(
        "blocked_ms_max_redis_down",
        "longest look for a source while Redis stood still",
        max(during),
        "ms",
        at_most(100),
    )
    report.number("blocked_ms_p99_redis_down", "  the same, p99", percentile(during, 0.99), "ms")
    report.number(
        "looks_redis_down", "looks while Redis stood still", len(during), "", at_least(10)
    )
    report.number(
        "limit_violations_redis_down", "arrivals over a limit", violations, "", exactly(0)
    )
    report.number(
        "back_s_after_redis", "limited source answers again after", back_s, "s", at_most(5)
    )


def _wait_answers(callers: Callers, resumed: float) -> float:
    """Seconds until the limited source was asked again, without any restart."""
    clock = callers.stage.clock
    while clock.timestamp() - resumed < 30:
        asked = [e for e in callers.events(resumed) if e.what == "s" and e.source == _LIMITED]
        if asked:
            return asked[0].at - resumed
        clock.sleep(0.05)
    return float("inf")
