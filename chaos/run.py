"""One seed: start a world, let it run and break, let it heal, judge it."""

import json
import random
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from chaos.ambush import Ambush
from chaos.freshness import Freshness, longest_stale, recoveries
from chaos.healing import Healing
from chaos.judge import READS, Verdict, judge, on_lists, probes, stranded
from chaos.lateness import Lateness
from chaos.schedule import BY_SIGNAL, Fault
from chaos.strike import Struck, begin, end
from chaos.traffic import Traffic
from chaos.world import Plan, World
from core.clock import Clock
from ops.embedded.home import Home
from ops.supervise.process import Process

_LOOK_S = 0.2
_LATENESS_S = 4.0
_DRAIN_S = 75.0
_PROBER = "as-of-reader"
_PHASES = ("start", "run", "stop", "judge")


@dataclass(slots=True)
class Outcome:
    """What one seed gave."""

    seed: int
    scheduled: int
    counts: dict[str, int]
    bad: list[str]
    examples: list[str]
    timeline: list[str]
    """One line a fault."""
    hits: dict[str, int]
    """Faults that met a live target, by kind."""
    recoveries: list[dict[str, Any]]
    drain_s: float
    stale_s: float
    """Real seconds of the longest stretch in which a T0 symbol was not answered within the SLO."""
    seconds: float
    """Real, all in all."""
    waited_for: list[str] = field(default_factory=list[str])
    """What was the last to end after the market did."""
    phases: dict[str, float] = field(default_factory=dict[str, float])
    """Real seconds of starting, running until drained, stopping and judging."""
    restarts: int = 0
    mutation: str | None = None
    trouble: str | None = None
    """What kept the run from being judged."""

    @property
    def ok(self) -> bool:
        return not self.bad and self.trouble is None

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


def run(plan: Plan, faults: Sequence[Fault], home: Home, clock: Clock) -> Outcome:
    """Run one seed in a state folder of its own, whose servers' data is deleted first."""
    began = clock.monotonic()
    world = World(plan, home, clock)
    try:
        marks = [began]

        def mark() -> None:
            marks.append(clock.monotonic())

        world.open()
        mark()
        course = Course(world, faults)
        course.take()
        mark()
        world.stack.supervisor.stop_all_but({"sim"})
        mark()
        verdict = judge(world, course.struck, course.traffic, course.lateness.late)
        mark()
        if verdict.bad:
            _keep_logs(home, plan.seed)
        phases = {
            name: round(end - start, 1)
            for name, start, end in zip(_PHASES, marks, marks[1:], strict=False)
        }
        return _outcome(world, course, verdict, phases)
    finally:
        world.close()


def _keep_logs(home: Home, seed: int) -> None:
    """What the processes of a failed seed said, before the next seed overwrites it."""
    kept = home.path.parent / "chaos-failures" / str(seed)
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(home.path / "logs", kept)


