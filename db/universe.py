"""Who is collected: symbols under their names, in tiers, on calendars. Append-only versions."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.errors import UnknownSymbolError, UsageError
from core.words import Tier
from db import horizon
from db.pool import Connection, Database
from db.sql import sql

_LOCK = "universe"

Row = tuple[str, Tier, str, str]
"""symbol, tier, calendar, exchange."""


@dataclass(frozen=True, slots=True)
class Member:
    """A symbol of the universe under the name in force."""

    symbol_id: int
    symbol: str
    tier: Tier
    calendar: str
    exchange: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a load did."""

    version: int
    """The version in force now; the one from before when nothing changed."""
    active: int
    added: int
    changed: int
    retired: int
    duplicates: tuple[str, ...] = ()
    """Symbols that the rows named more than once, each time the same."""


@dataclass(frozen=True, slots=True)
class _State:
    """Newest row of a symbol."""

    symbol_id: int
    tier: str
    calendar: str
    exchange: str
    active: bool


def load(
    db: Database, rows: Sequence[Row], origin: str, *, note: str = "", replace: bool = True
) -> Report:
    """Make rows the universe; the same rows again change nothing.

    Args:
        db: Where.
        rows: symbol, tier, calendar, exchange.
        origin: Where they come from, for people.
        note: Why, for people.
        replace: Retire active symbols that the rows lack; False keeps them.

    Raises:
        UsageError: a symbol is empty, or named twice with different facts.
    """
    wanted, duplicates = _unique(rows)

    def change(current: Mapping[str, _State]) -> dict[str, tuple[str, str, str, bool]]:
        facts = {name: (*row, True) for name, row in wanted.items()}
        if replace:
            facts |= {
                name: (state.tier, state.calendar, state.exchange, False)
                for name, state in current.items()
                if name not in wanted
            }
        return facts

    return _publish(db, change, origin, note, duplicates)


def retier(db: Database, symbols: Sequence[str], tier: Tier, *, origin: str = "retier") -> Report:
    """Move symbols to a tier; those already there stay.

    Raises:
        UnknownSymbolError: a symbol is not in the universe.
    """

    def change(current: Mapping[str, _State]) -> dict[str, tuple[str, str, str, bool]]:
        unknown = sorted(set(symbols) - set(current))
        if unknown:
            raise UnknownSymbolError(
                f"symbol {', '.join(unknown)} is not in the universe; see `ops universe show`"
            )
        return {
            name: (str(tier), state.calendar, state.exchange, state.active)
            for name, state in current.items()
            if name in symbols
        }

    return _publish(db, change, origin, "", ())


def rename(db: Database, old: str, new: str, since: datetime) -> None:
    """A symbol has a new name from an instant on; its past keeps the old one.

    Raises:
        UnknownSymbolError: nobody has the old name at that instant.
        UsageError: somebody else has the new name then or later.
    """

    def work(conn: Connection, as_of: datetime) -> None:
        parameters = {"old": old, "new": new, "since": since, "as_of": as_of}
        if conn.execute(sql("universe", "is_renamed"), parameters).fetchone() is not None:
            return
        holder = conn.execute(sql("universe", "holder_before"), parameters).fetchone()
        if holder is None:
            raise UnknownSymbolError(
                f"symbol {old} has no holder just before {since.isoformat()}; see `ops universe show`"
            )
        taken = conn.execute(sql("universe", "taken_after"), parameters).fetchone()
        if taken is not None:
            raise UsageError(
                f"the name {new} belongs to symbol {taken[0]} at or after {since.isoformat()}; "
                "rename that one first, or choose a later instant"
            )
        conn.execute(sql("universe", "rename"), {**parameters, "symbol_id": holder[0]})

    horizon.run(db, work, lock=_LOCK)


def resolve(
    conn: Connection, names: Sequence[str], at: datetime | None = None
) -> dict[str, Member]:
    """Members by name, active or not; names that nobody has (at that instant) are left out.

    Args:
        conn: Any transaction.
        names: As people write them.
        at: Instant at which the names are meant; None: market time now.
    """
    found = conn.execute(sql("universe", "resolve"), {"names": list(names), "at": at})
    return {row[1]: _member(row) for row in found}


def resolve_ever(conn: Connection, names: Sequence[str]) -> dict[str, Member]:
    """Members by any name that they have or had, the newest holder of each; others are left out."""
    found = conn.execute(sql("universe", "resolve_ever"), {"names": list(names)})
    return {row[1]: _member(row) for row in found}


