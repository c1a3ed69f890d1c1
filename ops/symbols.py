"""Symbols as people type them: found in the universe in any case, or refused with the nearest names."""

from collections.abc import Sequence
from difflib import get_close_matches

from core.errors import UsageError
from core.windows import Window
from db import calendars, universe
from db.pool import Connection, Database
from db.universe import Member
from ops.times import between, edge_instant, session_date, window

_NEAR = 3


def chosen(conn: Connection, typed: Sequence[str]) -> list[Member]:
    """The members that people mean, each name once, in their order; ``cefa`` is CEFA unless there is a cefa.

    A name that a symbol had earlier is good too: reads mean names at each bar's own time.

    Raises:
        UsageError: a symbol is not in the universe, with the names that look like it.
    """
    names = list(dict.fromkeys(typed))
    found = universe.resolve_ever(conn, names)
    folded = universe.resolve_ever(conn, [name.upper() for name in names if name not in found])
    unknown = [name for name in names if name not in found and name.upper() not in folded]
    if unknown:
        raise UsageError(
            f"symbol {', '.join(unknown)} is not in the universe{_near(conn, unknown)}; add it with "
            "`ops universe load --add FILE`, or see `ops universe show`"
        )
    members = [found.get(name) or folded[name.upper()] for name in names]
    return list({member.symbol: member for member in members}.values())


def one(conn: Connection, typed: str) -> Member:
    """The member that a person means.

    Raises:
        UsageError: it is not in the universe.
    """
    return chosen(conn, [typed])[0]


def symbols_and_window(
    db: Database, typed: Sequence[str], start: str, end: str
) -> tuple[list[str], Window]:
    """The names that people mean, and the window that two words mean on their calendar.

    Raises:
        UsageError: an unknown symbol, a bad time, or symbols of several calendars with a bare date.
    """
    with db.transaction() as conn:
        members = chosen(conn, typed)
        names = [member.symbol for member in members]
        if session_date(start) is None and session_date(end) is None:
            return names, between(edge_instant(start, "--start"), edge_instant(end, "--end"))
        on = sorted({member.calendar for member in members})
        if len(on) > 1:
            raise UsageError(
                f"the symbols trade on {', '.join(on)}; ask for each calendar's symbols apart"
            )
        return names, window(start, end, calendars.require(conn, on)[on[0]])


def _near(conn: Connection, unknown: Sequence[str]) -> str:
    known = [member.symbol for member in universe.members(conn)]
    near = [
        name
        for typed in unknown
        for name in get_close_matches(typed.upper(), known, n=_NEAR, cutoff=0.7)
    ]
    return f" (did you mean {' or '.join(dict.fromkeys(near))}?)" if near else ""
