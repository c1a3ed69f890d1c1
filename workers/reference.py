"""Symbols and calendars as this process last read them; both carry versions in the database."""

import threading
from collections.abc import Iterable

from core.errors import UsageError
from core.sessions import Calendar
from db import calendars, universe
from db.pool import Connection, Database
from db.universe import Member

_FRESH_S = 2.0
"""Real seconds for which the versions that were seen are not questioned."""


class Reference:
    """Names to members, calendar names to calendars; thread-safe.

    Dictionaries are replaced, never changed in place, so a reader needs no lock.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lock = threading.Lock()
        self._universe_version = -1
        self._members: dict[str, Member] = {}
        self._calendar_versions: dict[str, int] = {}
        self._calendars: dict[str, Calendar] = {}
        self._seen = float("-inf")

    def resolve(self, names: Iterable[str]) -> dict[str, Member]:
        """Members by name; names that the universe does not know are left out."""
        self._refresh()
        wanted = list(dict.fromkeys(names))
        unknown = [name for name in wanted if name not in self._members]
        if unknown:
            with self._lock, self._db.transaction() as conn:
                self._members = self._members | universe.resolve(conn, unknown)
        members = self._members
        return {name: members[name] for name in wanted if name in members}

    def calendar(self, name: str) -> Calendar:
        """The calendar in force.

        Raises:
            UsageError: nobody published it.
        """
        found = self._calendars.get(name)
        if found is None:
            self._refresh(force=True)
            found = self._calendars.get(name)
        if found is None:
            raise UsageError(
                f"calendar {name!r} is not published; publish it with `ops calendar publish {name}`"
            )
        return found

    def _refresh(self, *, force: bool = False) -> None:
        """Drop what a newer version replaced."""
        clock = self._db.clock
        if not force and clock.monotonic() - self._seen < _FRESH_S:
            return
        with self._lock, self._db.transaction() as conn:
            self._read(conn)
            self._seen = clock.monotonic()

    def _read(self, conn: Connection) -> None:
        version = universe.version(conn)
        if version != self._universe_version:
            self._universe_version, self._members = version, {}
        versions = calendars.versions(conn)
        changed = [name for name in versions if self._calendar_versions.get(name) != versions[name]]
        if changed:
            self._calendars = self._calendars | calendars.load(conn, changed)
            self._calendar_versions = versions
