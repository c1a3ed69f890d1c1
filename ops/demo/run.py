"""Drives the demo: start everything, replay the day, let it settle, check it, say what happened."""

import json
import shutil
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from core.clock import Clock, ReplayClock, Segment, SystemClock, market_at, real_at, real_timestamp
from core.exchanges import calendar_of
from core.settings import load
from core.words import Tier
from db import universe
from db.clock import announce_segment
from db.counts import RevisedBar
from db.pool import Database, connect
from ops.connect import redis_client
from ops.demo import kept, report, scenario
from ops.demo.options import DemoOptions
from ops.demo.pace import START_SPEED, Pace
from ops.demo.screen import Screen
from ops.demo.watch import SimAdmin, Snapshot, Watch
from ops.embedded.home import Home
from ops.stack import SCHEDULER, WORKERS, Stack, StackError
from ops.supervise.process import Process
from ops.supervise.signals import StopSignals

_DRAIN_S = 45.0
_KILLED = "collect-t0"
_KILL_AFTER_OPEN = timedelta(minutes=140)
_PROBER = "as-of-reader"


@dataclass(slots=True)
class _Run:
    """What one run hands from step to step."""

    options: DemoOptions
    stack: Stack
    sim: SimAdmin
    endpoints: dict[str, Any]
    times: scenario.Timeline
    began: float
    pace: Pace
    db: Database
    probes: Path
    killed: list[str]
    seen: Snapshot = field(default_factory=Snapshot)
    """The last look."""
    drained_s: float = 0.0
    """Real seconds from the market's end until no work was left."""


def demo(options: DemoOptions) -> int:
    """Run the whole demo; 0 only when the checker found nothing wrong."""
    clock = SystemClock()
    parent = Home(load().gapless_home, clock=clock)
    home = Home(parent.path / "demo", clock=clock)
    began = clock.monotonic()
    stack = Stack("ops demo", home, clock, _say)
    with StopSignals() as stop:
        try:
            stack.open()
            _say("starting PostgreSQL, Valkey and a simulated market on this machine ...")
            run = _prepare(options, stack, began)
            with _closing(run.db):
                _say(f"everything is up after {clock.monotonic() - began:.1f} s; the market opens")
                if not _replay(run, stop):
                    _say("stopped by you; nothing was checked")
                    return 130
                result = _check(run)
                logs = stack.home.path / "logs"
                code = report.show(result, run.options, run.seen, run.killed, run.pace.slowed, logs)
                bar = kept.example(run.db, run.times.session) if options.keep else None
            if options.keep:
                _keep(run, stop, bar)
            elif code == 0:
                report.try_next()
            return code
        finally:
            stack.close()


def _prepare(options: DemoOptions, stack: Stack, began: float) -> _Run:
    log_file = stack.home.path / "served.ndjson"
    probes = stack.home.path / "probes.ndjson"
    for path in (log_file, probes):
        path.unlink(missing_ok=True)
    config = scenario.sim_config(options, str(log_file))
    endpoints = dict(stack.start_sim(config))
    sim = SimAdmin(endpoints["admin"])
    health = sim.get("/admin/health")
    listed = sim.get("/admin/universe")
    times = scenario.timeline(options, _utc(health["open"]), _utc(health["close"]))
    names = sorted({calendar_of(row["exchange"]) for row in listed})
    stack.begin_calendars(names, *_days(times))
    _reset_servers(stack)
    stack.start_servers(database_url=None, redis_url=None, durable=False)
    # The market stands still in effect (1x) a little before the start while the processes come up.
    first = Segment(real_timestamp(), times.start.timestamp() - 20, 1.0)
    market = stack.prepare((f"demo-{options.session}-{options.seed}", [first]))
    sim.post("/admin/clock", {"segments": [_row(first)]})
    faults = (
        scenario.default_faults(times)
        if options.faults is None and not options.bars
        else options.faults
    )
    if faults:
        sim.post("/admin/faults", {"add": faults})
    stack.env |= scenario.environment(options, endpoints, config_limits(config))
    db = Database(stack.database_url, market, max_size=3, role=None, application="gapless-demo")
    tier = Tier.T0 if options.bars else None
    rows = [
        (r["symbol"], tier or Tier(r["tier"]), calendar_of(r["exchange"]), r["exchange"])
        for r in listed
    ]
    universe.load(db, rows, origin="demo")
    stack.publish(endpoints["admin"])
    stack.start_processes([SCHEDULER, *WORKERS])
    words = [
        sys.executable,
        "-m",
        "sim.check",
        "probe",
        "--stack",
        str(stack.home.path / "stack.json"),
    ]
    words += ["--out", str(probes), "--until", times.end.isoformat()]
    stack.supervisor.add(Process(_PROBER, words, stop_rank=0, restart=False))
    stack.supervisor.start()

    def announce(segment: Segment) -> None:
        with connect(stack.database_url, application="gapless-demo") as conn:
            announce_segment(conn, segment)
        sim.post("/admin/clock", {"segments": [_row(s) for s in pace.segments]})
        if isinstance(market, ReplayClock):
            market.update(pace.segments)

    pace = Pace(announce, [first], auto=options.speed is None)
    return _Run(options, stack, sim, endpoints, times, began, pace, db, probes, [])


