"""How much is stored, for people who watch a run."""

from dataclasses import dataclass

from db.pool import Connection
from db.sql import sql


@dataclass(frozen=True, slots=True)
class Stored:
    """Exact counts."""

    bars: int
    """Revisions of bars of every interval."""
    revised: int
    """One-minute revisions after the first closed version."""
    quotes: int
    gap_minutes: int
    """One-minute bars that the gap pass found missing."""
    explained_minutes: int
    """Of those, the ones whose backfill has ended well."""
    open_gaps: int
    """Backfill rows of gaps that have not ended."""


def stored(conn: Connection) -> Stored:
    """Count everything exactly; reads whole tables, so for demos and young databases."""
    row = conn.execute(sql("counts", "stored")).fetchone()
    assert row is not None, "an aggregate without GROUP BY yields one row"
    return Stored(*row)
