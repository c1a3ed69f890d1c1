"""The window of a coordinator's element that names none: what the sweep would ask for now. Pure."""

import math
from datetime import datetime, timedelta

from core.errors import BadJobError
from core.sessions import Calendar
from core.windows import Window, floor_to
from workers.queues import Kind

_MINUTE = timedelta(minutes=1)
_SETTLE_MINUTES = 1
_CADENCE_S = 60.0


def current_window(
    kind: Kind, calendar: Calendar, now: datetime, cadence_s: float | None
) -> Window | None:
    """The current slot's window, None for quotes.

    One-minute bars: the minutes that closed since the slot before, and those that settled since.
    Daily bars: the newest session that has closed.

    Args:
        kind: What is asked for.
        calendar: The symbol's.
        now: Market time.
        cadence_s: Market seconds between two asks of the tier, None where it has none.

    Raises:
        BadJobError: the calendar knows no session that has closed.
    """
    if kind is Kind.QUOTES_L1:
        return None
    if kind is Kind.BARS_EOD:
        session = calendar.last_closed(now)
        if session is None:
            raise BadJobError(f"calendar {calendar.name} knows no session that closed before {now}")
        return Window(session.open, session.close)
    minute = floor_to(now, _MINUTE)
    minutes = math.ceil((cadence_s or _CADENCE_S) / 60) + _SETTLE_MINUTES
    return Window(minute - minutes * _MINUTE, minute)
