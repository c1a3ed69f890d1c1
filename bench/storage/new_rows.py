"""New pages, the same again, and 3 % of them changed: ``db.candles.write`` against binary COPY.

Both sides write into the same table, whose symbols interleave, so that both meet the same index.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from bench.report import at_least, exactly
from bench.run import Place, Run
from bench.storage import peer
from bench.storage.market import DAY, SOURCE, asked_again, first_open, page, reply, restated, walk
from bench.storage.sources import provider_id_of
from core.words import Interval
from db.candles import Answer, Batch, WriteResult, write

SYMBOLS, MINUTES = 50, 400
ROWS = SYMBOLS * MINUTES
_FIRST_ID = 1_000
_LACKING_EVERY = 25
_CHANGED_EVERY = 33


@dataclass(frozen=True, slots=True)
class _Turn:
    """One batch for each side, ready made."""

    batch: Batch
    rows: Sequence[peer.Row]


def measure(run: Run) -> None:
    """Cursors known from earlier use; then first contact; then with the raw replies."""
    with run.place() as place:
        turns = run.size(15, 7)
        others = run.size(200, 40)
        start = first_open(run.clock)
        ours = list(range(_FIRST_ID, _FIRST_ID + 2 * SYMBOLS, 2))
        write(place.db, Batch(SOURCE, Interval.M1, _answers(ours, start - DAY)))
        provider_id = provider_id_of(place.owner)
        past = peer.fill(
            place.owner,
            [*range(1, others // 2 + 1), *range(500_000, 500_000 + others // 2)],
            start,
            days=turns,
            minutes=MINUTES,
            provider_id=provider_id,
        )
        run.report.values |= {"new_rows_commit_rows": ROWS, "new_rows_table_rows": past}
        make = _maker(ours, provider_id, start)
        _known(run, place, make, turns)
        _with_replies(run, place, make, range(turns, turns + run.size(7, 5)))
        _first_contact(run, place, provider_id, start, run.size(7, 5))


def _known(run: Run, place: Place, make: Callable[[int], _Turn], turns: int) -> None:
    watch = run.stopwatch()
    added = wrong = 0
    for number in range(turns):
        turn = make(number)
        watch.alternate(
            number,
            new=lambda turn=turn: write(place.db, turn.batch),
            copy=lambda turn=turn: peer.copy(place.owner, turn.rows),
        )
        same = watch.time("same", lambda turn=turn: write(place.db, _again(turn.batch)))
        added += _added(same)
        changed, expected = _changed(turn.batch)
        found = watch.time("changed", lambda changed=changed: write(place.db, changed))
        wrong += abs(found.revised - expected) + _added(replace(found, revised=0))
    ids = [answer.symbol_id for answer in make(0).batch.answers]
    stored = peer.count(place.owner, ids) - ROWS
    wrong += abs(stored - turns * (ROWS + expected_changes()))
    limit = watch.rate("copy", ROWS)
    report = run.report
    at = "rows/s"
    report.ratio(
        "new_rows_ratio",
        f"new rows, {ROWS:,} a commit, cursors known",
        watch.rate("new", ROWS),
        limit,
        at,
        at_least(0.80 if run.timescale else 0.85),
        new_rows_runs=turns,
    )
    report.ratio(
        "reingest_ratio",
        "identical re-ingestion",
        watch.rate("same", ROWS),
        limit,
        at,
        at_least(0.6),
    )
    report.number("reingest_added", "rows that it added", added, aim=exactly(0))
    report.ratio("changed_ratio", "3 % changed", watch.rate("changed", ROWS), limit, at)
    report.number("changed_wrong", "rows too many or too few", wrong, aim=exactly(0))


def _with_replies(
    run: Run, place: Place, make: Callable[[int], _Turn], numbers: Sequence[int]
) -> None:
    watch = run.stopwatch()
    for number in numbers:
        turn = make(number)
        batch = replace(turn.batch, payloads=[reply(answer) for answer in turn.batch.answers])
        watch.alternate(
            number,
            new=lambda batch=batch: write(place.db, batch),
            copy=lambda turn=turn: peer.copy(place.owner, turn.rows),
        )
    run.report.ratio(
        "new_rows_payloads_ratio",
        f"the same with {SYMBOLS} raw replies a commit, compressed and kept",
        watch.rate("new", ROWS),
        watch.rate("copy", ROWS),
        "rows/s",
    )


def _first_contact(run: Run, place: Place, provider_id: int, start: datetime, turns: int) -> None:
    watch = run.stopwatch()
    for number in range(turns):
        first = 10_000 + 2 * SYMBOLS * number
        turn = _maker(range(first, first + 2 * SYMBOLS, 2), provider_id, start)(0)
        watch.alternate(
            number,
            new=lambda turn=turn: write(place.db, turn.batch),
            copy=lambda turn=turn: peer.copy(place.owner, turn.rows),
        )
    run.report.ratio(
        "new_rows_first_contact_ratio",
        "the same, series never asked before (their cursors are made)",
        watch.rate("new", ROWS),
        watch.rate("copy", ROWS),
        "rows/s",
    )


def expected_changes() -> int:
    """How many bars of a batch ``_changed`` changes."""
    return SYMBOLS * len(range(0, MINUTES, _CHANGED_EVERY))


def _maker(ids: Sequence[int], provider_id: int, start: datetime) -> Callable[[int], _Turn]:
    def make(day: int) -> _Turn:
        answers = _answers(ids, start + day * DAY)
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
        return _Turn(Batch(SOURCE, Interval.M1, answers), rows)

    return make


def _answers(ids: Sequence[int], start: datetime) -> list[Answer]:
    chooser = random.Random(start.toordinal())
    return [
        page(
            symbol_id,
            walk(chooser, start, MINUTES),
            asked_at=start + DAY,
            lacks_last=place % _LACKING_EVERY == 0,
        )
        for place, symbol_id in enumerate(ids)
    ]


def _again(batch: Batch) -> Batch:
    return replace(batch, answers=[asked_again(answer, DAY) for answer in batch.answers])


def _changed(batch: Batch) -> tuple[Batch, int]:
    answers = [
        asked_again(
            answer,
            2 * DAY,
            [
                bar if place % _CHANGED_EVERY else restated(bar)
                for place, bar in enumerate(answer.bars)
            ],
        )
        for answer in batch.answers
    ]
    return replace(batch, answers=answers), expected_changes()


def _added(result: WriteResult) -> int:
    return result.final + result.revised + result.partial + result.withdrawn
