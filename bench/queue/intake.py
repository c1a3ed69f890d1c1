"""Measure: intakes are killed at random instants, and every element is accounted for.

A producer LPUSHes elements in bursts on the live list and the backfill lists: with an id, some of them
twice; without one; and bad ones. After each burst one of two ``workers intake`` is killed with SIGKILL
at a random instant of the time that a burst takes to be moved, and started again. In the middle the queues'
server is flushed while the jobs of a whole burst wait in it; the coordinator's lists stand on a server
of their own, since what is still in a list is lost with it by nature.

Counted in the database, by the stand-in for the collectors and on the dead lists: an element with an id
has one inbox row, and each of its symbols one backfill row or one job that asked for it; a bad element
stands once on its dead list, byte for byte and with a reason. Elements without an id are promised at
least once; what came twice of them is told apart.
"""

import json
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from redis import Redis

from bench.databases import Owner
from bench.queue.answering import Answering
from bench.queue.elements import BACKFILLS, JOBS, Fed, mixture, plain
from bench.queue.movers import Movers, movers
from bench.report import at_least, exactly
from bench.run import MeasureError, Run
from core.clock import Clock
from core.words import Tier
from db import universe
from db.pool import Database
from ops.embedded.home import Home
from ops.embedded.valkey import ValkeyServer

_MOVERS = 2
_QUIET_S = 0.3
"""Real seconds in which no job came: what was marked as dispatched is in its queue."""
_SETTLED_S = 180.0
_LISTS = (JOBS, *BACKFILLS)
SYMBOLS = tuple(f"S{n:03d}" for n in range(300))


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    bursts: int
    """One kill each."""
    burst: int
    """Elements in a burst."""
    undisturbed: int
    """Elements of the run in which nobody is killed."""
    patient: bool
    """Wait for leases to run out by themselves; else they are ended by hand once all is quiet."""


@dataclass(slots=True)
class Outcome:
    """What became of the elements."""

    fed: Sequence[Fed] = ()
    lost: list[str] = field(default_factory=list[str])
    doubled: list[str] = field(default_factory=list[str])
    nameless_again: int = 0
    """Inbox rows too many of elements without an id, which are promised at least once."""
    kills: int = 0
    struck: int = 0
    """Kills while elements of the burst were still in the lists or not yet dispatched."""
    flushed_jobs: int = 0
    per_s: float = 0.0

    @property
    def elements(self) -> int:
        """Pushed, repeated ones included."""
        return len(self.fed)


@dataclass(frozen=True, slots=True)
class Ground:
    """What a trial stands on."""

    clock: Clock
    db: Database
    owner: Owner
    lists: Redis
    """The coordinator's server."""
    queues: Redis
    """Ours."""
    movers: Movers
    answering: Answering


def measure(run: Run) -> None:
    """Kill, flush, count."""
    full, quick = Sizes(50, 200, 5000, patient=True), Sizes(6, 100, 500, patient=False)
    sizes = quick if run.quick else full
    with run.place() as place, servers(run.clock) as (folder, lists_url, queues_url):
        settings = {
            "DATABASE_URL": place.url,
            "REDIS_URL": queues_url,
            "RLC_REDIS_URL": lists_url,
            "GAPLESS_HOME": str(folder / "home"),
        }
        with (
            Redis.from_url(lists_url) as lists,
            Redis.from_url(queues_url) as queues,
            movers(_MOVERS, folder, settings, run.clock) as running,
            Answering(queues, place.db, run.clock) as answering,
        ):
            ground = Ground(run.clock, place.db, place.owner, lists, queues, running, answering)
            outcome = trial(ground, sizes, seed=5, say=run.say)
    _report(run, sizes, outcome)