def members(conn: Connection, tier: Tier | None = None, *, active: bool = True) -> list[Member]:
    """The universe by symbol; ``active=False`` gives the retired ones."""
    parameters = {"tier": None if tier is None else str(tier), "active": active}
    return [_member(row) for row in conn.execute(sql("universe", "members"), parameters)]


def version(conn: Connection) -> int:
    """Newest version; 0 before the first load. Names that changed count as well."""
    row = conn.execute(sql("universe", "version")).fetchone()
    assert row is not None
    return row[0]


def _unique(rows: Sequence[Row]) -> tuple[dict[str, tuple[str, str, str]], tuple[str, ...]]:
    wanted: dict[str, tuple[str, str, str]] = {}
    duplicates: dict[str, None] = {}
    clashes: list[str] = []
    for symbol, tier, calendar, exchange in rows:
        if not symbol or symbol != symbol.strip():
            raise UsageError(f"symbol {symbol!r} is empty or has blanks around it; mend the row")
        facts = (str(tier), calendar, exchange)
        if symbol not in wanted:
            wanted[symbol] = facts
        elif wanted[symbol] == facts:
            duplicates[symbol] = None
        else:
            clashes.append(f"{symbol} ({' '.join(wanted[symbol])}, then {' '.join(facts)})")
    if clashes:
        more = f" and {len(clashes) - 10} more" if len(clashes) > 10 else ""
        raise UsageError(
            f"symbols with two different rows: {', '.join(clashes[:10])}{more}; keep one of each"
        )
    return wanted, tuple(duplicates)


def _publish(
    db: Database,
    change: Callable[[Mapping[str, _State]], dict[str, tuple[str, str, str, bool]]],
    origin: str,
    note: str,
    duplicates: tuple[str, ...],
) -> Report:
    def work(conn: Connection, as_of: datetime) -> Report:
        current = {name: _State(*rest) for name, *rest in conn.execute(sql("universe", "current"))}
        facts = {
            name: wanted
            for name, wanted in change(current).items()
            if name not in current or _facts(current[name]) != wanted
        }
        added = sorted(name for name in facts if name not in current)
        retired = [name for name in facts if name in current and not facts[name][3]]
        number = version_number(conn)
        if facts:
            number += 1
            ids = {name: state.symbol_id for name, state in current.items()}
            ids |= _add_symbols(conn, added, as_of)
            _add_version(conn, number, as_of, origin, note, {ids[n]: facts[n] for n in facts})
        final = {name: state.active for name, state in current.items()}
        final |= {name: wanted[3] for name, wanted in facts.items()}
        return Report(
            version=number,
            active=sum(final.values()),
            added=len(added),
            changed=len(facts) - len(added) - len(retired),
            retired=len(retired),
            duplicates=duplicates,
        )

    return horizon.run(db, work, lock=_LOCK)


def version_number(conn: Connection) -> int:
    """Newest row of universe_versions; 0 before the first load."""
    row = conn.execute(sql("universe", "version_number")).fetchone()
    assert row is not None
    return row[0]


def _facts(state: _State) -> tuple[str, str, str, bool]:
    return state.tier, state.calendar, state.exchange, state.active


def _add_symbols(conn: Connection, names: Sequence[str], as_of: datetime) -> dict[str, int]:
    if not names:
        return {}
    parameters = {"names": list(names), "as_of": as_of}
    return dict(conn.execute(sql("universe", "add_symbols"), parameters).fetchall())


def _add_version(
    conn: Connection,
    number: int,
    as_of: datetime,
    origin: str,
    note: str,
    facts: Mapping[int, tuple[str, str, str, bool]],
) -> None:
    ordered = sorted(facts.items())
    parameters: dict[str, Any] = {
        "version": number,
        "as_of": as_of,
        "origin": origin,
        "note": note,
        "checksum": hashlib.sha256(repr(ordered).encode()).hexdigest(),
        "ids": [symbol_id for symbol_id, _ in ordered],
        "tiers": [fact[0] for _, fact in ordered],
        "calendars": [fact[1] for _, fact in ordered],
        "exchanges": [fact[2] for _, fact in ordered],
        "active": [fact[3] for _, fact in ordered],
    }
    conn.execute(sql("universe", "add_version"), parameters)
    conn.execute(sql("universe", "add_members"), parameters)


def _member(row: tuple[Any, ...]) -> Member:
    symbol_id, symbol, tier, calendar, exchange = row
    return Member(symbol_id, symbol, Tier(tier), calendar, exchange)
