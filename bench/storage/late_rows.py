"""Pages of symbols that were never seen, into chunks that are compressed already (TimescaleDB)."""

import random
from collections.abc import Sequence
from datetime import datetime

from bench.databases import compress
from bench.report import at_least
from bench.run import Place, Run
from bench.storage import peer
from bench.storage.market import DAY, SOURCE, first_open, page, walk
from bench.storage.sources import provider_id_of
from core.words import Interval
from db.candles import Answer, Batch, write

SYMBOLS, MINUTES = 10, 500
ROWS = SYMBOLS * MINUTES
_FIRST_ID = 1_000


def measure(run: Run) -> None:
    """Never seen: first contact is the rule here; with cursors known beside it."""
    if not run.timescale:
        run.report.absent("late_compressed_rows_per_s", "plain PostgreSQL has no compressed chunks")
        return
    with run.place() as place:
        start = first_open(run.clock)
        provider_id = provider_id_of(place.owner)
        symbols = run.size(200, 50)
        days = run.size(10, 5)
        for ids in (range(1, symbols // 2), range(500_000, 500_000 + symbols // 2)):
            peer.fill(place.owner, ids, start, days=days, minutes=MINUTES, provider_id=provider_id)
        compress(place.owner, "candles_intraday")
        rounds = run.size(15, 7)
        _late(run, place, provider_id, start, rounds, known=False)
        _late(run, place, provider_id, start, rounds, known=True)


def _late(
    run: Run, place: Place, provider_id: int, start: datetime, rounds: int, *, known: bool
) -> None:
    watch = run.stopwatch()
    for number in range(rounds):
        first = _FIRST_ID + (100_000 if known else 0) + 2 * SYMBOLS * number
        ids = range(first, first + 2 * SYMBOLS, 2)
        if known:
            # Asked before in another week, so that only the cursor is there.
            write(place.db, Batch(SOURCE, Interval.M1, _answers(ids, start - 30 * DAY)))
        answers = _answers(ids, start)
        rows = [
            row
            for answer in answers
            for row in peer.rows(
                answer.symbol_id + 1,
                answer.bars,
                as_of=answer.asked_at,
                asked_at=answer.asked_at,
                provider_id=provider_id,
            )
        ]
        batch = Batch(SOURCE, Interval.M1, answers)
        watch.alternate(
            number,
            late=lambda batch=batch: write(place.db, batch),
            copy=lambda rows=rows: peer.copy(place.owner, rows),
        )
    if known:
        run.report.ratio(
            "late_known_ratio",
            "the same, their cursors known, against COPY",
            watch.rate("late", ROWS),
            watch.rate("copy", ROWS),
            "rows/s",
        )
        return
    run.report.number(
        "late_compressed_rows_per_s",
        f"late rows into compressed chunks, {ROWS:,} a commit, never seen",
        watch.rate("late", ROWS),
        "rows/s",
        at_least(100_000),
    )
    run.report.ratio(
        "late_compressed_ratio",
        "the same against COPY into the same chunks",
        watch.rate("late", ROWS),
        watch.rate("copy", ROWS),
        "rows/s",
    )


def _answers(ids: Sequence[int], start: datetime) -> list[Answer]:
    chooser = random.Random(ids[0])
    return [page(s, walk(chooser, start, MINUTES), asked_at=start + DAY) for s in ids]
