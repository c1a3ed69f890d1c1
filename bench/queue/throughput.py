"""Symbols a second and CPU a symbol of two worker processes, ours and peers' in turn.

The same work on every side: take a job from the queue, ask a provider that answers after 100 ms once for
each symbol, acknowledge. Every process asks by one client, the same library and code on all sides. Peers
have a job for each symbol, as their users write it; we have batches of 100, pushed by ``workers.queues``,
taken by ``BatchWorker`` and handed out to the call pool as a collector does. Routing, parsing and
writing are on no side.

All stand in one Valkey that keeps an append-only file, in a database each. A backlog is pushed once by each
system's own push and copied before each run, so that no run waits for a producer; a run counts only
while the backlog lasts. Rates are counted by the provider, CPU by the operating system: the workers' whole
tree (RQ's forks included), and Valkey and the provider by themselves. Figures are medians of the turns; turns go
through systems and slots in alternating order.
"""

import shutil
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from redis import Redis

from bench.queue.processes import Fleet, Provider, cpu_s, fleet, provider, push, titles
from bench.queue.systems import CELERY, DRAMATIQ, OURS, PROCESSES, RQ, SYSTEMS, System
from bench.report import Report, at_least, at_most
from bench.run import MeasureError, Run
from core.clock import Clock
from ops.embedded.home import Home
from ops.embedded.valkey import ValkeyServer

HEAD = 64
"""Slots a process at which the figures without a number in their key are taken."""
_SLOTS = (32, HEAD, 128, 256)
_SLOTS_QUICK = (HEAD, 256)
_PEERS = (CELERY, DRAMATIQ)
_LATENCY_S = 0.1
_WARM_S = 2.0
_STARTED_S = 40.0
_SLOWEST_START_S = 3.0
"""For how long the first process may work before all of them do and the warm-up begins."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one system."""

    per_s: float
    """Symbols a second."""
    worker_ms: float
    """CPU a symbol, all workers."""
    valkey_ms: float
    """The same of Valkey."""
    provider_share: float
    """CPU of the provider, in cores."""
    waited_ms: float
    """Mean time from a request to its answer, as the provider saw it."""
    most: int
    """Requests at once, at most: no system may have had more than its slots."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What a run stands on."""

    clock: Clock
    provider: Provider
    valkey: ValkeyServer
    folder: Path

    def url(self, system: System, *, backlog: bool = False) -> str:
        """The database in which a system works, or that of the backlog that it starts from."""
        number = SYSTEMS.index(system) + (len(SYSTEMS) if backlog else 0)
        return f"{self.valkey.url.rpartition('/')[0]}/{number}"


def measure(run: Run) -> None:
    """Every system at every number of slots."""
    for system in SYSTEMS:
        run.say(f"  {system.title}: {system.package} {system.version}")
        run.report.values[f"{system.name}_version"] = system.version
    slots = _SLOTS_QUICK if run.quick else _SLOTS
    window_s = run.size(4, 2)
    plan = [(system, n) for n in slots for system in (OURS, *_PEERS)]
    plan.append((RQ, 1))
    samples: dict[tuple[str, int], list[Sample]] = {}
    with stage(run.clock) as made:
        for system in SYSTEMS:
            most = min(system.most_per_s, PROCESSES * max(slots) / _LATENCY_S)
            seconds = _SLOWEST_START_S + _WARM_S + window_s
            push(system, made.url(system, backlog=True), int(most * seconds))
        for turn in range(run.size(3, 2)):
            for system, n in plan if turn % 2 == 0 else reversed(plan):
                found = sample(made, system, n, window_s)
                samples.setdefault((system.name, n), []).append(found)
                run.say(
                    f"  {turn + 1}: {system.name} x{n} {found.per_s:,.0f}/s {found.worker_ms:.3f} ms"
                )
    report(run.report, samples, slots)
    run.report.note(titles(SYSTEMS))


