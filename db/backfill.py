"""Backfill rows: work that is a row in the database before it is a job in a queue.

pending -> running (claimed under a lease) -> done, or back to pending with a later try, or failed
after the last attempt. Leases and tries are on the database's clock; not_before and not_after are
market time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.windows import Window
from core.words import Interval, Tier
from db.pool import Connection, Database
from db.sql import sql

PARKED_S = 86_400.0
"""Market seconds for which a window that was given up or cancelled is not found as a new gap."""
REAPED = 5_000
"""Rows that one ``reap`` changes at most: seconds of work, however many expire at once."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """A window to ask for."""

    symbol_id: int
    interval: Interval
    window: Window
    tier: Tier
    origin: str
    """``gap``, ``operator``, ``coordinator`` or ``reread``."""
    provider: str | None = None
    """Source to prefer."""
    not_before: datetime | None = None
    """Market time before which asking makes no sense."""
    not_after: datetime | None = None
    """Market time after which nobody wants the answer."""
    inbox_id: int | None = None
    """The coordinator's element that this answers."""
    max_attempts: int = 8


@dataclass(frozen=True, slots=True)
class Job:
    """A row claimed by this worker."""

    job_id: int
    symbol_id: int
    symbol: str
    calendar: str
    interval: Interval
    window: Window
    tier: Tier
    origin: str
    provider: str | None
    attempts: int
    """This one included."""
    answered_by: tuple[str, ...]
    """Sources that have answered this window already, without all of its bars."""


@dataclass(frozen=True, slots=True)
class Finish:
    """How a claimed row ended."""

    job_id: int
    lease_owner: str
    state: str
    """``done``, ``pending`` (try again) or ``failed``."""
    reason: str | None = None
    next_try_in_s: float = 0
    """Real seconds before the next try of a pending row."""
    not_before: datetime | None = None
    """Market time before which the next try makes no sense; None keeps what the row has."""
    answered_by: tuple[str, ...] = ()
    """Sources that answered now; added to those before."""
    spent: bool = True
    """False gives the attempt back: nobody was asked."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Rows of one tier and state among those that somebody waits for."""

    tier: Tier
    state: str
    rows: int
    reason: str | None
    """What the most tried of them met last, with its symbol and how often it was tried."""


def enqueue(db: Database, jobs: Sequence[NewJob]) -> list[int]:
    """Add rows; a window that is open already adds none.

    Rows of origin ``gap`` ask only for what no open row of the same series asks, and for nothing
    that was given up or cancelled less than ``PARKED_S`` ago. A coordinator's element has one row a
    window, however often it is enqueued.

    Returns:
        Ids of the new rows.
    """
    if not jobs:
        return []
    parameters: dict[str, Any] = {
        "symbol_ids": [job.symbol_id for job in jobs],
        "intervals": [job.interval.seconds for job in jobs],
        "starts": [job.window.start for job in jobs],
        "ends": [job.window.end for job in jobs],
        "tiers": [str(job.tier) for job in jobs],
        "origins": [job.origin for job in jobs],
        "providers": [job.provider for job in jobs],
        "not_before": [job.not_before for job in jobs],
        "not_after": [job.not_after for job in jobs],
        "inbox_ids": [job.inbox_id for job in jobs],
        "max_attempts": [job.max_attempts for job in jobs],
        "parked_s": PARKED_S,
    }

    def work(conn: Connection) -> list[int]:
        # Two enqueuers would each miss the other's rows.
        conn.execute(sql("backfill", "lock_enqueue"))
        return [job_id for (job_id,) in conn.execute(sql("backfill", "enqueue"), parameters)]

    return db.run(work)


def due(db: Database, tier: Tier, limit: int, max_concurrency: int) -> list[int]:
    """Rows to push now, oldest first: pending, their try due, still wanted, not pushed lately.

    Twice the tier's concurrency may be running or pushed at once, so that workers never wait for the
    next pass; claiming enforces the concurrency itself.
    """
    with db.transaction() as conn:
        return [
            job_id
            for (job_id,) in conn.execute(
                sql("backfill", "due"),
                {"tier": str(tier), "limit": limit, "ahead": 2 * max_concurrency},
            )
        ]


