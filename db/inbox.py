"""The coordinator's elements: taken from its lists, kept here until they are answered."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from db.pool import Connection, Database
from db.sql import sql

ONCE_S = 86_400.0
"""Market seconds for which an element's id is remembered: with an id, once in this time."""

LIFE_S = 86_400.0
"""Market seconds for which an element of kind ``jobs`` without a ``not_after`` is tried."""


@dataclass(frozen=True, slots=True)
class Element:
    """One element as it came."""

    element_id: str
    """The coordinator's id; one made up by intake where it gave none."""
    list_key: str
    raw: bytes
    """Byte for byte."""
    payload: Mapping[str, Any] | None
    """The decoded object, None where it can't be decoded."""
    kind: str
    """``jobs`` or ``backfill``."""
    symbols: Sequence[str] = ()
    """What it asks for."""
    not_after: datetime | None = None
    """Market time after which nobody wants the answer."""
    dead: str | None = None
    """Why nobody can execute it; such an element is kept as dead from the start."""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """An element to turn into work now."""

    inbox_id: int
    element_id: str
    kind: str
    payload: Mapping[str, Any]
    remaining: tuple[str, ...]
    """Symbols not answered yet."""
    not_after: datetime | None
    received_at: datetime
    again: bool
    """It was dispatched before and not answered within its lease."""


def receive(db: Database, elements: Sequence[Element]) -> dict[str, int]:
    """Keep elements; an id that was seen less than ``ONCE_S`` ago changes nothing.

    Commit comes before the elements are removed from their list, so that none is lost.

    Returns:
        Row by element id, of the elements that are new.
    """

    def work(conn: Connection) -> dict[str, int]:
        new: dict[str, int] = {}
        for element in sorted(elements, key=lambda e: e.element_id):
            row = conn.execute(
                sql("inbox", "receive"),
                {
                    "element_id": element.element_id,
                    "list_key": element.list_key,
                    "raw": element.raw,
                    "payload": None if element.payload is None else Jsonb(dict(element.payload)),
                    "kind": element.kind,
                    "remaining": list(dict.fromkeys(element.symbols)),
                    "not_after": element.not_after,
                    "state": "new" if element.dead is None else "dead",
                    "reason": element.dead,
                    "once_s": ONCE_S,
                },
            ).fetchone()
            if row is not None:
                new[element.element_id] = row[0]
        return new

    return db.run(work)


def dispatchable(db: Database, limit: int, lease_s: float) -> list[Dispatch]:
    """Take elements to turn into work: new ones, and those not answered within their lease.

    Each is marked dispatched for ``lease_s`` real seconds; several intakes share the work.
    """
    return db.run(
        lambda conn: [
            Dispatch(inbox_id, element_id, kind, payload, tuple(remaining), *rest)
            for inbox_id, element_id, kind, payload, remaining, *rest in conn.execute(
                sql("inbox", "dispatchable"), {"limit": limit, "lease_s": lease_s}
            )
        ]
    )


def answered(conn: Connection, symbols_by_element: Mapping[int, Sequence[str]]) -> None:
    """Strike answered symbols off in the caller's transaction; done when none remains."""
    for inbox_id in sorted(symbols_by_element):
        conn.execute(
            sql("inbox", "answered"),
            {"inbox_id": inbox_id, "symbols": list(symbols_by_element[inbox_id])},
        )


def mark_dead(db: Database, inbox_id: int, reason: str) -> None:
    """Give an element up for a reason; one that has ended stays as it is."""
    db.run(
        lambda conn: (
            conn.execute(
                sql("inbox", "mark_dead"), {"inbox_id": inbox_id, "reason": reason}
            ).rowcount
        )
    )


def wanted(db: Database, inbox_ids: Collection[int]) -> dict[int, frozenset[str]]:
    """Symbols that some elements still want; elements that have ended are left out."""
    with db.transaction() as conn:
        found = conn.execute(sql("inbox", "wanted"), {"ids": list(inbox_ids)}).fetchall()
    return {inbox_id: frozenset(remaining) for inbox_id, remaining in found}


def expire(db: Database) -> int:
    """End elements whose not_after, or ``LIFE_S`` without one, has passed; returns how many."""
    return db.run(lambda conn: conn.execute(sql("inbox", "expire"), {"life_s": LIFE_S}).rowcount)


def counts(db: Database) -> dict[str, int]:
    """Elements by state."""
    with db.transaction() as conn:
        return dict(conn.execute(sql("inbox", "counts")).fetchall())
