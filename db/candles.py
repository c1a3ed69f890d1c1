"""The write path of bars: one transaction from lock to commit, never across network I/O.

Order: announce the write (readers' horizon), lock the cursors of the batch in key order in a
statement of its own, take the as_of, write only what is new, add evidence, advance the cursors. The
same batch written twice adds nothing the second time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.errors import StorageError
from core.windows import Window
from core.words import Status
from db import backfill, evidence, inbox
from db.batches import Answer, Batch, Series, WriteResult
from db.evidence import Failure, Payload, Refusal
from db.horizon import TICK, patiently
from db.pool import Connection, Database
from db.series import RowBuilder, copy_rows, newest_versions
from db.sources import source_id
from db.sql import sql

__all__ = ["Answer", "Batch", "Failure", "Payload", "Refusal", "WriteResult", "write"]


class _UnknownSeriesError(StorageError):
    """A cursor of the batch does not exist yet."""


@dataclass(frozen=True, slots=True)
class _Cursor:
    """A cursor as it was when its lock was taken."""

    provider_id: int
    last_as_of: datetime | None
    last_answered_at: datetime | None
    touched: bool
    lacked: Sequence[Window]


@dataclass(frozen=True, slots=True)
class _Plan:
    """A batch made ready outside of the transaction."""

    batch: Batch
    series: Sequence[Series]
    payloads: Sequence[evidence.PackedPayload]
    notes: Sequence[evidence.Note]


def write(db: Database, batch: Batch) -> WriteResult:
    """Store what the batch adds to what is known.

    Raises:
        UsageError: a bar lies outside of its answer's window, or bars are not ascending.
        StorageError: the database can't be written, or its clock is behind what was written before.
    """
    plan = _prepare(batch)

    def attempt() -> WriteResult:
        try:
            return db.run(lambda conn: _write(conn, plan))
        except _UnknownSeriesError:
            db.run(lambda conn: _make_cursors(conn, plan))
            return db.run(lambda conn: _write(conn, plan))

    return patiently(db, attempt)


def _prepare(batch: Batch) -> _Plan:
    length = batch.interval.delta
    by_symbol: dict[int, list[Answer]] = {}
    for given in batch.answers:
        given.check(batch.interval)
        answer = given.in_whole_bars(batch.interval)
        by_symbol.setdefault(answer.symbol_id, []).append(answer)
    hulls = {
        symbol_id: Window(min(a.window.start for a in answers), max(a.window.end for a in answers))
        for symbol_id, answers in by_symbol.items()
    }
    for failure in batch.failures:
        hulls.setdefault(failure.symbol_id, failure.window)
    for refusal in batch.refusals:
        hulls.setdefault(refusal.symbol_id, Window(refusal.ts, refusal.ts + length))
    series = [
        Series(
            symbol_id,
            hulls[symbol_id],
            tuple(sorted(by_symbol.get(symbol_id, ()), key=lambda answer: answer.asked_at)),
        )
        for symbol_id in sorted(hulls)
    ]
    notes = [
        note
        for one in series
        for answer in one.answers
        if answer.lacking
        for note in _lacking_notes(answer)
    ]
    notes += evidence.failure_notes(batch.failures)
    notes += evidence.refusal_notes(batch.refusals, length)
    return _Plan(batch, series, evidence.pack(batch.payloads), notes)


def _lacking_notes(answer: Answer) -> list[evidence.Note]:
    return [
        evidence.Note(
            answer.symbol_id,
            answer.window,
            answer.asked_at,
            "lacked",
            settled=settled,
            lacking=lacking,
        )
        for settled, lacking in ((True, answer.settled_lacking()), (False, answer.open_lacking()))
        if lacking
    ]


def _make_cursors(conn: Connection, plan: _Plan) -> None:
    """In a transaction before the write's own, so that a write only ever locks, in key order."""
    conn.execute(
        sql("candles", "ensure_cursors"),
        {
            "ids": [series.symbol_id for series in plan.series],
            "interval_s": plan.batch.interval.seconds,
            "provider_id": source_id(conn, plan.batch.source),
        },
    )


