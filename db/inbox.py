"""The coordinator's elements: taken from its lists, kept here until they are answered."""

import json
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from db.pool import Connection, Database
from db.sql import sql

ONCE_S = 86_400.0
"""Market seconds for which an element's id is remembered: with an id, once in this time."""

LIFE_S = 86_400.0
"""Market seconds for which an element of kind ``jobs`` without a ``not_after`` is tried."""

LEASE_S = 30.0
"""Real seconds after which an element of which nobody has said a word is dispatched again."""

ROWS_LEASE_S = 600.0
"""The same for one whose backfill rows are kept: it ends with them, whatever is lost."""

EXPIRED = 5_000
"""Elements ended in one transaction: a coordinator may have pushed a million with one ``not_after``."""


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
    # In the order of their ids, so that two intakes never wait for each other; of one id the first.
    by_id = {element.element_id: element for element in reversed(elements)}
    kept = [by_id[name] for name in sorted(by_id)]
    parameters: dict[str, Any] = {
        "element_ids": [element.element_id for element in kept],
        "list_keys": [element.list_key for element in kept],
        "raws": [element.raw for element in kept],
        "payloads": [
            None if element.payload is None else json.dumps(dict(element.payload))
            for element in kept
        ],
        "kinds": [element.kind for element in kept],
        "symbols": [json.dumps(list(dict.fromkeys(element.symbols))) for element in kept],
        "reasons": [element.dead for element in kept],
        "not_after": [element.not_after for element in kept],
        "once_s": ONCE_S,
    }
    return db.run(lambda conn: dict(conn.execute(sql("inbox", "receive"), parameters).fetchall()))


@contextmanager
def turn(db: Database, list_key: str) -> Generator[bool]:
    """Whether taking from a list is ours alone for as long as the block lasts.

    The turn ends with our connection, so a death frees it at once.
    """
    parameters = {"list_key": list_key}
    with db.session() as conn:
        row = conn.execute(sql("inbox", "try_turn"), parameters).fetchone()
        assert row is not None, "a function yields one row"
        try:
            yield row[0]
        finally:
            if row[0]:
                # A connection that is lost has lost the turn as well.
                with suppress(psycopg.Error):
                    conn.execute(sql("inbox", "end_turn"), parameters)


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
    _strike(conn, symbols_by_element, None)


def give_up(db: Database, symbols_by_element: Mapping[int, Sequence[str]], reason: str) -> None:
    """Strike symbols off that nobody will answer; dead, with the reason, when none remains."""
    db.run(lambda conn: _strike(conn, symbols_by_element, reason))


def _strike(
    conn: Connection, symbols_by_element: Mapping[int, Sequence[str]], reason: str | None
) -> None:
    for inbox_id in sorted(symbols_by_element):
        conn.execute(
            sql("inbox", "strike"),
            {
                "inbox_id": inbox_id,
                "symbols": list(symbols_by_element[inbox_id]),
                "reason": reason,
            },
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


def hold(db: Database, inbox_ids: Collection[int], lease_s: float) -> dict[int, frozenset[str]]:
    """Say that elements are worked on: none is dispatched again within so many real seconds.

    Returns:
        The symbols that each still wants; elements that have ended are left out.
    """
    parameters = {"ids": list(inbox_ids), "lease_s": lease_s}
    found = db.run(lambda conn: conn.execute(sql("inbox", "hold"), parameters).fetchall())
    return {inbox_id: frozenset(remaining) for inbox_id, remaining in found}


def expire(db: Database) -> int:
    """End elements whose not_after, or ``LIFE_S`` without one, has passed.

    Returns:
        How many, at most ``EXPIRED``; the next call goes on.
    """
    parameters = {"life_s": LIFE_S, "limit": EXPIRED}
    return db.run(lambda conn: conn.execute(sql("inbox", "expire"), parameters).rowcount)


def counts(db: Database) -> dict[str, int]:
    """Elements by state."""
    with db.transaction() as conn:
        return dict(conn.execute(sql("inbox", "counts")).fetchall())
