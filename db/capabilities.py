"""What each source can do for the fleet: published by those who route, read by those who judge gaps.

A minute is confirmed empty by the sources that could know, so the scheduler, which knows no provider,
needs their names; and how long their bars may still change.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from core.words import Capability
from db.horizon import run
from db.pool import Connection, Database
from db.sql import sql


@dataclass(frozen=True, slots=True)
class SourceFact:
    """One source and one capability of it."""

    provider: str
    capability: Capability
    eligible: bool
    """Installed, configured and entitled, whatever its health now."""
    reason: str = ""
    """Why it is not eligible."""
    settle_s: float | None = None
    """Market seconds after its end for which a bar may still change; None where it has no bars."""


def publish(db: Database, facts: Sequence[SourceFact]) -> int:
    """Append what changed; returns how many rows that were. Twice the same adds nothing."""
    with db.transaction() as conn:
        if not _news(conn, facts):
            return 0

    def add(conn: Connection, as_of: datetime) -> int:
        news = _news(conn, facts)
        for fact in news:
            conn.execute(
                sql("capabilities", "add"),
                {
                    "provider": fact.provider,
                    "capability": fact.capability.value,
                    "eligible": fact.eligible,
                    "reason": fact.reason,
                    "settle_s": fact.settle_s,
                    "as_of": as_of,
                },
            )
        return len(news)

    return run(db, add, lock="capabilities")


def current(conn: Connection) -> list[SourceFact]:
    """The newest word on every source and capability; empty until a worker has started."""
    return [
        SourceFact(provider, Capability(capability), eligible, reason, settle_s)
        for provider, capability, eligible, reason, settle_s in conn.execute(
            sql("capabilities", "current")
        )
    ]


def _news(conn: Connection, facts: Sequence[SourceFact]) -> list[SourceFact]:
    known = set(current(conn))
    return [fact for fact in facts if fact not in known]
