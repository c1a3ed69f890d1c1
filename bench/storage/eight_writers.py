"""Eight writer processes with the same pages in eight orders, killed at random, against one that is left alone."""

import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, LiteralString

from bench.report import exactly
from bench.run import MeasureError, Place, Run
from bench.storage import pages
from bench.storage.market import first_open
from bench.storage.processes import WriterProcess
from bench.storage.writer_process import COMPLAINT
from core.clock import Clock
from db.candles import write
from db.pool import Database

_ROUNDS = 2
_END_S = 300.0

# All that is stored, but when it was learnt and under which key the source goes.
_STORED: tuple[LiteralString, ...] = (
    """
    SELECT c.symbol_id, c.ts, s.name, c.asked_at, c.status, c.open, c.high, c.low, c.close, c.volume, c.vwap,
           c.trade_count, c.reason
    FROM candles_intraday c JOIN sources s USING (provider_id) ORDER BY 1, 2, 3, c.as_of
    """,
    """
    SELECT e.symbol_id, e.start_ts, e.end_ts, s.name, e.asked_at, e.outcome, e.settled, e.lacking::text, e.code,
           e.detail
    FROM fetch_evidence e JOIN sources s USING (provider_id) ORDER BY 1, 2, 3, 4, 5, 6, 7
    """,
    """
    SELECT c.symbol_id, s.name, c.covered::text, c.unsettled::text, c.lacked::text, c.last_asked_at, c.last_answered_at
    FROM ingestion_cursor c JOIN sources s USING (provider_id) ORDER BY 1, 2
    """,
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    writers: int
    symbols: int
    pages: int
    """Of each symbol."""
    kills: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was counted."""

    rows: int
    differences: int
    """Rows of candles, evidence and cursors that only one of the two results has."""
    kills: int
    surfaced: int
    """Errors that ``write`` raised."""
    deadlocks_surfaced: int
    deadlocks_detected: int
    """By the server, also those that were mended by running again."""


def measure(run: Run) -> None:
    """Two rounds of pages: all of them told, then some of their bars restated."""
    sizes = Sizes(8, run.size(60, 24), run.size(8, 4), run.size(60, 12))
    with (
        run.place() as eight,
        run.place() as one,
        tempfile.TemporaryDirectory() as folder,
    ):
        found = ingest(eight, one, run.clock, Path(folder), sizes)
    report = run.report
    report.number("writers_differences", f"rows that differ from one writer's {found.rows:,}, as_of apart",
                  found.differences, aim=exactly(0))  # fmt: skip
    report.number("deadlocks_surfaced", f"deadlocks surfaced, {sizes.writers} writers, {found.kills} kills",
                  found.deadlocks_surfaced, aim=exactly(0))  # fmt: skip
    report.number("write_errors_surfaced", "errors of any kind that writes surfaced", found.surfaced,
                  aim=exactly(0))  # fmt: skip
    report.values |= {
        "writers": sizes.writers,
        "writers_killed": found.kills,
        "deadlocks_detected": found.deadlocks_detected,
    }


def ingest(eight: Place, one: Place, clock: Clock, folder: Path, sizes: Sizes) -> Outcome:
    """Both ways of ingesting, and what differs."""
    start = first_open(clock)
    task = {"symbols": sizes.symbols, "pages": sizes.pages, "start": start.isoformat()}
    kills = 0
    complaints = ""
    for round_ in range(_ROUNDS):
        writers = [
            WriterProcess(
                f"bench-{round_}-{seed}",
                eight.url,
                folder,
                {**task, "workload": "pages", "round": round_, "seed": seed},
            )
            for seed in range(sizes.writers)
        ]
        kills += _run(writers, clock, sizes.kills // _ROUNDS)
        complaints += "".join(writer.complaints() for writer in writers)
        _alone(one.db, sizes, start, round_)
    differences = rows = 0
    for query in _STORED:
        found, wanted = _rows(eight.db, query), _rows(one.db, query)
        rows += len(wanted)
        differences += len(only_in_one(found, wanted))
    [(deadlocks,)] = _rows(
        eight.db, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    surfaced = [line for line in complaints.splitlines() if line.startswith(COMPLAINT)]
    return Outcome(
        rows=rows,
        differences=differences,
        kills=kills,
        surfaced=len(surfaced),
        deadlocks_surfaced=sum(line.startswith(f"{COMPLAINT} 40P01") for line in surfaced),
        deadlocks_detected=deadlocks,
    )


def _run(writers: Sequence[WriterProcess], clock: Clock, kills: int) -> int:
    """Run the writers to their end; how many were killed on the way."""
    chooser = random.Random(len(writers))
    done = 0
    give_up = clock.monotonic() + _END_S
    try:
        for writer in writers:
            writer.start()
        while alive := [writer for writer in writers if not writer.finished()]:
            if clock.monotonic() > give_up:
                raise MeasureError(f"writers did not end within {_END_S:.0f} s")
            clock.sleep(chooser.uniform(0.01, 0.25))
            # Killed once it has written something, so that each start gets on.
            victim = chooser.choice(alive)
            if done < kills and len(victim.commits()) > victim.starts and not victim.finished():
                victim.kill()
                victim.start()
                done += 1
    finally:
        for writer in writers:
            writer.kill()
    return done


def _alone(db: Database, sizes: Sizes, start: datetime, round_: int) -> None:
    task: dict[str, Any] = {
        "symbols": sizes.symbols,
        "pages": sizes.pages,
        "start": start.isoformat(),
        "round": round_,
        "seed": None,
    }
    for _, batch in pages.batches(task):
        write(db, batch)


def _rows(db: Database, query: LiteralString) -> list[tuple[Any, ...]]:
    with db.session() as conn:
        return conn.execute(query).fetchall()


def only_in_one(
    found: Sequence[tuple[Any, ...]], wanted: Sequence[tuple[Any, ...]]
) -> list[tuple[Any, ...]]:
    """Rows that are not as often in one as in the other."""
    ours, theirs = Counter(found), Counter(wanted)
    return [*(ours - theirs).elements(), *(theirs - ours).elements()]
