"""The state folder: all that one installation keeps on this machine, ``.gapless`` by default.

``lock`` (who runs it), ``run/`` (who its processes are), ``logs/``, ``secrets/``; and the servers'
data, here or in the place that the pointer names (see ``place``).
"""

import os
import pwd
import secrets
import shutil
from pathlib import Path

from core.clock import Clock, SystemClock
from ops.embedded.errors import StateFolderError, folder_error
from ops.embedded.files import make_folder, write_file
from ops.embedded.lock import FolderLock, StartLock
from ops.embedded.place import SERVERS_ROOT, Place, find_place, make_place, remove_place

_MARK = ".gitignore"
_MARK_TEXT = "# State folder of gapless: processes, logs, secrets, data.\n*\n"
_START_S = 660.0


class Home:
    """A state folder, created on first use with mode 0700. Opening it twice changes nothing.

    Raises:
        StateFolderError: when it can't be created, or belongs to another user.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        servers_root: Path = SERVERS_ROOT,
        clock: Clock | None = None,
    ) -> None:
        self.path = Path(path).resolve()
        self._servers_root = servers_root
        self._clock = clock or SystemClock()
        try:
            make_folder(self.path)
            owner = self.path.stat().st_uid
            if owner != os.geteuid():
                raise StateFolderError(
                    f"state folder {self.path} belongs to user {_user_name(owner)}, we are "
                    f"{_user_name(os.geteuid())}; run as its owner or choose another state folder"
                )
            for name in ("run", "logs", "secrets"):
                make_folder(self.path / name)
            if not (self.path / _MARK).exists():
                write_file(self.path / _MARK, _MARK_TEXT)
        except OSError as error:
            raise folder_error(error, self.path, "opening the state folder") from error

    def __fspath__(self) -> str:
        return str(self.path)

    def within(self, name: str) -> "Home":
        """A state folder of its own inside this one: another installation with other servers."""
        return Home(self.path / name, servers_root=self._servers_root, clock=self._clock)

    def lock(self, description: str) -> FolderLock:
        """The right to run this folder's processes, for a ``with`` block.

        Entering raises ``AlreadyRunningError``, naming the holder, when somebody else has it.
        """
        return FolderLock(self.path / "lock", description, self._clock)

    def starting(self, server: str) -> StartLock:
        """Held while ``server`` is looked for and started: two starts then end with one server."""
        return StartLock(self.path / "run" / f"{server}.lock", _START_S, self._clock)

    def place(self) -> Place:
        """Where the servers' data lies, created when missing; as root this may create their user.

        Raises:
            StateFolderError: when it can't be created or reached.
            ServiceUserError: as root, when no unprivileged user can be had.
        """
        # Locked, so that nobody uses a folder that another start is still preparing.
        with self.starting("place"):
            return make_place(self.path, self._servers_root)

    def known_place(self) -> Place | None:
        """Where the servers' data lies, None when there is none yet. Creates nothing."""
        return find_place(self.path, self._servers_root)

    def secret(self, name: str) -> str:
        """A random word of 32 URL-safe characters, made on first use and kept with mode 0600."""
        path = self.path / "secrets" / name
        try:
            if not path.exists():
                write_file(path, secrets.token_urlsafe(24) + "\n")
            return path.read_text().strip()
        except OSError as error:
            raise folder_error(error, self.path, f"keeping the secret {name}") from error

    def log_path(self, name: str) -> Path:
        """Where the output of a process or server goes."""
        return self.path / "logs" / f"{name}.log"

    def remove(self) -> None:
        """Delete the folder and the servers' data, for good; the servers must be stopped.

        Raises:
            StateFolderError: when the folder does not bear our mark, or can't be deleted.
        """
        if not (self.path / _MARK).is_file() or (self.path / _MARK).read_text() != _MARK_TEXT:
            raise StateFolderError(
                f"{self.path} does not bear our mark in {_MARK}; delete it by hand"
            )
        try:
            remove_place(self.path, self._servers_root)
            shutil.rmtree(self.path)
        except OSError as error:
            raise folder_error(error, self.path, "deleting the state folder") from error


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
