"""When the work after a session's close falls due: the end-of-day sweep and the re-read.

Slots carry the session's close, so exchanges that close at the same instant share them. Later
sweeps of the same session (``CADENCE_T2__eod`` above 1) have phase numbers of their own.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from core.sessions import Calendar
from core.windows import Window
from core.words import Tier
from scheduler import facts
from scheduler.cadence import SWEEP_STRIDE, Slot
from workers.queues import Kind


def closings(calendars: Iterable[Calendar], window: Window) -> dict[datetime, list[Calendar]]:
    """Closes of sessions in ``[start, end)``, each with the calendars that close then."""
    found: dict[datetime, list[Calendar]] = {}
    # One instant earlier: a session that closes at window.start does not overlap the window itself.
    wider = Window(window.start - timedelta(microseconds=1), window.end)
    for calendar in calendars:
        for session in calendar.between(wider):
            if window.contains(session.close):
                found.setdefault(session.close, []).append(calendar)
    return found


def sweep_starts(close: datetime, calendars: Iterable[Calendar], sweeps: int) -> list[datetime]:
    """When the end-of-day sweeps of a session begin: after settle, then evenly to the next open."""
    first = close + facts.SETTLE_1D
    opens = [at for at in (calendar.next_open(close) for calendar in calendars) if at is not None]
    rest = min(opens) - first if opens else timedelta(0)
    if rest <= facts.DAILY_SPREAD * sweeps:
        return [first]
    return [first + rest * index // sweeps for index in range(sweeps)]


def slots(
    kind: Kind, tier: Tier, close: datetime, starts: Iterable[datetime], phases: int
) -> Iterator[Slot]:
    """The slots of one session: each sweep spread evenly over ``facts.DAILY_SPREAD``."""
    for index, start in enumerate(starts):
        for phase in range(phases):
            due = start + facts.DAILY_SPREAD * phase // phases
            yield Slot(kind, tier, close, index * SWEEP_STRIDE + phase, due)


def session_window(calendar: Calendar, close: datetime) -> Window | None:
    """The session that closes at exactly ``close``, from open to close; None when there is none."""
    session = calendar.last_closed(close)
    if session is None or session.close != close:
        return None
    return Window(session.open, session.close)
