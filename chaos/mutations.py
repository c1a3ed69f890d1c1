"""Safeties that can be switched off one at a time, to see that a run notices.

Each mutation is applied inside every process before its own code begins; nothing of it ships.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, LiteralString, cast

from db import candles, sql
from workers import intake, jobs
from workers.queues import CollectJob


def _replace(file: str, name: str, old: LiteralString, new: LiteralString) -> None:
    """Change one statement of this process."""
    statements = sql.statements(file)
    before = statements[name]
    assert old in before, f"{file}.{name} no longer holds what the mutation takes away"
    statements[name] = cast("LiteralString", before.replace(old, new))


def _no_lock_before_as_of() -> None:
    """Writers no longer announce themselves, so a reader's horizon can pass an open write."""
    sql.statements("horizon")["write_lock"] = "SELECT 1"


def _no_fencing() -> None:
    """An old leader that wakes up renews a lease that is another's, and claims under its old token."""
    _replace("leader", "renew", "AND l.holder = %(holder)s AND l.token = %(token)s", "")
    _replace(
        "slots",
        "claim",
        "l.token FROM leader_lease",
        "%(token)s::bigint AS token FROM leader_lease",
    )
    _replace("slots", "claim", "AND l.token = %(token)s AND l.expires_at > clock_timestamp()", "")


def _no_lease_expiry() -> None:
    """What a dead worker had claimed stays claimed."""
    _replace("backfill", "reap", "k.lease_expires <= clock_timestamp()", "false")
    _replace("backfill", "claim", "j.lease_expires <= clock_timestamp()", "false")


def _inbox_removed_before_commit() -> None:
    """Elements leave the coordinator's list before they are kept."""
    original = cast("Any", intake.Intake)._keep

    def keep(self: Any, elements: Any) -> Any:
        for element in elements:
            if element.dead is None:
                self._coordinator.lrem(element.list_key, -1, element.raw)
        return original(self, elements)

    cast("Any", intake.Intake)._keep = keep


def _cursor_in_its_own_transaction() -> None:
    """The cursor advances and commits, then the bars are written."""
    written = cast("Any", candles)._write

    def write(conn: Any, plan: Any) -> Any:
        cast("Any", candles)._lock_and_advance(conn, plan)
        # The connection's transaction block goes on over a second transaction.
        conn.execute("COMMIT")
        conn.execute("BEGIN")
        return written(conn, plan)

    cast("Any", candles)._write = write


def _no_deadline() -> None:
    """Live jobs are begun however late it is."""
    read = CollectJob.from_wire

    class Patient:
        """Reads jobs as CollectJob does, but for the deadline."""

        @staticmethod
        def from_wire(payload: object) -> CollectJob:
            job = read(payload)
            return replace(job, not_after=job.not_after + timedelta(days=1))

    cast("Any", jobs).CollectJob = Patient


MUTATIONS: Mapping[str, Callable[[], None]] = {
    "no-lock-before-as-of": _no_lock_before_as_of,
    "no-fencing": _no_fencing,
    "no-lease-expiry": _no_lease_expiry,
    "inbox-removed-before-commit": _inbox_removed_before_commit,
    "cursor-in-its-own-transaction": _cursor_in_its_own_transaction,
    "no-deadline": _no_deadline,
}
"""By name."""
