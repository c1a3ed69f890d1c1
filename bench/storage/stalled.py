"""A writer that is stopped in the middle of a transaction for a minute: who else waits, and how long.

Beside it run a writer of other symbols, a writer of the same symbols, a reader at the horizon, a reader at
this very moment, and the scheduler's chore that ends writes which are stuck.
"""

import random
import signal
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from bench.report import at_most, exactly
from bench.run import MeasureError, Place, Run
from bench.storage.market import DAY, SOURCE, first_open, page, walk
from bench.storage.probes import in_transaction
from bench.storage.processes import WriterProcess
from core.clock import Clock
from core.errors import GaplessError
from core.words import Interval, Tier
from db import universe
from db.candles import Batch, write
from db.horizon import end_stuck_writes
from scheduler.housekeeping import STUCK_AFTER_S

_CHORE_EVERY_S = 2.0
"""As the scheduler does it."""
_OURS = "bench-stalled"
_SYMBOLS, _MINUTES = 20, 390
_NOW = "SELECT gapless_now()"
_READ = "SELECT count(*) FROM candles_as_of(NULL, '1m', %s, %s, %s)"


@dataclass(slots=True)
class _Watched:
    """How long one kind of work took at most, and what it raised."""

    worst_s: float = 0.0
    done: int = 0
    errors: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Real seconds, the longest wait of each."""

    other_symbols_s: float
    same_symbols_s: float
    reader_horizon_s: float
    reader_now_s: float
    errors: int
    """Of any of the four."""
    rounds: int
    """The fewest times that one of the four got through."""
    recovered: bool
    """Whether the stopped writer went on by itself afterwards."""


def measure(run: Run) -> None:
    """A minute; a quick look stops it for half as long."""
    seconds = run.size(60, 25)
    with run.place() as place, tempfile.TemporaryDirectory() as folder:
        found = stall(place, run.clock, Path(folder), seconds)
    report = run.report
    report.number("stalled_other_symbols_ms", f"a writer stopped for {seconds} s: longest write of other symbols",
                  1000 * found.other_symbols_s, "ms", at_most(1_000))  # fmt: skip
    report.number("stalled_reader_s", "longest read at this very moment", found.reader_now_s, "s",
                  at_most(15))  # fmt: skip
    report.number("stalled_horizon_reader_ms", "longest read at the horizon", 1000 * found.reader_horizon_s, "ms",
                  at_most(1_000))  # fmt: skip
    report.number("stalled_same_symbols_s", "longest write of its own symbols", found.same_symbols_s, "s",
                  at_most(15))  # fmt: skip
    report.number("stalled_errors", "errors that anybody saw", found.errors, aim=exactly(0))
    report.number("stalled_lost", "stopped writers that did not go on by themselves", int(not found.recovered),
                  aim=exactly(0))  # fmt: skip
    report.values["stalled_s"] = seconds


def stall(place: Place, clock: Clock, folder: Path, seconds: float) -> Outcome:
    """Stop one writer for so many real seconds and watch everybody else."""
    names = [f"W{number:03d}" for number in range(3 * _SYMBOLS)]
    universe.load(place.db, [(name, Tier.T0, "NYSE", "") for name in names], "bench")
    with place.db.transaction() as conn:
        found = universe.resolve(conn, names)
    ids = [found[name].symbol_id for name in names]
    start = first_open(clock)
    writer = WriterProcess(
        _OURS,
        place.url,
        folder,
        {
            "workload": "steady",
            "ids": ids[:_SYMBOLS],
            "minutes": _MINUTES,
            "start": start.isoformat(),
        },
    )
    try:
        writer.start()
        _stop_in_transaction(writer, place, clock)
        watched = _watch(place, clock, ids, start, seconds)
        before = len(writer.commits())
        writer.send(signal.SIGCONT)
        deadline = clock.monotonic() + 15
        while len(writer.commits()) == before and clock.monotonic() < deadline:
            clock.sleep(0.02)
        recovered = len(writer.commits()) > before
        writer.end.touch()
        writer.wait(clock, 15)
    finally:
        writer.kill()
    other, same, horizon, now = watched
    return Outcome(
        other.worst_s,
        same.worst_s,
        horizon.worst_s,
        now.worst_s,
        sum(one.errors for one in watched),
        min(one.done for one in watched),
        recovered,
    )


def _stop_in_transaction(writer: WriterProcess, place: Place, clock: Clock) -> None:
    chooser = random.Random(7)
    deadline = clock.monotonic() + 30
    while True:
        if clock.monotonic() > deadline or writer.finished():
            raise MeasureError(
                f"{writer.name} was never met in a transaction:\n{writer.complaints()}"
            )
        clock.sleep(chooser.uniform(0.01, 0.08))
        if not writer.commits():
            continue
        writer.send(signal.SIGSTOP)
        # A commit that was on its way would end it without its client.
        clock.sleep(0.2)
        if in_transaction(place.db, writer.name):
            return
        writer.send(signal.SIGCONT)


def _watch(
    place: Place, clock: Clock, ids: Sequence[int], start: datetime, seconds: float
) -> tuple[_Watched, _Watched, _Watched, _Watched]:
    over = threading.Event()
    chooser = random.Random(8)

    def put(symbol_ids: Sequence[int]) -> Callable[[], object]:
        def work() -> object:
            opened = start + chooser.randrange(5) * DAY
            asked_at = start + 30 * DAY + clock.monotonic() * timedelta(microseconds=1)
            answers = [page(s, walk(chooser, opened, 5), asked_at=asked_at) for s in symbol_ids]
            return write(place.db, Batch(SOURCE, Interval.M1, answers))

        return work

    def read_at_horizon() -> object:
        with place.db.session() as conn:
            return conn.execute(_READ, [start, start + DAY, None]).fetchone()

    def read_now() -> object:
        with place.db.session() as conn:
            row = conn.execute(_NOW).fetchone()
            assert row is not None
            return conn.execute(_READ, [start, start + DAY, row[0]]).fetchone()

    def chore() -> object:
        clock.sleep(_CHORE_EVERY_S)
        return end_stuck_writes(place.db, STUCK_AFTER_S)

    def repeat(work: Callable[[], object]) -> _Watched:
        watched = _Watched()
        while not over.wait(0.05):
            began = clock.monotonic()
            try:
                work()
                watched.done += 1
            except GaplessError:
                watched.errors += 1
            watched.worst_s = max(watched.worst_s, clock.monotonic() - began)
        return watched

    works = (put(ids[_SYMBOLS:]), put(ids[:_SYMBOLS]), read_at_horizon, read_now, chore)
    with ThreadPoolExecutor(len(works)) as pool:
        running = [pool.submit(repeat, work) for work in works]
        over.wait(seconds)
        over.set()
        other, same, horizon, now, _ = [future.result() for future in running]
    return other, same, horizon, now
