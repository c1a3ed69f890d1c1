"""From when bars of a symbol are expected: the open of the session in which it was listed."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sim.check.truth import Admin

Sessions = list[dict[str, Any]]


def sessions_around(admin: Admin, at: float, days: int, calendar: str | None = None) -> Sessions:
    """Sessions of so many days before and after an instant; None: the calendar of most symbols."""
    moment = datetime.fromtimestamp(at, UTC)
    edges = {
        "start": (moment - timedelta(days=days)).date().isoformat(),
        "end": (moment + timedelta(days=days)).date().isoformat(),
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
                for session in sessions_around(admin, at, 2, calendar)
                if session["open"] <= at < session["close"]
            ]
            opens[(calendar, at)] = running[0] if running else at
        found[symbol] = opens[(calendar, at)]
    return found
