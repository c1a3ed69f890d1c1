"""PostgreSQL's data folder: made in one step, configured at every start."""

import hashlib
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from ops.embedded.binaries import PostgresBinaries
from ops.embedded.errors import NoSpaceError, StateFolderError, folder_error, start_error
from ops.embedded.files import make_folder, write_file
from ops.embedded.launch import run
from ops.embedded.place import Place
from ops.embedded.ports import LOOPBACK

ROLE = "gapless"
"""The superuser; our processes take lesser roles."""
DATABASE = "gapless"
_NEW = "postgres.new-"
_NEEDED_BYTES = 200 << 20
_INIT_S = 120.0
_RECOVERY_S = 600.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """The data folder and the files beside it, in a place."""

    place: Place

    @property
    def data(self) -> Path:
        """What PostgreSQL calls its data directory."""
        return self.place.folder / "postgres"

    @property
    def config(self) -> Path:
        """Our settings; written anew at every start."""
        return self.place.folder / "postgres.conf"

    @property
    def access(self) -> Path:
        """Who may connect: with the password, from this machine."""
        return self.place.folder / "postgres.hba"

    @property
    def _password_mark(self) -> Path:
        return self.place.folder / "postgres.password.sha256"

    def major(self) -> int | None:
        """Major version of the data; None when there is none yet."""
        try:
            return int((self.data / "PG_VERSION").read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StateFolderError(
                f"{self.data} can't be read as PostgreSQL data ({error}); put a backup in its "
                "place or choose another state folder"
            ) from error

    def create(self, binaries: PostgresBinaries, password: str, *, durable: bool) -> None:
        """Make the data folder if there is none. A creation that was cut short leaves none.

        Raises:
            NoSpaceError, StateFolderError, ServerStartError: saying what is in the way.
        """
        for left in self.place.folder.glob(f"{_NEW}*"):
            _discard(left)
        if self.major() is not None:
            return
        self._check_room()
        account = self.place.account
        # A name of its own: the initdb of a killed start may still be writing under another.
        new = self.place.folder / f"{_NEW}{uuid.uuid4().hex[:8]}"
        password_file = new.with_suffix(".pw")
        try:
            make_folder(new, account=account)
            write_file(password_file, password + "\n", account=account)
            arguments = ["-D", new, "-U", ROLE, f"--pwfile={password_file}", "-A", "scram-sha-256"]
            # The C locale is there everywhere, and its order never changes under an index.
            arguments += ["--no-locale", "-E", "UTF8", "--data-checksums"]
            if not durable:
                arguments.append("--no-sync")
            done = run([binaries.bin_dir / "initdb", *arguments], self.place, timeout_s=_INIT_S)
            if done.returncode != 0:
                raise start_error("PostgreSQL's initdb failed", done.stderr + done.stdout, new)
            self._execute(binaries, new, f"CREATE DATABASE {DATABASE};", sync=durable)
            new.rename(self.data)
            self._mark_password(password)
        except OSError as error:
            raise folder_error(error, self.place.folder, "making the database's folder") from error
        finally:
            password_file.unlink(missing_ok=True)

    def configure(self, settings: str) -> None:
        """Write settings and access rules; the server reads them at its start."""
        account = self.place.account
        own = str(self.data / "postgresql.conf").replace("'", "''")
        rules = f"host all all {LOOPBACK}/32 scram-sha-256\n"
        try:
            write_file(self.config, f"include_if_exists '{own}'\n{settings}", account=account)
            write_file(self.access, rules, account=account)
        except OSError as error:
            raise folder_error(error, self.place.folder, "configuring PostgreSQL") from error

    def set_password(self, binaries: PostgresBinaries, password: str) -> None:
        """Bring the stored password in step with the secret, for who deleted the state folder.

        The server must be stopped.
        """
        if self.has_password(password):
            return
        self._execute(binaries, self.data, f"ALTER ROLE {ROLE} PASSWORD '{password}';", sync=True)
        self._mark_password(password)

    def has_password(self, password: str) -> bool:
        """Whether this is the password that the data was last given."""
        try:
            return self._password_mark.read_text().strip() == _digest(password)
        except FileNotFoundError:
            return False

    def _mark_password(self, password: str) -> None:
        write_file(self._password_mark, _digest(password) + "\n")

    def _execute(self, binaries: PostgresBinaries, data: Path, sql: str, *, sync: bool) -> None:
        """Run one statement without a server."""
        arguments = ["--single", "-D", data, *([] if sync else ["-F"]), "postgres"]
        done = run(
            [binaries.bin_dir / "postgres", *arguments],
            self.place,
            stdin=f"{sql}\n",
            timeout_s=_RECOVERY_S,
        )
        # It goes on after an error, so the exit code alone does not tell.
        if done.returncode != 0 or "ERROR:" in done.stderr or "FATAL:" in done.stderr:
            raise start_error("PostgreSQL refused its first statement", done.stderr, data)

    def _check_room(self) -> None:
        room = shutil.disk_usage(self.place.folder).free
        if room < _NEEDED_BYTES:
            raise NoSpaceError(
                f"{room >> 20} MB are free on the disk of {self.place.folder}, a new database "
                f"needs {_NEEDED_BYTES >> 20} MB; free some space or choose another state folder"
            )


def _discard(path: Path) -> None:
    """Delete what a killed start left; should its initdb still write, the next start deletes."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _digest(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()
