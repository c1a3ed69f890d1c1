"""The write path of bars: one transaction from lock to commit, never across network I/O.

Order: announce the write (readers' horizon); lock the cursors of the batch in key order, take the
as_of, advance the cursors; read what is stored, write only what is new, add evidence. The same batch
written twice adds nothing the second time.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.errors import StorageError
from core.windows import Window
from core.words import Status
from db import backfill, evidence, inbox
from db.batches import Answer, Batch, Series, WriteResult
from db.evidence import Failure, Payload, Refusal
from db.horizon import patiently
from db.pool import Connection, Database
from db.preparing import Plan, prepare
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


_NOTHING_LACKED: tuple[Sequence[Window], None] = ((), None)


def write(db: Database, batch: Batch) -> WriteResult:
    """Store what the batch adds to what is known.

    Raises:
        UsageError: a bar lies outside of its answer's window, or bars are not ascending.
        StorageError: the database can't be written, or its clock is behind what was written before.
    """
    plan = prepare(batch)

    def attempt() -> WriteResult:
        try:
            return db.run(lambda conn: _write(conn, plan))
        except _UnknownSeriesError:
            db.run(lambda conn: _make_cursors(conn, plan))
            return db.run(lambda conn: _write(conn, plan))

    return patiently(db, attempt)


def _make_cursors(conn: Connection, plan: Plan) -> None:
    """In a transaction before the write's own, so that a write only ever locks, in key order."""
    conn.execute(
        sql("candles", "ensure_cursors"),
        {
            "ids": [series.symbol_id for series in plan.series],
            "interval_s": plan.batch.interval.seconds,
            "provider_id": source_id(conn, plan.batch.source),
        },
    )


def _write(conn: Connection, plan: Plan) -> WriteResult:
    batch = plan.batch
    locked = _lock_and_advance(conn, plan)
    as_of, provider_id = locked.as_of, locked.provider_id

    builder = RowBuilder(batch.interval, as_of, provider_id, batch.reason)
    touched: list[Series] = []
    if locked.touched:
        touched = [one for one in plan.series if one.symbol_id in locked.touched and one.answers]
        builder.add_new([one for one in plan.series if one.symbol_id not in locked.touched])
    else:
        builder.add_new(plan.series)
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


def _lock_and_advance(conn: Connection, plan: Plan) -> _Locked:
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
