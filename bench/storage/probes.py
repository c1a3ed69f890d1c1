"""A million probes (symbol, ts, T) against a model, and reads during ingestion that must never change.

Writer processes tell a story each, at once, into the same series; signals stop them in the middle of
transactions and let them go on; the policy is reloaded meanwhile. Afterwards the model is told the
same batches in the order of their as_of, and both are asked at random instants, half of them the very
microseconds at which something became known.
"""

import random
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bench.report import at_least, exactly
from bench.run import MeasureError, Place, Run
from bench.storage.market import first_open
from bench.storage.model import Model
from bench.storage.probing import Probing, Reader, census_differs
from bench.storage.processes import WriterProcess
from bench.storage.story import SOURCES, batch
from core.clock import Clock
from core.words import Tier
from db import ranks, universe
from db.pool import Database

_SYMBOLS = 60
_WRITERS = 4


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    probes: int
    reads: int
    """Read during ingestion, hashed, and read again at the end."""
    commits: int
    """Of all writers together, at least."""
    reloads: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was counted."""

    probes: int
    instants: int
    lookahead: int
    misses: int
    wrong: int
    reads: int
    changed: int
    """Reads that gave another answer at the end."""
    reloads: int
    reload_changed: int
    """Reads of the past that a reload of the policy changed at once."""
    commits: int
    stopped: int
    """Times that a writer was stopped in the middle of a transaction."""
    census_differs: int
    """Versions by status, store against model, summed differences."""
    versions: Mapping[str, int]
    """How many there should be, by status."""


def measure(run: Run) -> None:
    """The whole, or a tenth of it."""
    sizes = Sizes(
        probes=run.size(1_000_000, 100_000),
        reads=run.size(1_000, 150),
        commits=run.size(4_000, 400),
        reloads=run.size(10, 4),
    )
    with run.place() as place, tempfile.TemporaryDirectory() as folder:
        found = probe(place, run.clock, Path(folder), sizes)
    report, none = run.report, exactly(0)
    report.number("probes", "probes (symbol, ts, T) against the model", found.probes,
                  aim=at_least(sizes.probes))  # fmt: skip
    report.number("lookahead", "of these, shown before it was known", found.lookahead, aim=none)
    report.number("misses", "of these, known and not shown", found.misses, aim=none)
    report.number("wrong", "of these, shown with other numbers", found.wrong, aim=none)
    report.number("versions_wrong", "stored versions too many or too few", found.census_differs,
                  aim=none)  # fmt: skip
    report.number("reads_repeated", "reads at the horizon during ingestion, repeated at the end",
                  found.reads, aim=at_least(sizes.reads))  # fmt: skip
    report.number("reads_changed", "of these, another answer", found.changed, aim=none)
    report.number("reload_changed", f"past answers changed by {found.reloads} reloads of the policy",
                  found.reload_changed, aim=none)  # fmt: skip
    report.values |= {
        "probe_instants": found.instants,
        "probe_commits": found.commits,
        "probe_writers": _WRITERS,
        "stopped_in_transaction": found.stopped,
        **{f"versions_{status}": count for status, count in found.versions.items()},
    }
    report.note(
        f"probes: {found.instants:,} instants, {found.commits:,} commits of {_WRITERS} writer processes, "
        f"stopped {found.stopped} times in the middle of a transaction; versions: "
        + ", ".join(f"{count:,} {status}" for status, count in sorted(found.versions.items()))
    )


def probe(place: Place, clock: Clock, folder: Path, sizes: Sizes) -> Outcome:
    """Ingest, read meanwhile, read again, probe."""
    names = [f"P{number:03d}" for number in range(_SYMBOLS)]
    universe.load(place.db, [(name, Tier.T0, "NYSE", "") for name in names], "bench")
    with place.db.transaction() as conn:
        members = universe.resolve(conn, names)
    ids = [members[name].symbol_id for name in names]
    start = first_open(clock)
    orders = [list(SOURCES), list(reversed(SOURCES)), [SOURCES[1], SOURCES[0]]]
    ranks.publish(place.db, "bars_1m", [[name] for name in orders[0]])
    writers = [
        WriterProcess(
            f"bench-writer-{seed}",
            place.url,
            folder,
            {"workload": "story", "seed": seed, "ids": ids, "start": start.isoformat()},
        )
        for seed in range(_WRITERS)
    ]
    reader = Reader(place.db, names, start)
    with _running(writers, place, clock) as stops:
        reload_changed = _read_meanwhile(reader, writers, orders, place.db, clock, sizes)
    model, commits = _told(writers, ids, start, place)
    changed = reader.changed()
    wrong = Probing(reader, model, dict(zip(names, ids, strict=True)), commits).run(sizes.probes)
    return Outcome(
        **wrong,
        reads=len(reader.seen),
        changed=changed,
        reloads=sizes.reloads,
        reload_changed=reload_changed,
        commits=len(commits),
        stopped=len(stops),
        census_differs=census_differs(place, model),
        versions=model.census(),
    )


def _read_meanwhile(
    reader: Reader,
    writers: Sequence[WriterProcess],
    orders: Sequence[Sequence[str]],
    db: Database,
    clock: Clock,
    sizes: Sizes,
) -> int:
    """Read until there are reads and commits enough; answers that a reload of the policy changed."""
    reload_changed = 0
    reloads = 0
    pause = 0.0
    while len(reader.seen) < sizes.reads or _commits(writers) < sizes.commits:
        for writer in writers:
            if writer.finished():
                raise MeasureError(f"{writer.name} ended by itself:\n{writer.complaints()}")
        if len(reader.seen) < sizes.reads:
            reader.look()
        else:
            pause = 0.1
        if reloads < sizes.reloads and len(reader.seen) >= (reloads + 1) * sizes.reads // (
            sizes.reloads + 1
        ):
            reloads += 1
            asked = [reader.choose(_SYMBOLS, 30) | {"as_of": reader.horizon()} for _ in range(5)]
            before = [reader.digest(one) for one in asked]
            ranks.publish(db, "bars_1m", [[name] for name in orders[reloads % len(orders)]])
            after = [reader.digest(one) for one in asked]
            reload_changed += sum(a != b for a, b in zip(before, after, strict=True))
        clock.sleep(pause)
    return reload_changed


def _commits(writers: Sequence[WriterProcess]) -> int:
    return sum(writer.log.read_bytes().count(b" ") for writer in writers if writer.log.exists())


@contextmanager
def _running(writers: Sequence[WriterProcess], place: Place, clock: Clock) -> Iterator[list[str]]:
    """The writers at work, now and then one of them stopped; yields who stood still in a transaction."""
    stops: list[str] = []
    over = threading.Event()
    stopper = threading.Thread(target=_stop_and_go, args=(writers, place, clock, over, stops))
    try:
        for writer in writers:
            writer.start()
        stopper.start()
        yield stops
        for writer in writers:
            writer.end.touch()
        over.set()
        stopper.join()
        for writer in writers:
            writer.wait(clock, 60)
    finally:
        over.set()
        for writer in writers:
            writer.kill()


def _stop_and_go(
    writers: Sequence[WriterProcess],
    place: Place,
    clock: Clock,
    over: threading.Event,
    stops: list[str],
) -> None:
    chooser = random.Random(5)
    while not over.wait(chooser.uniform(0.02, 0.2)):
        writer = chooser.choice(writers)
        writer.send(signal.SIGSTOP)
        try:
            # What was on its way to the server arrives; then the transaction stands still.
            clock.sleep(0.01)
            if in_transaction(place.db, writer.name):
                stops.append(writer.name)
                over.wait(chooser.uniform(0.05, 0.6))
        finally:
            writer.send(signal.SIGCONT)


def in_transaction(db: Database, application: str) -> bool:
    """Whether a process has announced a write that has not ended."""
    with db.session() as conn:
        row = conn.execute(
            "SELECT count(*) FROM pg_stat_activity a JOIN pg_locks l USING (pid)"
            " WHERE a.application_name = %s AND a.datname = current_database() AND l.locktype = 'advisory'"
            " AND l.objsubid = 2 AND l.classid::bigint = gapless_horizon_class()",
            [application],
        ).fetchone()
    assert row is not None
    return row[0] > 0


def _told(
    writers: Sequence[WriterProcess], ids: Sequence[int], start: datetime, place: Place
) -> tuple[Model, list[datetime]]:
    """The model after every commit, and the instants of these."""
    with place.db.session() as conn:
        published = conn.execute(
            "SELECT as_of, array_agg(provider ORDER BY position) FROM source_rank"
            " WHERE capability = 'bars_1m' GROUP BY as_of ORDER BY as_of"
        ).fetchall()
    events = sorted(
        (as_of, seed, int(number))
        for seed, writer in enumerate(writers)
        for number, as_of in writer.commits()
    )
    model = Model([(as_of, order) for as_of, order in published])
    for as_of, seed, number in events:
        model.take(batch(seed, number, ids, start), as_of)
    return model, [as_of for as_of, _, _ in events]
