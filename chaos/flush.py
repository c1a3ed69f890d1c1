"""A session in whose middle Redis forgets everything while thousands of jobs are queued."""

import itertools
import random
import signal
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, cast

import orjson

from chaos.judge import Verdict, judge
from chaos.run import Course
from chaos.traffic import Asked, Element
from chaos.world import LISTS, Plan, World
from core.clock import Clock
from core.windows import Window
from ops.embedded.home import Home
from workers.queues import depths

_QUEUE: Final = "collect:T2"
_WORKER: Final = "collect-t2"
_LONGEST: Final = 40
"""Minutes of the longest window."""
_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Flushed:
    """What happened."""

    queued: int
    """Jobs in the queue when Redis forgot them."""
    keys: int
    done: int
    """Elements that were answered in the end."""
    healed_s: float
    """Real seconds from the FLUSHALL until the last of them was."""
    verdict: Verdict


def flush_in_session(plan: Plan, jobs: int, home: Home, clock: Clock) -> Flushed:
    """Replay a session; at its middle queue so many jobs and lose them.

    Raises:
        RuntimeError: the queue did not fill.
    """
    world = World(plan, home, clock, "make bench")
    try:
        world.open()
        course = Course(world, ())
        course.begin()
        try:
            elements = _to_the_middle(world, course, jobs)
            queued = _fill(world, course, jobs)
            keys = int(cast("Any", world.redis).dbsize())
            cast("Any", world.redis).flushall()
            flushed = clock.monotonic()
            world.stack.supervisor.kill(_WORKER, signal.SIGCONT)
            healed_s = _heal(world, course, flushed)
            course.heal()
        finally:
            course.stop()
        world.stack.supervisor.stop_all_but({"sim"})
        verdict = judge(world, course.struck, course.traffic, course.lateness.late)
        with world.db.transaction() as conn:
            row = conn.execute(
                "SELECT count(*) FROM rlc_inbox WHERE state = 'done' AND element_id = ANY (%s)",
                ([element.id for element in elements],),
            ).fetchone()
        return Flushed(queued, keys, 0 if row is None else row[0], healed_s, verdict)
    finally:
        world.close()


def _to_the_middle(world: World, course: Course, jobs: int) -> list[Element]:
    middle = world.times.open + (world.times.close - world.times.open) / 2
    while world.db.clock.now() < middle:
        course.tend()
        world.clock.sleep(0.05)
    return _push(world, course, jobs)


def _push(world: World, course: Course, count: int) -> list[Element]:
    """Elements of the coordinator, each with a window of its own, so that each becomes a job."""
    world.stack.supervisor.kill(_WORKER, signal.SIGSTOP)
    draws = random.Random("gapless flush")
    minutes = int((world.db.clock.now() - world.times.open) / timedelta(minutes=1)) - 3
    edges = itertools.combinations(range(minutes), 2)
    windows = [(start, end) for start, end in edges if end - start <= _LONGEST]
    symbols = world.tiers["T2"]
    elements: list[Element] = []
    with cast("Any", world.redis).pipeline(transaction=False) as pipe:
        for number, (start, end) in enumerate(draws.sample(windows, count)):
            window = Window(
                world.times.open + timedelta(minutes=start),
                world.times.open + timedelta(minutes=end),
            )
            symbol = draws.choice(symbols)
            raw = orjson.dumps(
                {
                    "v": 1,
                    "id": f"flush-{number}",
                    "type": "bars_1m",
                    "symbols": [symbol],
                    "start": window.start.isoformat(),
                    "end": window.end.isoformat(),
                }
            )
            pipe.lpush(LISTS[0], raw)
            elements.append(Element(f"flush-{number}", LISTS[0], raw, 0.0))
            course.traffic.asked.append(Asked(symbol, window, element=f"flush-{number}", once=True))
        pipe.execute()
    course.traffic.elements += elements
    return elements


def _fill(world: World, course: Course, jobs: int) -> int:
    clock = world.clock
    began = clock.monotonic()
    while (waiting := depths(world.redis)[_QUEUE]) < jobs:
        course.tend()
        if clock.monotonic() - began > _PATIENCE_S:
            raise RuntimeError(f"{waiting} jobs were queued in {_PATIENCE_S:.0f} s, not {jobs}")
        clock.sleep(0.2)
    return waiting


def _heal(world: World, course: Course, flushed: float) -> float:
    """Until every element has ended, or the market has; returns the real seconds since the flush."""
    clock = world.clock
    while world.db.clock.now() < world.times.end:
        course.tend()
        with world.db.transaction() as conn:
            row = conn.execute(
                "SELECT count(*) FROM rlc_inbox WHERE state IN ('new', 'dispatched')"
            ).fetchone()
        if row is not None and row[0] == 0:
            break
        clock.sleep(0.5)
    return round(clock.monotonic() - flushed, 1)