def left_by_the_dead(db: Database, ids: Sequence[int]) -> list[int]:
    """Those of some rows whose last worker fell silent: one of them may have been its end.

    The likeliest, with the most attempts, comes last.
    """
    with db.transaction() as conn:
        found = conn.execute(sql("backfill", "left_by_the_dead"), {"ids": list(ids)})
        return [job_id for (job_id,) in found]


def mark_dispatched(db: Database, ids: Sequence[int], seconds: float) -> None:
    """Note that rows were pushed; they are not due again for that many real seconds."""
    db.run(
        lambda conn: (
            conn.execute(
                sql("backfill", "mark_dispatched"), {"ids": list(ids), "seconds": seconds}
            ).rowcount
        )
    )


def claim(
    db: Database, ids: Sequence[int], owner: str, lease_s: float, max_concurrency: int
) -> list[Job]:
    """Take rows for ``owner`` within the fleet-wide concurrency of their tier.

    Rows that run under a live lease, have ended, are not due or exceed the concurrency are left; the
    latter become due again at once. ``owner`` fences: a later claim has another owner, and what this
    one reports then changes nothing, so make it unique per claim.
    """

    def work(conn: Connection) -> list[Job]:
        parameters = {
            "ids": list(ids),
            "owner": owner,
            "lease_s": lease_s,
            "max_concurrency": max_concurrency,
        }
        # One claimer of a tier at a time, else two would both count the same free places.
        conn.execute(sql("backfill", "lock_claim"), parameters)
        claimed = conn.execute(sql("backfill", "claim"), parameters).fetchall()
        conn.execute(sql("backfill", "undispatch"), parameters)
        return [_job(row) for row in claimed]

    return db.run(work)


def heartbeat(db: Database, ids: Sequence[int], owner: str, lease_s: float) -> set[int]:
    """Extend leases; returns the rows that are still ``owner``'s."""
    return db.run(
        lambda conn: {
            job_id
            for (job_id,) in conn.execute(
                sql("backfill", "heartbeat"),
                {"ids": list(ids), "owner": owner, "lease_s": lease_s},
            )
        }
    )


def finish(conn: Connection, *finishes: Finish) -> set[int]:
    """Record outcomes in the caller's transaction.

    A row that has another owner by now is left alone. A pending outcome after the last attempt parks
    the row as failed. The coordinator's element of a row is done when the last of its rows is, dead
    when one of them failed.

    Returns:
        Rows whose outcome was taken.
    """
    taken: set[int] = set()
    for outcome in sorted(finishes, key=lambda f: f.job_id):
        row = conn.execute(
            sql("backfill", "finish"),
            {
                "job_id": outcome.job_id,
                "owner": outcome.lease_owner,
                "state": outcome.state,
                "reason": outcome.reason,
                "next_try_in_s": outcome.next_try_in_s,
                "not_before": outcome.not_before,
                "answered_by": list(outcome.answered_by),
                "spent": outcome.spent,
            },
        ).fetchone()
        if row is not None:
            taken.add(outcome.job_id)
    _settle_elements_of(conn, sorted(taken))
    return taken


def settle(db: Database, inbox_ids: Sequence[int]) -> None:
    """End those of some coordinator's elements none of whose rows is open any more."""
    if inbox_ids:
        parameters = {"inbox_ids": list(inbox_ids)}

        def work(conn: Connection) -> None:
            conn.execute(sql("backfill", "lock_elements"), parameters)
            conn.execute(sql("backfill", "settle_inbox"), parameters)

        db.run(work)


def _settle_elements_of(conn: Connection, ended: Sequence[int]) -> None:
    if ended:
        found = conn.execute(sql("backfill", "lock_inbox"), {"ids": list(ended)}).fetchall()
        if found:
            parameters = {"inbox_ids": [inbox_id for (inbox_id,) in found]}
            conn.execute(sql("backfill", "settle_inbox"), parameters)


def reap(db: Database) -> int:
    """Put rows whose lease has run out back to pending, or park them after their last attempt.

    Rows that nobody wants any more (not_after) are parked as expired. At most ``REAPED`` rows are
    changed, those whose lease has run out first; the next call goes on.

    Returns:
        Rows changed.
    """
    limit = {"limit": REAPED}

    def work(conn: Connection) -> int:
        ids = [job_id for (job_id,) in conn.execute(sql("backfill", "reap"), limit)]
        _settle_elements_of(conn, ids)
        conn.execute(sql("backfill", "unpostpone"), limit)
        return len(ids)

    return db.run(work)


