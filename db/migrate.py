"""Brings a database to this version: ``python -m db.migrate``.

Plain SQL files in ``db/migrations``, forward only, each in one transaction together with its row in
``schema_migrations``. Comment lines at a file's head steer the run:

``-- locks: ...``
    What it locks and how long, for the operator.
``-- migrate: requires=<capability>``
    ``timescaledb``, ``timescaledb-tsl`` or ``roles``. A file whose capability is missing is
    recorded as skipped and tried again at every run, so that installing TimescaleDB later upgrades
    the same database.
``-- migrate: no-transaction``
    One statement that refuses a transaction block; it must bear being run twice.
"""

import hashlib
import logging
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from core import settings
from core.clock import SystemClock
from core.errors import ClockMismatchError, GaplessError, MigrationError
from core.log import configure
from db.errors import translate
from db.pool import Connection, connect
from db.sql import sql

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parent / "migrations"
_NAME = re.compile(r"^\d{4}_[a-z0-9_]+\.sql$")
_HEADER = re.compile(r"^-- migrate: (.+)$", re.MULTILINE)
_LOCK_TIMEOUT = "30s"
_MENDS = {
    "timescaledb": "add timescaledb to shared_preload_libraries and restart PostgreSQL; "
    "plain tables serve until then",
    "timescaledb-tsl": "set timescaledb.license to timescale; chunks stay uncompressed until then",
    "roles": "create the roles gapless_writer and gapless_reader and grant them to this user, or "
    "migrate as a user that may; processes run with the login's own rights until then",
}


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    name: str
    text: str
    requires: str | None
    transactional: bool

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def read_migrations(folder: Path = FOLDER) -> list[Migration]:
    """The files in the order in which they run.

    Raises:
        MigrationError: a file's name or header says nothing that we know.
    """
    found: list[Migration] = []
    for path in sorted(folder.glob("*.sql")):
        if path.name == "schema.sql":
            continue
        if not _NAME.match(path.name):
            raise MigrationError(
                f"{path.name} is no migration's name; expected four digits, _ and lower-case words"
            )
        text = path.read_text(encoding="utf-8")
        requires, transactional = None, True
        for word in (word for line in _HEADER.findall(text) for word in line.split()):
            key, _, value = word.partition("=")
            if key == "requires" and value in _MENDS:
                requires = value
            elif word == "no-transaction":
                transactional = False
            else:
                raise MigrationError(
                    f"{path.name} has the header {word!r}; expected requires=... or no-transaction"
                )
        found.append(Migration(path.name, text, requires, transactional))
    return found


def migrate(url: str, *, clock_mode: str = "system", folder: Path = FOLDER) -> list[str]:
    """Apply what is missing, under one advisory lock; a second run changes nothing.

    Args:
        url: Login that owns the schema; application processes run as gapless_writer instead.
        clock_mode: ``system``; ``replay:<id>`` for a database that this replay owns; ``replay`` for
            one that ``set_replay`` will mark.
        folder: Where the files are.

    Returns:
        Names of the files applied now.

    Raises:
        MigrationError: an applied file has changed or is gone, or a statement failed; of the
            failed file nothing stays.
        ClockMismatchError: the database keeps another clock.
    """
    migrations = read_migrations(folder)
    with connect(url, application="gapless migrate") as conn:
        conn.add_notice_handler(
            lambda diag: log.debug("server says", extra={"notice": diag.message_primary})
        )
        conn.execute(sql("migrate", "lock"))
        conn.execute(sql("migrate", "create_ledger"))
        conn.execute(sql("migrate", "lock_timeout"), {"timeout": _LOCK_TIMEOUT})
        ledger: dict[str, tuple[str, str]] = {
            name: (checksum, state)
            for name, checksum, state in conn.execute(sql("migrate", "ledger"))
        }
        _refuse_changes(migrations, ledger)
        applied = [
            migration.name
            for migration in migrations
            if ledger.get(migration.name, ("", ""))[1] != "applied" and _apply(conn, migration)
        ]
        if applied:
            conn.execute(sql("migrate", "grant_roles"))
        _mark_clock(conn, clock_mode)
    return applied