@contextmanager
def servers(clock: Clock) -> Generator[tuple[Path, str, str]]:
    """A folder, the coordinator's server and ours; gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="gapless-bench-intake-")).resolve()
    with ExitStack() as ending:
        ending.callback(shutil.rmtree, folder, ignore_errors=True)
        urls: list[str] = []
        for name in ("lists", "queues"):
            home = Home(folder / name, clock=clock)
            ending.callback(home.remove)
            server = ValkeyServer.start(home, clock=clock)
            ending.callback(server.stop)
            urls.append(server.url)
        yield folder, urls[0], urls[1]


def trial(
    ground: Ground, sizes: Sizes, *, seed: int, say: Callable[[str], None] = lambda _: None
) -> Outcome:
    """Feed, kill, flush once, settle, and judge.

    Raises:
        MeasureError: an intake ended by itself, or something never settled.
    """
    universe.load(ground.db, [(name, Tier.T1, "NYSE", "") for name in SYMBOLS], "bench")
    draws, outcome = random.Random(seed), Outcome()
    ground.movers.wait_ready()
    fed = mixture(draws, sizes.burst, SYMBOLS, ground.clock.now())
    began = ground.clock.monotonic()
    _push(ground, fed)
    _wait(ground, lambda: not _on_the_move(ground), "the first burst is moved")
    moving_s = ground.clock.monotonic() - began
    for number in range(1, sizes.bursts + 1):
        ground.movers.wait_ready()
        ground.answering.check()
        burst = mixture(draws, sizes.burst, SYMBOLS, ground.clock.now(), first=len(fed))
        fed += burst
        if number == sizes.bursts // 2:
            outcome.flushed_jobs = _flush(ground, burst)
            say(f"  {number}: flushed with {outcome.flushed_jobs} jobs queued")
        else:
            _push(ground, burst)
        ground.clock.sleep(draws.uniform(0.0, moving_s))
        outcome.struck += bool(_on_the_move(ground))
        victim = draws.randrange(_MOVERS)
        ground.movers.kill(victim)
        ground.movers.start(victim)
        outcome.kills += 1
    _settle(ground, sizes)
    more = plain(sizes.undisturbed, SYMBOLS, ground.clock.now(), len(fed))
    outcome.per_s = _undisturbed(ground, more)
    outcome.fed = [*fed, *more]
    judge(ground, outcome.fed, outcome)
    return outcome


def _push(ground: Ground, elements: Sequence[Fed]) -> None:
    with cast("Any", ground.lists).pipeline(transaction=False) as pipe:
        for element in elements:
            pipe.lpush(element.key, element.raw)
        pipe.execute()


def _flush(ground: Ground, burst: Sequence[Fed]) -> int:
    """Forget the queues while the jobs of a whole burst wait in them, all its elements being kept."""
    with ground.answering.rest():
        _push(ground, burst)
        _wait(ground, lambda: not _on_the_move(ground), "the burst is kept")
        jobs, before = ground.answering.waiting(), -1
        while jobs != before:
            ground.clock.sleep(_QUIET_S)
            jobs, before = ground.answering.waiting(), jobs
        ground.queues.flushall()
    return jobs


def _settle(ground: Ground, sizes: Sizes) -> None:
    """Until every live element is answered and every backfill element has its rows."""
    ground.movers.wait_ready()
    _wait(ground, lambda: not _in_lists(ground), "the lists are empty")
    if not sizes.patient:
        # Nobody may hold elements between their mark and their push when leases end by hand.
        ground.movers.kill_all()
        _wait(ground, lambda: not ground.answering.waiting(), "the queues are empty")
        with ground.answering.rest():
            ground.owner.execute(
                "UPDATE rlc_inbox SET lease_expires = '-infinity' WHERE state = 'dispatched'"
            )
        ground.movers.start_all()
        ground.movers.wait_ready()
    _wait(ground, lambda: not _unsettled(ground), "every element is answered")


def judge(ground: Ground, fed: Sequence[Fed], outcome: Outcome) -> None:
    """Compare what was fed with what became of it; what is wrong is added to the outcome."""
    rows = _ask(
        ground,
        "SELECT inbox_id, element_id, (payload->>'serial')::int FROM rlc_inbox WHERE state <> 'dead'",
    )
    of_serial: dict[int, list[int]] = {}
    for inbox_id, _, serial in rows:
        of_serial.setdefault(serial, []).append(inbox_id)
    backfills = Counter(
        (inbox_id, symbol)
        for inbox_id, symbol in _ask(
            ground,
            "SELECT j.inbox_id, u.symbol FROM backfill_jobs j JOIN universe u USING (symbol_id)",
        )
    )
    for element in {element.raw: element for element in fed if not element.bad}.values():
        kept = of_serial.pop(element.serial, [])
        name = f"{element.key} {element.raw.decode()}"
        if not kept:
            outcome.lost.append(f"no inbox row: {name}")
        if element.id is None:
            outcome.nameless_again += max(len(kept) - 1, 0)
        elif len(kept) > 1:
            outcome.doubled.append(f"{len(kept)} inbox rows: {name}")
        effects = ground.answering.answered if element.key == JOBS else backfills
        for inbox_id in kept:
            for symbol in element.symbols:
                count = effects[inbox_id, symbol]
                if count == 0:
                    outcome.lost.append(f"{symbol} never came of {name}")
                elif count > 1:
                    outcome.doubled.append(f"{symbol} came {count} times of {name}")
    outcome.doubled += [f"inbox rows of nobody: serial {serial}" for serial in of_serial]
    _judge_dead(ground, [element for element in fed if element.bad], outcome)


def _judge_dead(ground: Ground, bad: Sequence[Fed], outcome: Outcome) -> None:
    buried: Counter[tuple[str, bytes]] = Counter()
    for key in _LISTS:
        for entry in cast("Any", ground.lists).lrange(f"{key}:dead", 0, -1):
            told = json.loads(entry)
            if told["reason"]:
                buried[key, told["element"].encode()] += 1
    expected = {(element.key, element.raw) for element in bad}
    for key, raw in expected:
        if buried[key, raw] == 0:
            outcome.lost.append(f"not on the dead list: {key} {raw.decode()}")
        elif buried[key, raw] > 1:
            outcome.doubled.append(f"{buried[key, raw]} times dead: {key} {raw.decode()}")
    outcome.doubled += [
        f"dead without a fault: {key} {raw.decode()}" for key, raw in buried.keys() - expected
    ]


def _undisturbed(ground: Ground, elements: Sequence[Fed]) -> float:
    """Elements a second from list to queue, both intakes at work and nobody killed."""
    ground.movers.wait_ready()
    began = ground.clock.monotonic()
    _push(ground, elements)
    _wait(ground, lambda: not _on_the_move(ground), "all are dispatched")
    per_s = len(elements) / (ground.clock.monotonic() - began)
    _wait(ground, lambda: not _unsettled(ground), "every element is answered")
    return per_s


def _in_lists(ground: Ground) -> int:
    return sum(cast("Any", ground.lists).llen(key) for key in _LISTS)


def _on_the_move(ground: Ground) -> int:
    """Elements that are in a list or not dispatched yet."""
    kept = _ask(ground, "SELECT count(*) FROM rlc_inbox WHERE state = 'new'")[0][0]
    return _in_lists(ground) + kept


def _unsettled(ground: Ground) -> int:
    """Live elements without their answer, and backfill elements without a row for each symbol."""
    return _ask(
        ground,
        "SELECT count(*) FROM rlc_inbox i WHERE i.state = 'new' OR i.state = 'dispatched' AND (i.kind = 'jobs'"
        " OR (SELECT count(DISTINCT j.symbol_id) FROM backfill_jobs j WHERE j.inbox_id = i.inbox_id)"
        " < cardinality(i.remaining))",
    )[0][0]


def _ask(ground: Ground, query: str) -> list[tuple[Any, ...]]:
    return ground.owner.execute(query.encode()).fetchall()


def _wait(ground: Ground, condition: Callable[[], bool], what: str) -> None:
    deadline = ground.clock.monotonic() + _SETTLED_S
    while not condition():
        ground.answering.check()
        if ground.clock.monotonic() > deadline:
            raise MeasureError(f"not so within {_SETTLED_S:g} s: {what}")
        ground.clock.sleep(0.02)


def _report(run: Run, sizes: Sizes, outcome: Outcome) -> None:
    into = run.report
    words = f"of {outcome.elements:,} elements"
    into.number("intake_lost", f"{words}: lost", len(outcome.lost), aim=exactly(0))
    into.number("intake_doubled", f"{words}: doubled", len(outcome.doubled), aim=exactly(0))
    into.number("intake_kills", "SIGKILLs of an intake", outcome.kills, aim=at_least(sizes.bursts))
    into.number("intake_kills_at_work", "  while a burst was on the move", outcome.struck)
    into.number("intake_nameless_again", "rows too many without an id", outcome.nameless_again)
    into.number(
        "intake_flushed_jobs", "jobs queued at the FLUSHALL", outcome.flushed_jobs, aim=at_least(1)
    )
    into.number(
        "intake_elements_per_s", f"undisturbed, {_MOVERS} intakes", outcome.per_s, "elements/s"
    )
    for sentence in (outcome.lost + outcome.doubled)[:10]:
        into.note(sentence)