def list_jobs(db: Database, *, state: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
    """Rows for people, newest first."""
    with db.transaction() as conn:
        cursor = conn.execute(sql("backfill", "list"), {"state": state, "limit": limit})
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor]


def states(db: Database, ids: Sequence[int]) -> dict[int, str]:
    """State of each row."""
    with db.transaction() as conn:
        return dict(conn.execute(sql("backfill", "states"), {"ids": list(ids)}).fetchall())


def same_open(db: Database, jobs: Sequence[NewJob]) -> list[int]:
    """Ids of the open rows that ask exactly what these jobs ask, new ones included."""
    parameters = {
        "symbol_ids": [job.symbol_id for job in jobs],
        "intervals": [job.interval.seconds for job in jobs],
        "starts": [job.window.start for job in jobs],
        "ends": [job.window.end for job in jobs],
        "providers": [job.provider for job in jobs],
    }
    with db.transaction() as conn:
        return [job_id for (job_id,) in conn.execute(sql("backfill", "same_open"), parameters)]


def progress(db: Database, ids: Sequence[int]) -> list[Progress]:
    """How some rows fare, by tier and state."""
    with db.transaction() as conn:
        found = conn.execute(sql("backfill", "progress"), {"ids": list(ids)}).fetchall()
    return [Progress(Tier(tier), state, rows, reason) for tier, state, rows, reason in found]


def stored_bars(db: Database, ids: Sequence[int], since: datetime) -> tuple[int, int]:
    """Bars that the windows of some rows hold now, and those of them that came since an instant."""
    with db.transaction() as conn:
        row = conn.execute(
            sql("backfill", "stored_bars"), {"ids": list(ids), "since": since}
        ).fetchone()
    assert row is not None, "an aggregate without GROUP BY yields one row"
    return row[0], row[1]


def retry(db: Database, ids: Sequence[int] | None) -> int:
    """Put failed and cancelled rows back with fresh attempts; None: every failed row. Returns how many."""
    return _change(db, "retry", ids)


def cancel(db: Database, ids: Sequence[int] | None) -> int:
    """End rows that do not run; None: every pending or paused row. Returns how many.

    A coordinator's element whose last open row this was is dead with that reason.
    """

    def work(conn: Connection) -> int:
        found = conn.execute(sql("backfill", "cancel"), {"ids": None if ids is None else list(ids)})
        ended = [job_id for (job_id,) in found]
        _settle_elements_of(conn, ended)
        return len(ended)

    return db.run(work)


def pause(db: Database, ids: Sequence[int] | None) -> int:
    """Hold pending rows back; None: all of them. Returns how many."""
    return _change(db, "pause", ids)


def resume(db: Database, ids: Sequence[int] | None) -> int:
    """Let paused rows go on; None: all of them. Returns how many."""
    return _change(db, "resume", ids)


def depth(db: Database) -> dict[Tier, tuple[int, float | None]]:
    """Rows waiting or running by tier, and the age of the oldest in market seconds."""
    with db.transaction() as conn:
        found: Mapping[str, tuple[int, float | None]] = {
            tier: (count, age) for tier, count, age in conn.execute(sql("backfill", "depth"))
        }
    return {tier: found.get(str(tier), (0, None)) for tier in Tier}


def _change(db: Database, verb: str, ids: Sequence[int] | None) -> int:
    statement = sql("backfill", verb)
    return db.run(
        lambda conn: conn.execute(statement, {"ids": None if ids is None else list(ids)}).rowcount
    )


def _job(row: tuple[Any, ...]) -> Job:
    job_id, symbol_id, symbol, calendar, interval, start, end, tier, *rest = row
    origin, provider, attempts, answered_by = rest
    return Job(
        job_id,
        symbol_id,
        symbol,
        calendar,
        Interval(interval),
        Window(start, end),
        Tier(tier),
        origin,
        provider,
        attempts,
        tuple(answered_by),
    )
