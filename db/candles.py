"""The write path of bars: one transaction from lock to commit, never across network I/O.

Order: announce the write (readers' horizon); lock the cursors of the batch in key order, take the
as_of, advance the cursors; read what is stored, write only what is new, add evidence. The same batch
written twice adds nothing the second time.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any

from core.errors import StorageError
from core.windows import Window
from core.words import Status
from db import backfill, evidence, inbox
from db.batches import Answer, Batch, Series, WriteResult
from db.evidence import Failure, Payload, Refusal, multirange
from db.horizon import patiently
from db.numbered import Numbered
from db.pool import Connection, Database
from db.series import RowBuilder, copy_rows, newest_versions
from db.sources import source_id
from db.sql import sql

__all__ = ["Answer", "Batch", "Failure", "Payload", "Refusal", "WriteResult", "write"]


class _UnknownSeriesError(StorageError):
    """A cursor of the batch does not exist yet."""


@dataclass(frozen=True, slots=True)
class _Locked:
    """The cursors of a batch as they were when their locks were taken."""

    provider_id: int
    as_of: datetime
    """Knowledge time of what is written under these locks."""
    touched: Set[int]
    """Symbols whose window was asked before."""
    lacked: Mapping[int, tuple[Sequence[Window], datetime | None]]
    """Symbol -> time that its newest settled answer lacked, and when that was asked for."""


_SYMBOL_ID = attrgetter("symbol_id")
_NOTHING_LACKED: tuple[Sequence[Window], None] = ((), None)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A batch made ready outside of the transaction, whose locks nobody should hold longer for it."""

    batch: Batch
    series: Sequence[Series]
    advances: Sequence[Mapping[str, Any]]
    """Parameters of the statements that lock and advance: an answer of each series, then its next."""
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
    interval = batch.interval
    for given in batch.answers:
        given.check(interval)
    answers = sorted((given.in_whole_bars(interval) for given in batch.answers), key=_SYMBOL_ID)
    series = [_series(symbol_id, tuple(same)) for symbol_id, same in groupby(answers, _SYMBOL_ID)]
    series += _unanswered(batch, {one.symbol_id for one in series})
    series.sort(key=_SYMBOL_ID)
    notes = [
        note
        for one in series
        for answer in one.answers
        if answer.lacking
        for note in _lacking_notes(answer)
    ]
    notes += evidence.failure_notes(batch.failures)
    notes += evidence.refusal_notes(batch.refusals, interval.delta)
    return _Plan(
        batch,
        series,
        _advances(batch, series),
        evidence.pack(batch.payloads),
        notes,
    )


def _series(symbol_id: int, answers: tuple[Answer, ...]) -> Series:
    if len(answers) == 1:
        return Series(symbol_id, answers[0].window, answers)
    hull = Window(min(a.window.start for a in answers), max(a.window.end for a in answers))
    return Series(symbol_id, hull, tuple(sorted(answers, key=attrgetter("asked_at"))))


def _unanswered(batch: Batch, answered: Set[int]) -> list[Series]:
    """Series of which the batch only says that they were asked in vain, or answered with rubbish."""
    windows: dict[int, Window] = {}
    for failure in batch.failures:
        windows.setdefault(failure.symbol_id, failure.window)
    for refusal in batch.refusals:
        bar = Window(refusal.ts, refusal.ts + batch.interval.delta)
        windows.setdefault(refusal.symbol_id, bar)
    return [Series(one, windows[one], ()) for one in windows if one not in answered]


def _advances(batch: Batch, series: Sequence[Series]) -> list[dict[str, Any]]:
    """One answer of a series at a time, for a statement may touch a row once only."""
    depth = max((len(one.answers) for one in series), default=0)
    first = _advance(batch, [(one, one.answers[0] if one.answers else None) for one in series])
    return [first] + [
        _advance(batch, [(one, one.answers[at]) for one in series if at < len(one.answers)])
        for at in range(1, depth)
    ]


def _advance(batch: Batch, pairs: Sequence[tuple[Series, Answer | None]]) -> dict[str, Any]:
    windows = Numbered[Window]()
    asks = Numbered[tuple[Window, datetime, datetime]]()
    return {
        "interval_s": batch.interval.seconds,
        "source": batch.source,
        "ids": [one.symbol_id for one, _ in pairs],
        "windows": [windows.number(one.window) for one, _ in pairs],
        "asks": [a and asks.number((a.window, a.settled_until, a.asked_at)) for _, a in pairs],
        "starts": [window.start for window in windows],
        "ends": [window.end for window in windows],
        "ask_starts": [window.start for window, _, _ in asks],
        "ask_cuts": [min(max(until, w.start), w.end) for w, until, _ in asks],
        "ask_ends": [window.end for window, _, _ in asks],
        "asked": [asked_at for _, _, asked_at in asks],
        "lacking": [
            multirange(a.settled_lacking()) if a is not None and a.lacking else None
            for _, a in pairs
        ],
    }


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
    locked = _lock_and_advance(conn, plan)
    as_of, provider_id = locked.as_of, locked.provider_id

    builder = RowBuilder(batch.interval, as_of, provider_id, batch.reason)
    touched = [one for one in plan.series if one.symbol_id in locked.touched and one.answers]
    if len(touched) < len(plan.series):
        builder.add_new([one for one in plan.series if one.symbol_id not in locked.touched])
    stored = newest_versions(conn, batch.interval, provider_id, touched)
    for one in touched:
        lacked, answered_at = locked.lacked.get(one.symbol_id, _NOTHING_LACKED)
        builder.add_changed(one, stored[one.symbol_id], lacked, answered_at)
    added = sum(builder.counts.values())
    if added:
        copy_rows(conn, batch.interval, builder.rows())

    common: dict[str, Any] = {
        "interval_s": batch.interval.seconds,
        "provider_id": provider_id,
        "as_of": as_of,
    }
    evidence.add_notes(conn, plan.notes, **common)
    evidence.add_quarantine(conn, batch.refusals, **common)
    evidence.add_payloads(conn, plan.payloads, provider_id=provider_id, as_of=as_of)
    _note_failures(conn, plan.batch.failures, common)
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


def _lock_and_advance(conn: Connection, plan: _Plan) -> _Locked:
    """Announce; lock in key order, read the clock, advance; all in one round trip."""
    with conn.pipeline():
        conn.execute(sql("horizon", "write_lock"))
        done = [
            conn.execute(sql("candles", "lock_and_advance"), layer, binary=True)
            for layer in plan.advances
        ]
    rows = [cursor.fetchone() for cursor in done]
    first, last = rows[0], rows[-1]
    assert first is not None
    assert last is not None
    count, provider_id, _, touched, *before = first
    lacking: Iterable[tuple[int, Iterable[Any], datetime | None]] = (
        zip(*before, strict=True) if before[0] else ()
    )
    if count < len(plan.series):
        raise _UnknownSeriesError(f"{len(plan.series) - count} cursors do not exist yet")
    return _Locked(
        source_id(conn, plan.batch.source) if provider_id is None else provider_id,
        last[2],
        frozenset(touched or ()),
        {
            symbol_id: ([Window(part.lower, part.upper) for part in parts], at)
            for symbol_id, parts, at in lacking
        },
    )


def _note_failures(
    conn: Connection, failures: Sequence[Failure], common: Mapping[str, Any]
) -> None:
    if failures:
        conn.execute(
            sql("candles", "note_asked"),
            {
                **common,
                "ids": [f.symbol_id for f in failures],
                "asked": [f.asked_at for f in failures],
            },
        )
