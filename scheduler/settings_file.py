"""The settings in force, read again when the file changes or a signal asks for it."""

import logging
from collections.abc import Callable
from pathlib import Path

from core.errors import SettingsError
from core.settings import Settings, load

log = logging.getLogger(__name__)


class SettingsFile:
    """The newest settings that were valid; a bad file changes nothing and says why."""

    def __init__(
        self, path: Path | None = None, read: Callable[[Path | None], Settings] = load
    ) -> None:
        self._path = path
        self._read = read
        self._stamp = self._file_stamp()
        self._current = read(path)
        self._asked = False

    def current(self) -> Settings:
        """The settings in force."""
        return self._current

    def ask(self) -> None:
        """Have the next ``refresh`` read the file whatever its date; safe in a signal handler."""
        self._asked = True

    def refresh(self) -> bool:
        """Read again if the file changed; True when the settings are other ones now."""
        stamp = self._file_stamp()
        if stamp == self._stamp and not self._asked:
            return False
        self._stamp, self._asked = stamp, False
        try:
            fresh = self._read(self._path)
        except SettingsError as error:
            log.error("settings stay as they were", extra={"error": str(error)})  # noqa: TRY400 - its text is all
            return False
        changed = fresh != self._current
        self._current = fresh
        if changed:
            log.info("settings read again")
        return changed

    def _file_stamp(self) -> tuple[int, int] | None:
        try:
            stat = (self._path or Path(".env")).stat()
        except FileNotFoundError:
            return None
        return (stat.st_mtime_ns, stat.st_size)
