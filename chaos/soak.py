"""``python -m chaos.soak``: an hour without faults; nothing may grow but the tables.

Exit codes: 0 every figure kept its limit, 1 one did not.
"""

import argparse
import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final, cast

from chaos.traffic import Traffic
from chaos.world import Plan, World
from core.clock import Clock, SystemClock
from core.errors import GaplessError
from core.log import configure
from core.settings import load
from ops.embedded.home import Home
from sim.check.report import Range, verify
from sim.check.stack import read_stack

GROWTH: Final = 0.05
"""By how much the memory of a process may grow after the warm-up."""
WARM_UP: Final = 0.25
"""Share of the time after which a process has met everything that it keeps."""
_WINDOW: Final = 0.2
"""Share of the time at each end over which a figure's median is taken."""
_SAMPLE_S = 10.0
_SPARE_KEYS, _SPARE_HANDLES = 1.25, 2
_CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'gapless-%'"


@dataclass(slots=True)
class Series:
    """One figure over time."""

    at_s: list[float] = field(default_factory=list[float])
    values: list[float] = field(default_factory=list[float])

    def add(self, at_s: float, value: float) -> None:
        """One sample."""
        self.at_s.append(at_s)
        self.values.append(value)

    def ends(self, whole_s: float) -> tuple[float, float]:
        """Medians after the warm-up and at the end."""
        early = WARM_UP * whole_s
        first = [v for t, v in self._pairs() if early <= t < early + _WINDOW * whole_s]
        last = [v for t, v in self._pairs() if t >= (1 - _WINDOW) * whole_s]
        return (median(first), median(last)) if first and last else (0.0, 0.0)

    def _pairs(self) -> Sequence[tuple[float, float]]:
        return list(zip(self.at_s, self.values, strict=True))


def soak(plan: Plan, home: Home, clock: Clock, seconds: float) -> dict[str, Any]:
    """Run for so many real seconds; returns the flat report."""
    world = World(plan, home, clock, "make soak")
    try:
        world.open()
        series = _watch(world, seconds)
        restarts = {one.name: one.restarts for one in world.stack.supervisor.status()}
        world.stack.supervisor.stop_all_but({"sim"})
        span = Range(world.times.open, world.times.close)
        checked = verify(read_stack(world.stack_file), span, None)
        return _report(series, seconds, checked, sum(restarts.values()))
    finally:
        world.close()


def _watch(world: World, seconds: float) -> Mapping[str, Series]:
    clock = world.clock
    traffic = Traffic(world, random.Random("gapless soak"), every_s=3.0)
    series: dict[str, Series] = {}
    began = world.go()
    next_s = 0.0
    while (now_s := clock.monotonic() - began) < seconds:
        world.stack.supervisor.poll()
        market = world.db.clock.now()
        if market < world.times.close:
            traffic.step(now_s, market)
        if now_s >= next_s:
            next_s += _SAMPLE_S
            for name, value in _sample(world).items():
                series.setdefault(name, Series()).add(now_s, value)
        clock.sleep(0.1)
    return series


def _sample(world: World) -> dict[str, float]:
    found: dict[str, float] = {}
    for status in world.stack.supervisor.status():
        if status.pid is None or status.name == "sim":
            continue
        found[f"rss_mb {status.name}"] = _rss_mb(status.pid)
        found[f"handles {status.name}"] = _entries(f"/proc/{status.pid}/fd")
        found[f"threads {status.name}"] = _entries(f"/proc/{status.pid}/task")
    redis = cast("Any", world.redis)
    found["redis keys"] = redis.dbsize()
    found["redis memory_mb"] = redis.info("memory")["used_memory"] / 1e6
    found["redis connections"] = redis.info("clients")["connected_clients"]
    with world.db.transaction() as conn:
        row = conn.execute(_CONNECTIONS).fetchone()
    found["postgres connections"] = 0 if row is None else row[0]
    return found


def _entries(folder: str) -> int:
    return sum(1 for _ in Path(folder).iterdir())


def _rss_mb(pid: int) -> float:
    """Memory of its own, without what it shares with others of the same program."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1000
    return 0.0


def _report(
    series: Mapping[str, Series], seconds: float, checked: dict[str, Any], restarts: int
) -> dict[str, Any]:
    grown: dict[str, tuple[float, float]] = {n: s.ends(seconds) for n, s in series.items()}
    bad: list[str] = []
    for name, (first, last) in sorted(grown.items()):
        limit = _limit(name, first)
        if last > limit:
            bad.append(f"{name}: {first:.1f} -> {last:.1f}, at most {limit:.1f}")
        print(f"{name:<28} {first:10.1f} -> {last:10.1f}{'  GREW' if last > limit else ''}")
    memory = [last / first - 1 for n, (first, last) in grown.items() if n.startswith("rss")]
    flat: dict[str, Any] = {
        "seconds": round(seconds),
        "restarts": restarts,
        "rss_growth_max": round(max(memory, default=0.0), 4),
        "grew": bad,
        **{name: checked[name] for name in ("expected", "missing", "wrong", "duplicate")},
        **{name: checked[name] for name in ("lookahead", "limit_violations", "requests")},
        **{name.replace(" ", "_"): [round(v, 1) for v in ends] for name, ends in grown.items()},
        **{
            f"series_{name.replace(' ', '_')}": [round(v, 1) for v in one.values]
            for name, one in series.items()
        },
    }
    flat["ok"] = not bad and not restarts and bool(checked["ok"])
    return flat


def _limit(name: str, first: float) -> float:
    if name.startswith("rss"):
        return first * (1 + GROWTH)
    if name.startswith("redis") and "connections" not in name:
        # What is kept for a minute breathes with the market's minute.
        return first * _SPARE_KEYS
    return first + _SPARE_HANDLES


def main() -> int:
    """Run one soak."""
    parser = argparse.ArgumentParser(prog="chaos.soak", description="Looks for what grows.")
    parser.add_argument("--minutes", type=float, default=60.0, help="real")
    parser.add_argument("--speed", type=float, default=8.0, help="market seconds a second")
    parser.add_argument("--symbols", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    configure("ERROR")
    clock = SystemClock()
    seconds = options.minutes * 60
    # Minutes of the session are judged; what is left of the hour is the evening.
    judged = min(390, int(seconds * options.speed / 60) - 15)
    plan = Plan(options.seed, options.symbols, judged, options.speed)
    try:
        report = soak(plan, Home(load().gapless_home, clock=clock).within("soak"), clock, seconds)
    except GaplessError as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    print(f"restarts {report['restarts']}, missing {report['missing']}, ok {report['ok']}")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
