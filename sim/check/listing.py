"""From when bars of a symbol are expected: the open of the session in which it was listed."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sim.check.truth import Admin

Sessions = list[dict[str, Any]]


def sessions_between(
    admin: Admin, start: float, end: float, calendar: str | None = None
) -> Sessions:
    """Sessions that touch a window of epoch seconds, and some beside it.

    Args:
        admin: The simulator.
        start: The window's start.
        end: Its end.
        calendar: None: the one of most symbols.
    """
    first, last = (datetime.fromtimestamp(edge, UTC) for edge in (start, end))
    edges = {
        "start": (first - timedelta(days=1)).date().isoformat(),
        "end": (last + timedelta(days=2)).date().isoformat(),
    }
    more = {} if calendar is None else {"calendar": calendar}
    return admin.get("/admin/sessions", **edges, **more)


def expected_since(admin: Admin, listed: dict[str, float]) -> dict[str, float]:
    """By symbol, epoch seconds; symbols that the market does not have are left out.

    Args:
        admin: The simulator.
        listed: When each symbol joined the universe.
    """
    calendars = {row["symbol"]: row["calendar"] for row in admin.get("/admin/universe")}
    opens: dict[tuple[str, float], float] = {}
    found: dict[str, float] = {}
    for symbol, at in listed.items():
        calendar = calendars.get(symbol)
        if calendar is None:
            continue
        if (calendar, at) not in opens:
            running = [
                session["open"]
                for session in sessions_between(admin, at, at, calendar)
                if session["open"] <= at < session["close"]
            ]
            opens[(calendar, at)] = running[0] if running else at
        found[symbol] = opens[(calendar, at)]
    return found
