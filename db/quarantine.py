"""What was refused of a source's answers: with the reason and the bytes, beside the bars, never among them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from db import evidence, horizon
from db.evidence import Refusal
from db.pool import Connection, Database
from db.sources import source_id
from db.sql import sql


@dataclass(frozen=True, slots=True)
class Refused:
    """How much of one source was refused lately."""

    provider: str
    reason: str
    """One of them."""
    count: int


def put(db: Database, source: str, interval_s: int, refusals: Sequence[Refusal]) -> None:
    """Put refused answers aside; the same one again adds nothing.

    Args:
        db: Where.
        source: Whose word it was.
        interval_s: Of the bars; 0 for quotes.
        refusals: What was refused, and why.
    """
    horizon.run(
        db,
        lambda conn, as_of: evidence.add_quarantine(
            conn,
            refusals,
            interval_s=interval_s,
            provider_id=source_id(conn, source),
            as_of=as_of,
        ),
    )


def recent(conn: Connection, within: timedelta) -> dict[str, Refused]:
    """What each source had refused within so much market time before now."""
    rows = conn.execute(sql("evidence", "recent_quarantine"), {"within": within})
    return {name: Refused(name, reason, count) for name, reason, count in rows}