@dataclass(slots=True)
class Course:
    """A run from the first minute to the last job."""

    world: World
    faults: Sequence[Fault]
    struck: list[Struck] = field(default_factory=list[Struck])
    traffic: Traffic = field(init=False)
    freshness: Freshness = field(init=False)
    lateness: Lateness = field(init=False)
    _ambushes: list[tuple[Ambush, Struck]] = field(default_factory=list[tuple[Ambush, Struck]])
    drain_s: float = 0.0
    waited_for: list[str] = field(default_factory=list[str])
    """What was open when last looked."""
    started_s: float = 0.0
    """Monotonic second at which the replay began."""
    _asked: threading.Event = field(default_factory=threading.Event)
    """Nobody asks for anything more."""
    _over: threading.Event = field(default_factory=threading.Event)
    _broken: list[Exception] = field(default_factory=list[Exception])
    _threads: list[threading.Thread] = field(default_factory=list[threading.Thread])

    def __post_init__(self) -> None:
        world = self.world
        draws = random.Random(f"gapless chaos traffic {world.plan.seed}")
        self.traffic = Traffic(world, draws)
        self.freshness = Freshness(world.direct_url, world.times.open)
        self.lateness = Lateness(world.redis, world.segments)

    def take(self) -> None:
        """Replay, strike, heal, drain."""
        self.begin()
        try:
            with ThreadPoolExecutor(4, thread_name_prefix="strike") as pool:
                self._break(pool)
            self.world.settle()
            self.heal()
        finally:
            self.stop()

    def begin(self) -> None:
        """Let the market run, with reads, asks and looks beside it."""
        self._start_prober()
        self.started_s = self.world.go()
        for name, every_s, work, over in (
            ("traffic", 0.1, self._ask, self._asked),
            ("freshness", _LOOK_S, self._look, self._over),
            ("lateness", _LATENESS_S, self.lateness.look, self._over),
        ):
            thread = threading.Thread(
                target=_beside, args=(every_s, work, over, self._broken), name=name
            )
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End what goes on beside the processes; safe when ``begin`` failed half-way."""
        self._asked.set()
        self._over.set()
        for thread in self._threads:
            thread.join()
        self.freshness.close()

    def _break(self, pool: ThreadPoolExecutor) -> None:
        waiting = list(self.faults)
        open_: list[Struck] = []
        busy: list[tuple[Future[None], Struck]] = []
        while waiting or open_ or busy:
            self.tend()
            now_s = self._now()
            if waiting and waiting[0].at_s <= now_s:
                fault = waiting.pop(0)
                struck = Struck(fault, len(self.struck), hit=False, began_s=now_s)
                self.struck.append(struck)
                open_.append(struck)
                self._do(pool, busy, struck, self._begin)
            for struck in [one for one in open_ if one.fault.ends_s <= now_s]:
                if any(one is struck for _, one in busy):
                    continue
                open_.remove(struck)
                self._do(pool, busy, struck, self._end)
            self._lie_in_wait(now_s)
            for future, struck in [pair for pair in busy if pair[0].done()]:
                busy.remove((future, struck))
                future.result()
            self.world.clock.sleep(0.01)

    def _do(
        self,
        pool: ThreadPoolExecutor,
        busy: list[tuple[Future[None], Struck]],
        struck: Struck,
        what: Callable[[Struck], None],
    ) -> None:
        # Signals are for the thread that owns the processes; the others may take a second.
        if struck.fault.kind in BY_SIGNAL:
            what(struck)
        else:
            busy.append((pool.submit(what, struck), struck))

    def _begin(self, struck: Struck) -> None:
        begin(self.world, struck)
        table = struck.fault.detail.get("at")
        if table is not None:
            world, target = self.world, struck.fault.target
            ambush = Ambush(world.stack.supervisor, world.direct_url, target, str(table))
            self._ambushes.append((ambush, struck))

    def _end(self, struck: Struck) -> None:
        end(self.world, struck)
        for ambush, waiting in list(self._ambushes):
            if waiting is struck:
                ambush.release()
                self._ambushes.remove((ambush, waiting))
        if struck.ended_s is None:
            struck.ended_s = self._now()

    def _lie_in_wait(self, now_s: float) -> None:
        for ambush, struck in [pair for pair in self._ambushes if not pair[1].hit]:
            killed = ambush.look()
            if killed:
                struck.hit, struck.began_s, struck.ended_s = True, now_s, now_s
                struck.note = f"{' and '.join(killed)} at {now_s:.2f} s"

    def heal(self) -> None:
        """Let the market end, then wait until no work is left."""
        world, clock = self.world, self.world.clock
        while world.db.clock.now() < world.times.end:
            self.tend()
            clock.sleep(0.05)
        # An ask may still wait for a database that was away; what it is promised counts as well.
        self._asked.set()
        self._threads[0].join()
        healed = Healing(world)
        began = clock.monotonic()
        while clock.monotonic() - began < _DRAIN_S:
            self.tend()
            open_ = self._open()
            if not open_ and not healed():
                open_ = [f"{healed.left} bars"]
            if not open_ and (unexplained := healed.unexplained()):
                open_ = [f"{unexplained} minutes without trades"]
            if not open_:
                break
            self.waited_for = open_
            clock.sleep(0.25)
        self.drain_s = round(clock.monotonic() - began, 2)
        self.lateness.look()
        if self._broken:
            raise RuntimeError("a watcher broke, so nothing can be judged") from self._broken[0]

    def _open(self) -> list[str]:
        """What there is to wait for."""
        with self.world.db.transaction() as conn:
            found = [f"{state} {what}" for what, state in conn.execute(_OPEN).fetchall()]
        found += [*stranded(self.world.redis), *on_lists(self.world.redis)]
        if _PROBER in self.world.stack.supervisor.alive():
            found.append(_PROBER)
        return found

    def _look(self) -> None:
        self.freshness.look(self._now())

    def _ask(self) -> None:
        """Nobody asks for anything new once the market's last judged minute is over."""
        now = self.world.db.clock.now()
        if now < self.world.times.close:
            self.traffic.step(self._now(), now)

    def tend(self) -> None:
        """Keep the processes alive, as their supervisor would; call it often.

        Raises:
            RuntimeError: the simulator ended; nothing can be judged without it.
        """
        for event in self.world.stack.supervisor.poll():
            if event.name == "sim" and event.kind == "ended":
                raise RuntimeError(f"the simulator ended: {event.detail}")

    def _now(self) -> float:
        return self.world.clock.monotonic() - self.started_s

    def _start_prober(self) -> None:
        world = self.world
        out = probes(world)
        out.unlink(missing_ok=True)
        words = [sys.executable, "-m", "sim.check", "probe", "--stack", str(world.stack_file)]
        words += ["--out", str(out), "--until", world.times.end.isoformat()]
        words += ["--reads", str(READS), "--seed", str(world.plan.seed)]
        world.stack.supervisor.add(Process(_PROBER, words, stop_rank=0, restart=False))
        world.stack.supervisor.start()


