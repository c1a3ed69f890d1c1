"""SIGKILL in the midst of a transaction: its write is held up until the process is dead.

Instants drawn at random rarely fall into a transaction of a few milliseconds. So the tables at which a
process is killed get a trigger that takes a lock of ours, by the name of who writes; holding that lock
holds up the write of one process and of nobody else, before its first row.
"""

import signal
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql

from ops.supervise.supervisor import Supervisor

TABLES: Final = ("candles_intraday", "rlc_inbox")
"""Where a write may be held up."""
_APPLICATIONS: Final = {
    "collect-t0": "gapless-collect-T0",
    "collect-t1": "gapless-collect-T1",
    "collect-t2": "gapless-collect-T2",
    "backfill-t0": "gapless-backfill-T0",
    "backfill-t1": "gapless-backfill-T1",
    "backfill-t2": "gapless-backfill-T2",
    "intake": "gapless-intake",
    "intake-2": "gapless-intake",
}
"""What a process calls itself in the database."""
_CLASS: Final = 20_260_303
"""Of our advisory locks; theirs has another."""
_FUNCTION: LiteralString = """
CREATE FUNCTION chaos_hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(
        {key}, hashtext(TG_ARGV[0] || current_setting('application_name')));
    RETURN NULL;
END $$
"""
_TRIGGER: LiteralString = """
CREATE TRIGGER chaos_hold BEFORE INSERT ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION chaos_hold({name})
"""
_HOLD = "SELECT pg_try_advisory_lock(%(class)s, hashtext(%(table)s || %(application)s))"
_WAITING = """
SELECT count(*) FROM pg_locks
WHERE database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND locktype = 'advisory' AND classid = %(class)s AND NOT granted
    AND objid = hashtext(%(table)s || %(application)s)::oid
"""


def prepare(conn: "psycopg.Connection[Any]") -> None:
    """Let writes to these tables be held up."""
    conn.execute(sql.SQL(_FUNCTION).format(key=sql.Literal(_CLASS)))
    for table in TABLES:
        conn.execute(sql.SQL(_TRIGGER).format(table=sql.Identifier(table), name=sql.Literal(table)))


@dataclass(slots=True)
class Ambush:
    """Waits for one process, and its spare, at one table."""

    supervisor: Supervisor
    url: str
    """Of the database, past the proxy."""
    target: str
    table: str
    _conn: "psycopg.Connection[Any] | None" = None
    _holding: bool = False

    def look(self) -> list[str]:
        """Whom it killed now; to be asked every few milliseconds until it is somebody."""
        application = _APPLICATIONS[self.target]
        question = {"class": _CLASS, "table": self.table, "application": application}
        try:
            if self._conn is None:
                self._conn = psycopg.connect(self.url, autocommit=True, connect_timeout=1)
            if not self._holding:
                row = self._conn.execute(_HOLD, question).fetchone()
                self._holding = bool(row and row[0])
            waiting = self._conn.execute(_WAITING, question).fetchone()
        except psycopg.Error:
            # The database is away, and with it the lock; it is taken again when it is back.
            self.release()
            return []
        if not (waiting and waiting[0]):
            return []
        # Of two with one name it is not known which one waits.
        named = [name for name, called in _APPLICATIONS.items() if called == application]
        killed = [name for name in named if self.supervisor.kill(name, signal.SIGKILL) is not None]
        self.release()
        return killed

    def release(self) -> None:
        """Let writes go on; may be called twice."""
        self._holding = False
        if self._conn is not None:
            self._conn.close()
            self._conn = None