@contextmanager
def stage(clock: Clock) -> Generator[Stage]:
    """A provider and a durable Valkey; gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="gapless-bench-queue-")).resolve()
    with ExitStack() as ending:
        ending.callback(shutil.rmtree, folder, ignore_errors=True)
        home = Home(folder / "redis", clock=clock)
        ending.callback(home.remove)
        valkey = ValkeyServer.start(home, clock=clock)
        ending.callback(valkey.stop)
        yield Stage(clock, ending.enter_context(provider()), valkey, folder)


def sample(made: Stage, system: System, slots: int, window_s: float) -> Sample:
    """Run a system for a while on a fresh copy of its backlog.

    Raises:
        MeasureError: it did not start, it ended, or the backlog did not last.
    """
    url = made.url(system)
    _copy(made.url(system, backlog=True), url)
    running = fleet(
        system,
        slots,
        redis_url=url,
        provider_url=made.provider.url,
        log=made.folder / f"{system.name}.log",
    )
    with running as workers:
        _warm_up(made, workers, slots)
        before = _look(made, workers)
        made.clock.sleep(window_s)
        after = _look(made, workers)
        workers.check()
        if not system.left(url):
            raise MeasureError(f"{system.title} x{slots}: the backlog did not last for the run")
    spent = {name: after[name] - before[name] for name in before}
    if not spent["answered"]:
        raise MeasureError(f"{system.title} x{slots}: nothing was asked in {window_s} s")
    return Sample(
        per_s=spent["answered"] / spent["at"],
        worker_ms=1000 * spent["workers"] / spent["answered"],
        valkey_ms=1000 * spent["valkey"] / spent["answered"],
        provider_share=spent["provider"] / spent["at"],
        waited_ms=1000 * spent["waited_s"] / spent["answered"],
        most=int(after["most"]),
    )


def _copy(source: str, target: str) -> None:
    with Redis.from_url(source) as backlog, Redis.from_url(target) as work:
        work.flushdb()
        number = target.rpartition("/")[2]
        with backlog.pipeline(transaction=False) as pipe:
            for key in backlog.scan_iter(count=1000):
                pipe.copy(key, key, destination_db=number)
            pipe.execute()


def _warm_up(made: Stage, workers: Fleet, slots: int) -> None:
    """Wait until every process has asked for long enough that connections are made and pools are full."""
    clock, before = made.clock, made.provider.stats()["answered"]
    # RQ's forking workers have one slot, and half a dozen of their jobs have to do.
    enough = 3 * PROCESSES * slots
    deadline = clock.monotonic() + _STARTED_S
    while made.provider.stats()["answered"] - before < enough:
        workers.check()
        if clock.monotonic() > deadline:
            raise MeasureError(f"the workers answered too little within {_STARTED_S:g} s")
        clock.sleep(0.05)
    clock.sleep(_WARM_S)


def _look(made: Stage, workers: Fleet) -> Mapping[str, float]:
    stats: Mapping[str, Any] = made.provider.stats()
    return {
        **{name: stats[name] for name in ("at", "answered", "waited_s", "most")},
        "workers": workers.cpu_s(),
        "valkey": cpu_s(made.valkey.pid),
        "provider": cpu_s(made.provider.pid),
    }


def report(
    into: Report, samples: Mapping[tuple[str, int], Sequence[Sample]], slots: Sequence[int]
) -> None:
    """Say what was found.

    Args:
        into: Where to.
        samples: Runs by system and slots; ours and the peers' at each of the slots.
        slots: Swept, ``HEAD`` among them.
    """
    found = {key: _median(runs) for key, runs in samples.items()}
    for (name, n), mean in found.items():
        into.number(f"{name}_{n}_symbols_per_s", f"{name}, {n} slots a process", mean.per_s, "/s")
        into.number(f"{name}_{n}_cpu_ms", "  CPU a symbol, workers", mean.worker_ms, "ms")
        into.values[f"{name}_{n}_valkey_ms"] = round(mean.valkey_ms, 4)
        into.values[f"{name}_{n}_provider_wait_ms"] = round(mean.waited_ms, 2)
        into.values[f"{name}_{n}_most_at_once"] = mean.most

    rivals = {n: max((found[p.name, n] for p in _PEERS), key=lambda s: s.per_s) for n in slots}
    equal = {n: found["ours", n].per_s / rivals[n].per_s for n in slots}
    cpu = {n: found["ours", n].worker_ms / rivals[n].worker_ms for n in slots}
    for n in slots:
        into.number(f"ratio_to_best_peer_{n}", f"ours to the best peer, {n} slots each", equal[n])
        into.number(f"cpu_ratio_to_best_peer_{n}", "  CPU a symbol, ours to its", cpu[n])
    into.number(
        "ratio_to_best_peer",
        "ours to the best peer at equal slots, worst",
        min(equal.values()),
        aim=at_least(0.95),
    )
    into.number(
        "cpu_ratio_to_best_peer",
        "CPU a symbol, ours to its, worst",
        max(cpu.values()),
        aim=at_most(0.67),
    )
    best = max((found["ours", n] for n in slots), key=lambda s: s.per_s)
    rival = max(rivals.values(), key=lambda s: s.per_s)
    head = found["ours", HEAD]
    into.number(
        "ratio_best_to_best",
        "ours to the best peer, each at its best slots",
        best.per_s / rival.per_s,
        aim=at_least(1.5),
    )
    into.number(
        "ratio_to_stock_rq",
        f"ours with {HEAD} slots to RQ's forking worker",
        head.per_s / found["rq", 1].per_s,
        aim=at_least(60),
    )
    into.number(
        "symbols_per_s", f"symbols a second, ours, {HEAD} slots a process", head.per_s, "/s"
    )
    into.number("symbols_per_s_best", "symbols a second, ours at best", best.per_s, "/s")
    into.number("symbols_per_s_best_peer", "the best peer's at best", rival.per_s, "/s")
    into.number("cpu_ms_per_symbol", f"CPU a symbol, ours, {HEAD} slots", head.worker_ms, "ms")
    into.number("valkey_ms_per_symbol", "Valkey's CPU a symbol, ours", head.valkey_ms, "ms")
    into.number(
        "provider_cores_max",
        "CPU of the provider, in cores, most",
        max(mean.provider_share for mean in found.values()),
    )


def _median(runs: Sequence[Sample]) -> Sample:
    """Each figure's own median."""
    return Sample(
        per_s=median(run.per_s for run in runs),
        worker_ms=median(run.worker_ms for run in runs),
        valkey_ms=median(run.valkey_ms for run in runs),
        provider_share=median(run.provider_share for run in runs),
        waited_ms=median(run.waited_ms for run in runs),
        most=max(run.most for run in runs),
    )