def clock_mode(url: str) -> str:
    """The mark of a database: ``system`` (also without a schema) or ``replay:<id>``."""
    with connect(url) as conn:
        if conn.execute(sql("migrate", "has_clock")).fetchone() != (True,):
            return "system"
        return ":".join(filter(None, conn.execute(sql("clock", "mark")).fetchone() or ("system",)))


def _refuse_changes(migrations: list[Migration], ledger: dict[str, tuple[str, str]]) -> None:
    ours = {migration.name: migration.checksum for migration in migrations}
    for name, (checksum, state) in sorted(ledger.items()):
        if state != "applied":
            continue
        if name not in ours:
            raise MigrationError(
                f"the database has {name} applied, which this version does not have; "
                "it was migrated by a newer gapless: run that, or restore a backup from before"
            )
        if ours[name] != checksum:
            raise MigrationError(
                f"{name} has changed since it was applied (sha256 {checksum[:12]} then, "
                f"{ours[name][:12]} now); restore the file from its release, put the change into "
                "a new, higher-numbered file"
            )


def _apply(conn: Connection, migration: Migration) -> bool:
    if migration.requires is not None and not _capable(conn, migration.requires):
        log.log(
            # Plain PostgreSQL is a normal choice, processes without their roles are not.
            logging.WARNING if migration.requires == "roles" else logging.INFO,
            "migration skipped",
            extra={
                "migration": migration.name,
                "needs": migration.requires,
                "mend": _MENDS[migration.requires],
            },
        )
        _record(conn, migration, "skipped", 0.0)
        return False
    clock = SystemClock()
    started = clock.monotonic()
    try:
        if migration.transactional:
            with conn.transaction():
                _execute(conn, migration)
                _record(conn, migration, "applied", clock.monotonic() - started)
        else:
            _execute(conn, migration)
            _record(conn, migration, "applied", clock.monotonic() - started)
    except psycopg.Error as error:
        raise MigrationError(
            f"{migration.name} failed, nothing of it stays: {translate(error)}"
        ) from error
    log.info("migration applied", extra={"migration": migration.name})
    return True


def _execute(conn: Connection, migration: Migration) -> None:
    # Bytes without parameters travel as they are: many statements, and % means itself.
    conn.execute(migration.text.encode())


def _record(conn: Connection, migration: Migration, state: str, seconds: float) -> None:
    values: dict[str, Any] = {
        "name": migration.name,
        "checksum": migration.checksum,
        "state": state,
        "seconds": seconds,
    }
    conn.execute(sql("migrate", "record"), values)


def _capable(conn: Connection, capability: str) -> bool:
    row = conn.execute(sql("migrate", "capabilities")).fetchone()
    assert row is not None
    return bool(row[("timescaledb", "timescaledb-tsl", "roles").index(capability)])


def _mark_clock(conn: Connection, clock_mode: str) -> None:
    kind, _, replay_id = clock_mode.partition(":")
    if kind == "replay" and replay_id:
        conn.execute(sql("clock", "mark_replay"), {"replay_id": replay_id})
    row = conn.execute(sql("clock", "mark")).fetchone() or ()
    if clock_mode == "replay":
        # Whoever starts the replay marks the database, which still keeps nobody's time.
        return
    if row != (kind, replay_id or None):
        raise ClockMismatchError(
            f"the database keeps the clock {':'.join(filter(None, row))}, not {clock_mode}; "
            "use a database of its own for each"
        )


def main() -> int:
    """Migrate DATABASE_URL and print what was done."""
    try:
        loaded = settings.load()
        configure(loaded.log_level)
        applied = migrate(loaded.database_url, clock_mode=clock_mode(loaded.database_url))
    except GaplessError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write("".join(f"applied {name}\n" for name in applied) or "nothing to apply\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
