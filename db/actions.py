"""Corporate actions as sources report them: append-only, the newest version of each counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from db import horizon
from db.pool import Connection, Database
from db.sources import source_id
from db.sql import sql


@dataclass(frozen=True, slots=True)
class Action:
    """A split, dividend, rename, listing or delisting."""

    symbol_id: int
    action: str
    ex_date: date
    asked_at: datetime
    ratio: float | None = None
    """Split: new shares for one old share."""
    amount: float | None = None
    """Dividend: cash for one share."""
    currency: str | None = None


def record(db: Database, source: str, actions: Sequence[Action]) -> int:
    """Store what differs from the newest stored version; returns how many rows that were."""

    def work(conn: Connection, as_of: datetime) -> int:
        provider_id = source_id(conn, source)
        return sum(
            conn.execute(
                sql("actions", "add"),
                {
                    "symbol_id": action.symbol_id,
                    "action": action.action,
                    "ex_date": action.ex_date,
                    "provider_id": provider_id,
                    "as_of": as_of,
                    "asked_at": action.asked_at,
                    "ratio": action.ratio,
                    "amount": action.amount,
                    "currency": action.currency,
                },
            ).rowcount
            for action in actions
        )

    return horizon.run(db, work, lock="corporate actions")


def known(
    conn: Connection, symbol_id: int, as_of: datetime | None = None
) -> list[tuple[str, Action]]:
    """Source and newest version of each action of a symbol as known at ``as_of``, oldest first."""
    parameters = {"symbol_id": symbol_id, "as_of": as_of}
    return [(row[0], Action(*row[1:])) for row in conn.execute(sql("actions", "known"), parameters)]
