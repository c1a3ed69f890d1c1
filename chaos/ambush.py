"""SIGKILL in the midst of a transaction: its write is held up until the process is dead.

Instants drawn at random rarely fall into a transaction of a few milliseconds. So the tables at which a
process is killed get a trigger that takes a lock of ours, by the name of who writes; holding that lock
holds up the write of one process and of nobody else, before its first row.
"""

import signal
from dataclasses import dataclass, field
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
_HOLD = """
SELECT a FROM unnest(%(names)s::text[]) AS a
WHERE pg_try_advisory_lock(%(class)s, hashtext(%(table)s || a))
"""
_WAITING = """
SELECT DISTINCT a FROM unnest(%(names)s::text[]) AS a
JOIN pg_locks l ON l.objid = hashtext(%(table)s || a)::oid
WHERE l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND l.locktype = 'advisory' AND l.classid = %(class)s AND NOT l.granted
"""


def prepare(conn: "psycopg.Connection[Any]") -> None:
    """Let writes to these tables be held up."""
    conn.execute(sql.SQL(_FUNCTION).format(key=sql.Literal(_CLASS)))
    for table in TABLES:
        conn.execute(sql.SQL(_TRIGGER).format(table=sql.Identifier(table), name=sql.Literal(table)))


@dataclass(slots=True)
class Ambush:
    """Waits for a process, or the first of a kind, at one table."""

    supervisor: Supervisor
    url: str
    """Of the database, past the proxy."""
    target: str
    """A process, or what the names of several begin with."""
    table: str
    _conn: "psycopg.Connection[Any] | None" = None
    _held: set[str] = field(default_factory=set[str])

    def look(self) -> list[str]:
        """Whom it killed now; to be asked every few milliseconds until it is somebody."""
        wanted = {n for process, n in _APPLICATIONS.items() if process.startswith(self.target)}
        try:
            if self._conn is None:
                self._conn = psycopg.connect(self.url, autocommit=True, connect_timeout=1)
            if self._held < wanted:
                self._held |= set(self._ask(self._conn, _HOLD, wanted - self._held))
            waiting = self._ask(self._conn, _WAITING, self._held)
        except psycopg.Error:
            # The database is away, and with it the locks; they are taken again when it is back.
            self.release()
            return []
        # Of two with one name it is not known which one waits.
        named = [process for process, name in _APPLICATIONS.items() if name in waiting[:1]]
        killed = [name for name in named if self.supervisor.kill(name, signal.SIGKILL) is not None]
        if killed:
            self.release()
        return killed

    def _ask(
        self, conn: "psycopg.Connection[Any]", question: LiteralString, names: set[str]
    ) -> list[str]:
        told = {"class": _CLASS, "table": self.table, "names": sorted(names)}
        return [str(row[0]) for row in conn.execute(question, told).fetchall()]

    def release(self) -> None:
        """Let writes go on; may be called twice."""
        self._held.clear()
        if self._conn is not None:
            self._conn.close()
            self._conn = None
