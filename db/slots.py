"""Sweep slots: claimed under the leader's token before their jobs are pushed, marked once they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from core.errors import LeaseLostError
from core.words import Tier
from db.pool import Database
from db.sql import sql

LEASE = "scheduler"
"""Name of the lease whose token fences claims."""


@dataclass(frozen=True, slots=True)
class SlotKey:
    """One phase of one cycle of one kind and tier."""

    kind: str
    """``bars_1m``, ``quotes_l1``, ``bars_eod`` or ``reread``."""
    tier: Tier
    slot_ts: datetime
    phase: int = 0


def claim_slots(
    db: Database, token: int, slots: Sequence[SlotKey], *, lease: str = LEASE
) -> list[SlotKey]:
    """Claim slots that nobody has claimed; the caller pushes the jobs of those returned.

    Raises:
        LeaseLostError: ``token`` is no longer the lease's, or the lease has run out.
    """
    parameters = {**_arrays(slots), "token": token, "lease": lease}
    # Commits by itself: a leader that is stopped here keeps no lock on the lease.
    with db.session() as conn:
        rows = conn.execute(sql("slots", "claim"), parameters).fetchall()
    # The lease's row is read in the statement that inserts, and reported with every result.
    if not rows:
        raise LeaseLostError(
            f"token {token} no longer holds the lease {lease!r}; stop, another scheduler leads"
        )
    return [
        SlotKey(kind, Tier(tier), slot_ts, phase)
        for kind, tier, slot_ts, phase in rows
        if kind is not None
    ]


def mark_pushed(
    db: Database, slots: Sequence[SlotKey], jobs: Mapping[SlotKey, int] | None = None
) -> None:
    """Note that the jobs of claimed slots are in their queues; ``jobs`` says how many."""
    parameters = {
        **_arrays(slots),
        "jobs": [0 if jobs is None else jobs.get(slot, 0) for slot in slots],
    }
    db.run(lambda conn: conn.execute(sql("slots", "mark_pushed"), parameters).rowcount)


def unpushed(db: Database, since: datetime) -> list[SlotKey]:
    """Slots claimed and not marked pushed, from ``since`` on, oldest first: push them again."""
    with db.transaction() as conn:
        return [
            SlotKey(kind, Tier(tier), slot_ts, phase)
            for kind, tier, slot_ts, phase in conn.execute(
                sql("slots", "unpushed"), {"since": since}
            )
        ]


def reopen_daily(db: Database, since: datetime) -> int:
    """Have daily slots that were pushed since then pushed again; returns how many."""
    return db.run(lambda conn: conn.execute(sql("slots", "reopen"), {"since": since}).rowcount)


def newest(db: Database) -> dict[tuple[str, Tier], datetime]:
    """Newest claimed slot of each kind and tier."""
    with db.transaction() as conn:
        return {
            (kind, Tier(tier)): slot_ts
            for kind, tier, slot_ts in conn.execute(sql("slots", "newest"))
        }


def _arrays(slots: Sequence[SlotKey]) -> dict[str, list[object]]:
    return {
        "kinds": [str(slot.kind) for slot in slots],
        "tiers": [str(slot.tier) for slot in slots],
        "slot_ts": [slot.slot_ts for slot in slots],
        "phases": [slot.phase for slot in slots],
    }