def _beside(
    every_s: float, work: Callable[[], None], over: threading.Event, broken: list[Exception]
) -> None:
    """Repeat something; what ends it unforeseen is kept for the one who judges."""
    try:
        while not over.wait(every_s):
            work()
    except Exception as error:  # noqa: BLE001 - raised again by whoever waits for us
        broken.append(error)


_OPEN = """
SELECT 'backfill row ' || job_id || ' of symbol ' || symbol_id || ': ' || coalesce(reason, ''), state
FROM backfill_jobs WHERE state IN ('pending', 'running')
UNION ALL
SELECT 'element ' || element_id, state FROM rlc_inbox WHERE state IN ('new', 'dispatched')
"""


def _outcome(world: World, course: Course, verdict: Verdict, phases: dict[str, float]) -> Outcome:
    hits: dict[str, int] = {}
    for struck in course.struck:
        if struck.hit:
            hits[struck.fault.kind.value] = hits.get(struck.fault.kind.value, 0) + 1
    restarts = sum(one.restarts for one in world.stack.supervisor.status())
    return Outcome(
        seed=world.plan.seed,
        scheduled=len(course.faults),
        counts=verdict.counts
        | {"asked": len(course.traffic.asked), "elements": len(course.traffic.elements)},
        bad=verdict.bad,
        examples=verdict.examples[:30],
        timeline=[_line(struck) for struck in course.struck],
        hits=hits,
        recoveries=[asdict(one) for one in recoveries(course.struck, course.freshness.looks)],
        drain_s=course.drain_s,
        stale_s=longest_stale(course.freshness.looks),
        waited_for=course.waited_for[:5],
        seconds=round(sum(phases.values()), 1),
        phases=phases,
        restarts=restarts,
        mutation=world.plan.mutation,
    )


def _line(struck: Struck) -> str:
    said = "" if struck.hit else "  (met nobody)"
    note = f"  [{struck.note}]" if struck.note else ""
    return f"{struck.fault}{note}{said}"
