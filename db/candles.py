"""The write path of bars: one transaction from lock to commit, never across network I/O.

Order: announce the write (readers' horizon), lock the cursors of the batch in key order in a
statement of its own, take the as_of, write only what is new, add evidence, advance the cursors. The
same batch written twice adds nothing the second time.
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
from db.evidence import Failure, Payload, Refusal
from db.horizon import TICK, patiently
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
    locks: Mapping[str, Any]
    """Parameters of the statement that locks."""
    advances: Sequence[Mapping[str, Any]]
    """Parameters of the statements that advance the cursors."""
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
        _locks(batch, series),
        _advances(series),
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


def _locks(batch: Batch, series: Sequence[Series]) -> dict[str, Any]:
    windows = Numbered[Window]()
    numbers = [windows.number(one.window) for one in series]
    return {
        "ids": [one.symbol_id for one in series],
        "windows": numbers,
        "starts": [window.start for window in windows],
        "ends": [window.end for window in windows],
        "interval_s": batch.interval.seconds,
        "source": batch.source,
    }


def _advances(series: Sequence[Series]) -> list[dict[str, Any]]:
    """One answer of a series at a time: a statement may touch a row once only."""
    layers: list[dict[str, Any]] = []
    for layer in range(max((len(one.answers) for one in series), default=0)):
        answers = [one.answers[layer] for one in series if layer < len(one.answers)]
        asks = Numbered[tuple[Window, datetime, datetime]]()
        numbers = [asks.number((a.window, a.settled_until, a.asked_at)) for a in answers]
        lacking = [(a.symbol_id, w) for a in answers if a.lacking for w in a.settled_lacking()]
        layers.append(
            {
                "ids": [a.symbol_id for a in answers],
                "asks": numbers,
                "starts": [window.start for window, _, _ in asks],
                "cuts": [min(max(until, w.start), w.end) for w, until, _ in asks],
                "ends": [window.end for window, _, _ in asks],
                "asked": [asked_at for _, _, asked_at in asks],
                "lack_ids": [symbol_id for symbol_id, _ in lacking],
                "lack_starts": [window.start for _, window in lacking],
                "lack_ends": [window.end for _, window in lacking],
            }
        )
    return layers


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
    locked = _lock(conn, plan)
    as_of, provider_id = locked.as_of, locked.provider_id

    touched = [s for s in plan.series if s.answers and s.symbol_id in locked.touched]
    stored = newest_versions(conn, batch.interval, provider_id, touched)
    builder = RowBuilder(batch.interval, as_of, provider_id, batch.reason)
    for series in plan.series:
        known = stored.get(series.symbol_id)
        if known is None:
            builder.add_new(series)
        else:
            lacked, answered_at = locked.lacked.get(series.symbol_id, _NOTHING_LACKED)
            builder.add_changed(series, known, lacked, answered_at)
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


def _lock(conn: Connection, plan: _Plan) -> _Locked:
    """Announce, lock in key order, then read the clock: three statements, one round trip."""
    with conn.pipeline():
        conn.execute(sql("horizon", "write_lock"))
        found = conn.execute(sql("candles", "lock_cursors"), plan.locks, binary=True)
        stamped = conn.execute(sql("horizon", "stamp"))
    row, stamp = found.fetchone(), stamped.fetchone()
    assert row is not None
    assert stamp is not None
    count, provider_id, last_as_of, touched, *before = row
    lacking: Iterable[tuple[int, Iterable[Any], datetime | None]] = (
        zip(*before, strict=True) if before[0] else ()
    )
    if count < len(plan.series):
        raise _UnknownSeriesError(f"{len(plan.series) - count} cursors do not exist yet")
    if provider_id is None:
        provider_id = source_id(conn, plan.batch.source)
    return _Locked(
        provider_id,
        stamp[0] if last_as_of is None else max(stamp[0], last_as_of + TICK),
        frozenset(touched or ()),
        {
            symbol_id: ([Window(part.lower, part.upper) for part in parts], at)
            for symbol_id, parts, at in lacking
        },
    )


def _advance(conn: Connection, plan: _Plan, common: Mapping[str, Any]) -> None:
    for layer in plan.advances:
        conn.execute(sql("candles", "advance_cursors"), {**common, **layer})
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
