"""The operator's switch: sources that are not asked, until when, by whom and why."""

from dataclasses import dataclass
from datetime import datetime

from db import horizon
from db.pool import Connection, Database
from db.sql import sql


@dataclass(frozen=True, slots=True)
class Switch:
    """A source that is off now."""

    provider: str
    until: datetime | None
    """Market time at which it comes back by itself; None: only by hand."""
    who: str
    reason: str
    since: datetime


def switch(
    db: Database,
    provider: str,
    *,
    enabled: bool,
    who: str,
    reason: str,
    until: datetime | None = None,
) -> None:
    """Turn a source off (until a market time) or on again; every turn is kept."""

    def work(conn: Connection, as_of: datetime) -> None:
        conn.execute(
            sql("switches", "add"),
            {
                "provider": provider,
                "enabled": enabled,
                "until": until,
                "who": who,
                "reason": reason,
                "as_of": as_of,
            },
        )

    horizon.run(db, work)


def disabled(conn: Connection) -> dict[str, Switch]:
    """Sources that are off now, by name."""
    return {row[0]: Switch(*row) for row in conn.execute(sql("switches", "disabled"))}