def _write(conn: Connection, plan: _Plan) -> WriteResult:
    batch = plan.batch
    cursors, as_of = _lock(conn, plan)
    known = next(iter(cursors.values()), None)
    provider_id = known.provider_id if known else source_id(conn, batch.source)

    touched = [s for s in plan.series if s.answers and cursors[s.symbol_id].touched]
    stored = newest_versions(conn, batch.interval, provider_id, touched)
    builder = RowBuilder(batch.interval, as_of, provider_id, batch.reason)
    for series in plan.series:
        cursor = cursors[series.symbol_id]
        if not cursor.touched:
            builder.add_new(series)
        elif series.answers:
            builder.add_changed(
                series, stored[series.symbol_id], cursor.lacked, cursor.last_answered_at
            )
    added = sum(builder.counts.values())
    if added:
        copy_rows(conn, batch.interval, builder.parts)

    common: dict[str, Any] = {
        "interval_s": batch.interval.seconds,
        "provider_id": provider_id,
        "as_of": as_of,
    }
    evidence.add_notes(conn, plan.notes, **common)
    evidence.add_quarantine(conn, batch.refusals, **common)
    evidence.add_payloads(conn, plan.payloads, provider_id=provider_id, as_of=as_of)
    _advance(conn, plan, common)
    # The order of locks is the same everywhere: cursors, backfill rows, coordinator elements.
    backfill.finish(conn, *batch.finished_jobs)
    inbox.answered(conn, batch.inbox)

    counts = builder.counts
    seen = sum(len(answer.bars) for answer in batch.answers)
    return WriteResult(
        as_of=as_of,
        final=counts[Status.FINAL],
        revised=counts[Status.REVISED],
        partial=counts[Status.PARTIAL],
        withdrawn=counts[Status.WITHDRAWN],
        unchanged=seen - added + counts[Status.WITHDRAWN],
    )


def _lock(conn: Connection, plan: _Plan) -> tuple[dict[int, _Cursor], datetime]:
    """Announce, lock in key order, then read the clock: three statements, one round trip."""
    with conn.pipeline():
        conn.execute(sql("horizon", "write_lock"))
        found = conn.execute(
            sql("candles", "lock_cursors"),
            {
                "ids": [series.symbol_id for series in plan.series],
                "starts": [series.window.start for series in plan.series],
                "ends": [series.window.end for series in plan.series],
                "interval_s": plan.batch.interval.seconds,
                "source": plan.batch.source,
            },
            binary=True,
        )
        stamped = conn.execute(sql("horizon", "stamp"))
    cursors = {
        symbol_id: _Cursor(
            provider_id,
            last_as_of,
            last_answered_at,
            touched,
            [Window(part.lower, part.upper) for part in lacked] if lacked else (),
        )
        for symbol_id, provider_id, last_as_of, last_answered_at, touched, lacked in found
    }
    if len(cursors) < len(plan.series):
        raise _UnknownSeriesError(f"{len(plan.series) - len(cursors)} cursors do not exist yet")
    row = stamped.fetchone()
    assert row is not None
    last = [cursor.last_as_of + TICK for cursor in cursors.values() if cursor.last_as_of]
    return cursors, max([row[0], *last])


def _advance(conn: Connection, plan: _Plan, common: Mapping[str, Any]) -> None:
    # One answer of a series at a time: the statement below may touch a row once only.
    depth = max((len(series.answers) for series in plan.series), default=0)
    for layer in range(depth):
        answers = [s.answers[layer] for s in plan.series if layer < len(s.answers)]
        lacking = [(a.symbol_id, w) for a in answers if a.lacking for w in a.settled_lacking()]
        conn.execute(
            sql("candles", "advance_cursors"),
            {
                **common,
                "ids": [a.symbol_id for a in answers],
                "starts": [a.window.start for a in answers],
                "cuts": [min(max(a.settled_until, a.window.start), a.window.end) for a in answers],
                "ends": [a.window.end for a in answers],
                "asked": [a.asked_at for a in answers],
                "lack_ids": [symbol_id for symbol_id, _ in lacking],
                "lack_starts": [window.start for _, window in lacking],
                "lack_ends": [window.end for _, window in lacking],
            },
        )
    failures = plan.batch.failures
    if failures:
        conn.execute(
            sql("candles", "note_asked"),
            {
                **common,
                "ids": [f.symbol_id for f in failures],
                "asked": [f.asked_at for f in failures],
            },
        )
