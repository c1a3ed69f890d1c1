"""The lines that ``ops up`` prints: what changed, troubles spelled out, and when the market opens."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from core.clock import Clock
from core.sessions import Calendar
from db import backfill, calendars, overview, universe
from db.pool import Database

_STILL_THERE_S = 60.0
"""Real seconds after which a line that says nothing new is said again."""
_SATURDAY = 5
_MEND = {
    "not_found": "its rows end failed (`ops backfill list --state failed`): mend the name or take "
    "the symbol out of the universe",
    "bad_request": "such rows end failed, see `ops backfill list --state failed`",
    "auth": "renew its key; nothing needs a restart",
    "not_entitled": "the key's plan does not include it, so it is left out",
    "quota": "it is asked again when its quota is reset",
}
"""What comes of a failure that is not simply tried again, by its code."""


class StatusLines:
    """Remembers what it said, so that nothing is told twice.

    Args:
        db: The database; its clock is the market's.
        hint: What to try where no source has ever answered; empty: nothing.
    """

    def __init__(self, db: Database, *, hint: str = "") -> None:
        self._db = db
        self._clock: Clock = db.clock
        self._hint = hint
        self._told: set[tuple[str, str]] = set()
        self._summary = ""
        self._said_at = 0.0
        self._known: dict[str, Calendar] = {}

    def next(self) -> Iterator[str]:
        """A summary line when it changed or a minute has passed; each failure that is new or gone."""
        real, now = self._clock.monotonic(), self._clock.now()
        due = real - self._said_at >= _STILL_THERE_S or not self._said_at
        with self._db.transaction() as conn:
            tiers = overview.freshness(conn)
            sources = overview.by_source(conn)
            failures = overview.recent_failures(conn)
            if due:
                names = {member.calendar for member in universe.members(conn)}
                self._known = calendars.load(conn, sorted(names))
        answered = ", ".join(f"{row['tier']} {row['answered']}/{row['symbols']}" for row in tiers)
        waiting = sum(rows for rows, _age in backfill.depth(self._db).values())
        market = "; ".join(market_words(self._known[name], now) for name in sorted(self._known))
        summary = f"symbols answered: {answered}  backfill rows {waiting}  {market}"
        newest = max((row["last_answered_at"] for row in sources), default=None)
        if due or summary != self._summary:
            self._summary = summary
            self._said_at = real
            age = (
                f"last answer {(now - newest).total_seconds():.0f} s ago"
                if newest
                else "no answer yet"
            )
            yield f"{now:%H:%M:%S}Z  {summary}  {age}"
        if due and newest is None and failures:
            # Said again each minute: until a source answers, nothing else matters.
            self._told.clear()
        yield from self._failures(failures, nobody=newest is None)

    def _failures(self, failures: list[dict[str, Any]], *, nobody: bool) -> Iterator[str]:
        current = {(row["name"], row["code"]): row for row in failures}
        fresh = [key for key in current if key not in self._told]
        for name, code in fresh:
            row = current[name, code]
            yield f"  {name} fails ({code}): {row['detail']}; {_MEND.get(code, 'it is asked again by itself')}"
        if fresh and nobody and self._hint:
            yield f"  {self._hint}"
        for name, code in self._told - current.keys():
            yield f"  {name}: no more {code}"
        self._told = set(current)


def market_words(calendar: Calendar, now: datetime) -> str:
    """``NYSE open until 21:00Z``, or why it is closed and when it opens."""
    name, session = calendar.name, calendar.session_at(now)
    if session is not None:
        whole_day = (session.close - session.open).total_seconds() >= 86_400
        return f"{name} open" if whole_day else f"{name} open until {session.close:%H:%M}Z"
    following = calendar.next_open(now)
    if following is None:
        return (
            f"{name} closed, no later session is known: `ops calendar publish {name} --start ... "
            "--end ...`"
        )
    opens = (
        f"{following:%A %H:%M}Z" if (following - now).days < 6 else f"{following:%Y-%m-%d %H:%M}Z"
    )
    if any(one.label == now.date() for one in calendar.sessions):
        why = ""
    elif now.weekday() >= _SATURDAY:
        why = f" ({now:%A})"
    else:
        why = " (holiday)"
    return f"{name} closed{why}; next session {opens}"
