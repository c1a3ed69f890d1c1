"""Trading sessions as published arrays with a version, and what the arrays could not know."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from core.errors import UsageError
from core.sessions import Calendar, Session
from core.windows import Window, merge, subtract
from db import horizon
from db.pool import Connection, Database
from db.sql import sql

_LOCK = "calendars"


@dataclass(frozen=True, slots=True)
class Override:
    """What the published arrays do not know, with who says so and why."""

    kind: str
    """``closed`` or ``hours`` (one session of a calendar), ``halt`` (a symbol or a calendar, no
    trading in ``hours``), ``cancel`` (takes an earlier override back)."""
    who: str
    reason: str
    calendar: str | None = None
    symbol_id: int | None = None
    session: date | None = None
    hours: tuple[Window, ...] = ()
    cancels: int | None = None
    """Id of the override that is taken back."""


def publish(db: Database, payload: Mapping[str, Any]) -> int:
    """Publish a calendar as ``core.sessions_build`` makes it; the same arrays again change nothing.

    Returns:
        The version in force.
    """
    checksum = hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()
    sessions: Sequence[Any] = payload["sessions"]

    def work(conn: Connection, as_of: datetime) -> int:
        name = payload["calendar"]
        row = conn.execute(sql("calendars", "newest"), {"calendar": name}).fetchone()
        if row is not None and row[1] == checksum:
            return row[0]
        number = 1 if row is None else row[0] + 1
        parameters: dict[str, Any] = {
            "calendar": name,
            "version": number,
            "known_from": date.fromisoformat(payload["known_from"]),
            "known_until": date.fromisoformat(payload["known_until"]),
            "checksum": checksum,
            "as_of": as_of,
            "labels": [date.fromisoformat(label) for label, _ in sessions],
            "opens": [_utc(segments[0][0]) for _, segments in sessions],
            "closes": [_utc(segments[-1][1]) for _, segments in sessions],
            "hours": [_multirange(segments) for _, segments in sessions],
        }
        conn.execute(sql("calendars", "add_version"), parameters)
        conn.execute(sql("calendars", "add_sessions"), parameters)
        return number

    return horizon.run(db, work, lock=_LOCK)


def override(db: Database, what: Override) -> int:
    """Add an override; gaps are judged by it from the next pass on. Returns its id.

    Raises:
        UsageError: the calendar or the override to cancel is unknown.
    """

    def work(conn: Connection, as_of: datetime) -> int:
        parameters: dict[str, Any] = {
            "kind": what.kind,
            "calendar": what.calendar,
            "symbol_id": what.symbol_id,
            "session": what.session,
            "hours": _windows(what.hours) if what.hours else None,
            "cancels": what.cancels,
            "who": what.who,
            "reason": what.reason,
            "as_of": as_of,
        }
        known = conn.execute(sql("calendars", "can_override"), parameters).fetchone()
        if known != (True, True):
            raise UsageError(
                f"calendar {what.calendar!r} is not published, see `ops calendar`"
                if known is None or not known[0]
                else f"override {what.cancels} does not exist; see `ops calendar`"
            )
        row = conn.execute(sql("calendars", "add_override"), parameters).fetchone()
        assert row is not None
        return row[0]

    return horizon.run(db, work, lock=_LOCK)


def versions(conn: Connection) -> dict[str, int]:
    """A number per calendar that grows with each publication and each override."""
    return dict(conn.execute(sql("calendars", "versions")).fetchall())


def require(conn: Connection, names: Sequence[str]) -> dict[str, Calendar]:
    """Calendars in force, overrides applied.

    Raises:
        UsageError: one of them was never published.
    """
    found = load(conn, names)
    missing = ", ".join(name for name in sorted(set(names)) if name not in found)
    if missing:
        raise UsageError(
            f"calendar {missing} is not published in this database; start the scheduler, which "
            "publishes it, or use `ops calendar publish`"
        )
    return found


def load(conn: Connection, names: Sequence[str] | None = None) -> dict[str, Calendar]:
    """Calendars in force, overrides applied; None: all. Unknown names are left out."""
    wanted = None if names is None else list(names)
    headers = conn.execute(sql("calendars", "headers"), {"names": wanted}).fetchall()
    sessions: dict[str, dict[date, tuple[Window, ...]]] = {name: {} for name, *_ in headers}
    for name, label, hours in conn.execute(
        sql("calendars", "sessions"), {"names": wanted}, binary=True
    ):
        sessions[name][label] = tuple(Window(part.lower, part.upper) for part in hours)
    for kind, name, label, hours in conn.execute(
        sql("calendars", "overrides"), {"names": list(sessions)}, binary=True
    ):
        windows = [Window(part.lower, part.upper) for part in hours or ()]
        _apply(sessions[name], kind, label, windows)
    return {
        name: Calendar(
            name,
            number,
            known_from,
            known_until,
            [Session(label, hours) for label, hours in sessions[name].items()],
        )
        for name, number, known_from, known_until in headers
    }


def _apply(
    sessions: dict[date, tuple[Window, ...]], kind: str, label: date | None, hours: list[Window]
) -> None:
    if kind == "closed" and label is not None:
        sessions.pop(label, None)
    elif kind == "hours" and label is not None:
        sessions[label] = tuple(merge(hours))
    elif kind == "halt":
        for day, open_ in list(sessions.items()):
            if any(halt.intersect(part) for halt in hours for part in open_):
                left = tuple(subtract(open_, hours))
                if left:
                    sessions[day] = left
                else:
                    del sessions[day]


def _utc(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)


def _multirange(segments: Sequence[Sequence[float]]) -> str:
    return _windows([Window(_utc(start), _utc(end)) for start, end in segments])


def _windows(windows: Sequence[Window]) -> str:
    return "{" + ",".join(f"[{w.start.isoformat()},{w.end.isoformat()})" for w in windows) + "}"