def config_limits(config: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The limits that the simulator enforces, by source."""
    return {name: source["limits"] for name, source in config["sources"].items()}


def _reset_servers(stack: Stack) -> None:
    """A demo always has a database of its own: what the last one left is deleted."""
    place = stack.home.known_place()
    if place is not None:
        for folder in ("postgres", "valkey"):
            shutil.rmtree(place.folder / folder, ignore_errors=True)


def _replay(run: _Run, stop: StopSignals) -> bool:
    """Run the market to its end and let the work drain; False when the person stopped it."""
    clock, market = run.stack.clock, run.db.clock
    watch = Watch(run.db, redis_client(run.stack.redis_url), run.sim, run.times.session)
    run.pace.change(run.options.speed or START_SPEED)
    title = f"gapless demo, {run.options.session}, {len(run.sim.get('/admin/universe'))} symbols"
    with Screen(title, run.times) as screen:
        faults: list[str] = []
        revised = 0
        next_look, drained_since = 0.0, None
        drain_until = None
        while not stop.requested:
            now = clock.monotonic()
            for event in run.stack.supervisor.poll():
                if event.name == "sim" and event.kind == "ended":
                    raise StackError(
                        f"the simulator ended ({event.detail}); see {run.stack.home.log_path('sim')}"
                    )
                if event.name != _PROBER:
                    screen.event(market.now(), f"{event.name} {event.kind} ({event.detail})")
            _maybe_kill(run, market, screen)
            if now >= next_look:
                next_look = now + 0.8
                seen = watch.look()
                screen.show(market.now(), run.pace.speed, seen)
                faults = _tell_faults(faults, seen, market, screen)
                revised = _tell_revised(revised, seen, market, screen, run.times)
                if market.now() < run.times.end:
                    run.pace.judge(waiting_jobs=seen.waiting_jobs, sim_lag_s=seen.sim_lag_s)
                else:
                    drain_until = drain_until or now + _DRAIN_S
                    idle = seen.backfill_open == 0 and seen.waiting_jobs == 0
                    idle = idle and _PROBER not in run.stack.supervisor.alive()
                    drained_since = (drained_since or now) if idle else None
                    if (drained_since and now - drained_since > 1.5) or now > drain_until:
                        run.drained_s = now - drain_until + _DRAIN_S
                        run.seen = watch.look(count=True)
                        screen.last(market.now(), run.pace.speed, run.seen)
                        return True
            stop.wait(0.1)
    return False


def _maybe_kill(run: _Run, market: Clock, screen: Screen) -> None:
    due = min(
        run.times.open + _KILL_AFTER_OPEN, run.times.open + (run.times.close - run.times.open) / 2
    )
    if run.killed or market.now() < due:
        return
    pid = run.stack.supervisor.kill(_KILLED, signal.SIGKILL)
    run.killed.append(_KILLED)
    screen.event(market.now(), f"{_KILLED} (process {pid}) killed with SIGKILL by the demo")


def _tell_faults(before: list[str], seen: Snapshot, market: Clock, screen: Screen) -> list[str]:
    for name in seen.active_faults:
        if name not in before:
            screen.event(market.now(), f"fault begins: {name}")
    for name in before:
        if name not in seen.active_faults:
            screen.event(market.now(), f"fault ends: {name}")
    return seen.active_faults


def _tell_revised(
    told: int, seen: Snapshot, market: Clock, screen: Screen, times: scenario.Timeline
) -> int:
    """Announce the first bars that their sources changed, and how many there were at the close."""
    closed = market.now() >= times.close
    if seen.revised and (told == 0 or (closed and told > 0)):
        screen.event(
            market.now(),
            f"{seen.revised:,} later versions so far: bars restated, old values stay readable",
        )
        return -1 if closed else seen.revised
    return told


def _check(run: _Run) -> dict[str, Any]:
    """Stop the writers, let the independent checker compare tables, reads and log with the truth."""
    ended_real = real_timestamp()
    run.stack.supervisor.stop_all_but({"sim"})
    run.sim.post("/admin/flush", {})
    _say("the market is closed; the checker compares every stored bar with the truth ...")
    out = run.stack.home.path / "check.json"
    out.unlink(missing_ok=True)
    words = [
        "--stack",
        str(run.stack.home.path / "stack.json"),
        "--probes",
        str(run.probes),
        "--json",
        str(out),
    ]
    words += ["--from", run.times.open.isoformat(), "--to", run.times.close.isoformat()]
    began = run.stack.clock.monotonic()
    code = run.stack.run_tool("sim.check", "verify", *words)
    if not out.exists():
        raise StackError(f"the checker gave no report (exit {code})")
    result: dict[str, Any] = json.loads(out.read_text())
    replayed = market_at(run.pace.segments, ended_real) - run.times.start.timestamp()
    started = real_at(run.pace.segments, run.times.start.timestamp())
    result["speed"] = round(replayed / (ended_real - started), 1)
    result["drain_seconds"] = round(run.drained_s, 1)
    result["check_seconds"] = round(run.stack.clock.monotonic() - began, 1)
    result["seconds"] = round(run.stack.clock.monotonic() - run.began, 1)
    if run.options.report:
        run.options.report.write_text(json.dumps(result, indent=2) + "\n")
    return result


def _keep(run: _Run, stop: StopSignals, bar: RevisedBar | None) -> None:
    # Whoever looks around wants a clock that goes as clocks go.
    run.pace.change(1.0)
    run.stack.command = kept.COMMAND
    run.stack.publish(run.endpoints["admin"])
    for words in kept.lines(run.stack.home.path, run.times, bar):
        _say(words)
    while not stop.requested:
        stop.wait(0.5)
    _say("stopping the servers; the next demo begins with a new database")


@contextmanager
def _closing(db: Database) -> Generator[None]:
    try:
        yield
    finally:
        db.close()


def _row(segment: Segment) -> list[float]:
    return [segment.real_start, segment.market_start, segment.speed]


def _days(times: scenario.Timeline) -> tuple[date, date]:
    return times.open.date() - timedelta(days=10), times.close.date() + timedelta(days=5)


def _utc(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)


def _say(words: str) -> None:
    print(words, flush=True)
