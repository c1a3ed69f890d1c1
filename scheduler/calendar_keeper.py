"""Publishes trading calendars that the universe names and the database lacks or outgrows.

pandas costs 80 MB and seconds, so the arrays are built by a short-lived process of their own.
"""

import json
import logging
import subprocess
import sys
from datetime import datetime, timedelta

from core.errors import GaplessError
from core.sessions import Calendar
from db import calendars
from db.pool import Database
from scheduler.plan import Plan

log = logging.getLogger(__name__)

_BEHIND = timedelta(days=370)
_AHEAD = timedelta(days=400)
_RENEW_BEFORE = timedelta(days=4)
"""Market time before the arrays' end at which wider ones are published; longer than a weekend."""
_BUILD_TIMEOUT_S = 120
_AGAIN_AFTER_S = 600.0
"""Real seconds after which a calendar that could not be built is tried again."""


class CalendarBuildError(GaplessError):
    """A calendar that the universe names can't be built."""

    code = "calendar"


class CalendarKeeper:
    """Sees that every calendar of the universe is published and reaches far enough."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._clock = db.clock
        self._not_before: dict[str, float] = {}

    def refresh(self, plan: Plan) -> int:
        """Publish what is missing or runs out; returns how many calendars that were."""
        now = self._clock.now()
        published = 0
        for name in sorted({member.calendar for member in plan.members}):
            if _reaches(plan.calendars.get(name), now) or not self._may_try(name):
                continue
            try:
                payload = build(name, now)
            except CalendarBuildError as error:
                self._not_before[name] = self._clock.monotonic() + _AGAIN_AFTER_S
                log.error("calendar missing", extra={"calendar": name, "error": str(error)})  # noqa: TRY400
                continue
            version = calendars.publish(self._db, payload)
            published += 1
            log.info("calendar published", extra={"calendar": name, "version": version})
        return published

    def _may_try(self, name: str) -> bool:
        return self._clock.monotonic() >= self._not_before.get(name, float("-inf"))


def build(name: str, now: datetime) -> dict[str, object]:
    """Sessions of an exchange for about a year on both sides of ``now``, as plain numbers.

    Raises:
        CalendarBuildError: no such calendar, or the builder failed; the message says which.
    """
    start, end = (now - _BEHIND).date(), (now + _AHEAD).date()
    command = [sys.executable, "-m", "core.sessions_build", name]
    command += ["--start", start.isoformat(), "--end", end.isoformat()]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_BUILD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CalendarBuildError(
            f"calendar {name} was not built within {_BUILD_TIMEOUT_S} s; it is tried again"
        ) from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise CalendarBuildError(
            f"calendar {name} can't be built: {lines[-1]}; "
            "mend the calendar column with `ops universe load`"
        )
    return json.loads(done.stdout)


def _reaches(calendar: Calendar | None, now: datetime) -> bool:
    if calendar is None:
        return False
    return (
        calendar.known_from <= now.date() and calendar.known_until >= (now + _RENEW_BEFORE).date()
    )
