"""The settings in force in one process: its own file's, with the fleet's newest version in them.

Policies, limits, plans, cadences and sizes are the fleet's: whoever notices a changed settings file
checks it and publishes what it says, and every process takes on the newest version within a second.
Secrets and addresses stay on the machine. A file with a mistake changes nothing and says why. The
environment stands above all of it.
"""

import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

from core.errors import SettingsError
from core.settings import FIXED, Settings, adopt, kept_by_environment, load, shared_of
from db import settings_versions
from db.pool import Database
from db.settings_versions import Version, Word

log = logging.getLogger(__name__)

POLL_S = 0.5
"""Real seconds between two looks, for whoever calls ``refresh``."""

_Stamp = tuple[int, int] | None


class LiveSettings:
    """One process's settings: an immutable snapshot that ``refresh`` replaces as a whole.

    ``current`` may be called from any thread, ``refresh`` from one. Before the first ``refresh`` the
    settings are what environment and file say.

    Args:
        path: The settings file; None for ``.env`` in the current folder.
        application: As the process is named in pg_stat_activity.
        read: Reads environment and file.

    Raises:
        SettingsError: they are invalid.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        application: str = "",
        read: Callable[[Path | None], Settings] = load,
    ) -> None:
        self._path = path or Path(".env")
        self._application = application
        self._read = read
        self._stamp = self._seen = self._file_stamp()
        self._own = self._current = read(path)
        self._fixed = {name: getattr(self._own, name) for name in FIXED}
        self._version: int = -1
        self._started = False
        self._asked = False

    @classmethod
    def of(cls, settings: Settings) -> "LiveSettings":
        """Settings that no file stands behind."""
        return cls(Path(os.devnull) / "none", read=lambda _: settings)

    def current(self) -> Settings:
        """The settings in force."""
        return self._current

    @property
    def version(self) -> int:
        """Number of the published version in force; below 1 where none is."""
        return self._version

    def ask(self) -> None:
        """Have the next ``refresh`` publish the file whatever its date; safe in a signal handler."""
        self._asked = True

    def refresh(self, db: Database, turn: Callable[[Settings], None] | None = None) -> bool:
        """Publish a file that changed, take on what was published; True when settings changed.

        Args:
            db: Where versions are published.
            turn: Brings the new settings into force, at once or not at all.

        Raises:
            StorageError: the database is away, for us or for ``turn``; the settings stay, and the
                next call tries again.
        """
        with db.session() as conn:
            newest = settings_versions.newest(conn)
        again = False
        if self._file_is_news(newest):
            newest, again = self._publish(db, newest)
        if newest is None or (newest.number <= self._version and not again):
            return False
        return self._take_on(db, newest, turn)

    def _file_is_news(self, newest: Version | None) -> bool:
        """Whether the file changed and has rested since the last look, or is younger than the version."""
        if not self._started:
            self._started = True
            stamp = self._stamp
            if newest is not None and stamp is not None and stamp[0] / 1e9 > newest.published:
                return True
        asked, self._asked = self._asked, False
        seen, self._seen = self._seen, self._file_stamp()
        if asked:
            return True
        # Written in pieces, a file may be valid and not whole: two looks must see the same.
        return self._seen != self._stamp and self._seen == seen

    def _publish(self, db: Database, newest: Version | None) -> tuple[Version | None, bool]:
        """What the file says, checked, becomes the fleet's; and whether this machine's own changed."""
        if self._seen is None:
            self._stamp = None
            log.warning("settings stay as they were", extra={"error": f"{self._path} is gone"})
            return newest, False
        try:
            own = self._read(self._path)
            content = shared_of(self._path)
            adopt(own, content)
        except SettingsError as error:
            self._stamp = self._seen
            log.error("settings stay as they were", extra={"error": str(error)})  # noqa: TRY400 - its text is all
            return newest, False
        version, news = settings_versions.publish(
            db, content, who=f"{self._name()}: {self._path} changed"
        )
        self._stamp = self._seen
        if news:
            log.info("settings published", extra={"version": version.number})
        return version, True

    def _take_on(
        self, db: Database, version: Version, turn: Callable[[Settings], None] | None
    ) -> bool:
        """Make a version the one in force here, and say so."""
        try:
            if self._stamp is not None:
                # Whoever publishes means the file that lies here too, secrets and addresses included.
                self._take_own(self._read(self._path))
        except SettingsError as error:
            log.warning("this machine's file is left alone", extra={"error": str(error)})
        problem, before = "", self._current
        try:
            fresh = adopt(self._own, version.content)
        except SettingsError as error:
            fresh, problem = before, str(error)
            log.error("settings stay as they were", extra={"error": problem})  # noqa: TRY400 - its text is all
        if fresh != before and turn is not None:
            turn(fresh)
        self._current, self._version = fresh, version.number
        kept = tuple(sorted(kept_by_environment() & version.content.keys()))
        with db.session() as conn:
            word = Word(self._name(), self._application, version.number, problem, kept)
            settings_versions.tell(conn, word)
        if fresh == before:
            return False
        log.info("settings in force", extra={"version": version.number})
        return True

    def _take_own(self, own: Settings) -> None:
        changed = [name for name in sorted(FIXED) if getattr(own, name) != self._fixed[name]]
        if changed:
            log.warning(
                "needs a restart to take effect",
                extra={"settings": ",".join(name.upper() for name in changed)},
            )
        self._own = own.model_copy(update=self._fixed)

    def _name(self) -> str:
        return f"{self._application or 'process'}@{socket.gethostname()}:{os.getpid()}"

    def _file_stamp(self) -> _Stamp:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return (stat.st_mtime_ns, stat.st_size)
