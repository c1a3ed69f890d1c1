"""Connections: one pool a process, short READ COMMITTED transactions, retries of the aborted."""

import logging
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
import psycopg_pool
from psycopg import sql as pgsql

from core.clock import Clock
from core.errors import ClockMismatchError, StorageError
from core.log import mask_url
from db.errors import translate, worth_retrying

log = logging.getLogger(__name__)

Connection = psycopg.Connection[tuple[Any, ...]]
T = TypeVar("T")

CONNECT_TIMEOUT_S = 5
_DEAD_PEER = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""A server that vanished without a word is noticed within some ten seconds, not within hours."""
_REST_S = 60.0
"""Real seconds after which a connection that a busy minute needed and nobody used since is closed."""
_POOL_TIMEOUT_S = 30.0
_SETTINGS = (
    "SELECT set_config('timezone', 'UTC', false),"
    " set_config('default_transaction_isolation', 'read committed', false),"
    # A process that stands still in a transaction must not block the others for ever.
    " set_config('idle_in_transaction_session_timeout', '10s', false),"
    # Generic plans know neither the chunks nor how many keys an array holds.
    " set_config('plan_cache_mode', 'force_custom_plan', false),"
    " CASE WHEN current_setting('timescaledb.disable_load', true) IS NOT NULL"
    " THEN set_config('timescaledb.enable_skipscan', 'off', false) END"
)


@contextmanager
def connect(url: str, *, application: str = "gapless") -> Generator[Connection]:
    """One autocommit connection outside of any pool, errors in our words.

    Raises:
        StorageError: unreachable, refused, or no such database.
    """
    try:
        with psycopg.connect(
            url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, application_name=application
        ) as conn:
            yield conn
    except psycopg.Error as error:
        raise translate(error) from error


class Database:
    """What every module of this package works on: a pool, and the market clock of its process.

    Args:
        url: Connection string.
        clock: The process's market clock; must be the one that the database is marked with.
        max_size: Connections at most.
        role: Taken on by SET ROLE on each connection when it exists and may be taken; None keeps
            the login's.
        application: Shown in pg_stat_activity.

    Raises:
        StorageError: unreachable, refused, or not migrated.
        ClockMismatchError: the database belongs to another clock.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        max_size: int = 8,
        role: str | None = "gapless_writer",
        application: str = "gapless",
    ) -> None:
        self.clock = clock
        self.url = url
        self._role = None
        # A plain connection first: a pool would say no more than "timeout".
        with connect(url, application=application) as conn:
            _check_mark(conn, clock)
            if role is not None and self._may_take(conn, role):
                self._role = role
        self._pool = psycopg_pool.ConnectionPool(
            url,
            min_size=1,
            max_size=max_size,
            timeout=_POOL_TIMEOUT_S,
            max_idle=_REST_S,
            kwargs={
                "autocommit": True,
                "application_name": application,
                "connect_timeout": CONNECT_TIMEOUT_S,
                **_DEAD_PEER,
            },
            configure=self._configure,
            check=psycopg_pool.ConnectionPool.check_connection,
            open=True,
        )

    def _may_take(self, conn: Connection, role: str) -> bool:
        try:
            conn.execute(pgsql.SQL("SET ROLE {}").format(pgsql.Identifier(role)))
        except (
            psycopg.errors.InsufficientPrivilege,
            psycopg.errors.InvalidParameterValue,
        ) as error:
            log.warning(
                "running without role",
                extra={
                    "role": role,
                    "reason": error.diag.message_primary,
                    "mend": "run `ops migrate` as a user that may create roles",
                },
            )
            return False
        return True

    def _configure(self, conn: psycopg.Connection[Any]) -> None:
        conn.execute(_SETTINGS)
        if self._role is not None:
            conn.execute(pgsql.SQL("SET ROLE {}").format(pgsql.Identifier(self._role)))

    @contextmanager
    def transaction(self) -> Generator[Connection]:
        """One READ COMMITTED transaction: commits on exit, rolls back on any error.

        Raises:
            StorageError: whatever the database refused; ours otherwise (see ``db.errors``).
        """
        try:
            with self._pool.connection() as conn, conn.transaction():
                yield conn
        except psycopg.Error as error:
            raise translate(error) from error

    @contextmanager
    def session(self) -> Generator[Connection]:
        """A connection without a transaction: each statement commits by itself."""
        try:
            with self._pool.connection() as conn:
                yield conn
        except psycopg.Error as error:
            raise translate(error) from error

    def run(self, work: Callable[[Connection], T], *, attempts: int = 5) -> T:
        """Run ``work`` in a transaction, again after a deadlock or a lost connection.

        ``work`` must be idempotent: a connection lost at commit leaves unknown whether it was done.

        Raises:
            StorageError: it failed for another reason, or ``attempts`` times.
        """
        attempt = 1
        while True:
            try:
                with self.transaction() as conn:
                    return work(conn)
            except StorageError as error:
                if attempt >= attempts or not worth_retrying(error):
                    raise
                log.info("transaction runs again", extra={"attempt": attempt, "reason": str(error)})
            self.clock.sleep(random.uniform(0.01, 0.05) * 2**attempt)  # noqa: S311 - spreads retries only
            attempt += 1

    def close(self) -> None:
        """Close every connection; a second call does nothing."""
        self._pool.close()


def _check_mark(conn: Connection, clock: Clock) -> None:
    row = conn.execute(
        "SELECT c.mode, c.replay_id, (SELECT extract(epoch FROM min(s.real_start))::float8"
        " FROM replay_segments s) FROM market_clock c"
    ).fetchone()
    if row is None:
        raise StorageError("market_clock is empty; the schema is damaged, restore it from a backup")
    mode, replay_id, real_start = row
    where = mask_url(conn.info.dsn) if "://" in conn.info.dsn else f"database {conn.info.dbname!r}"
    segments = clock.segments()
    if mode == "system" and segments:
        raise ClockMismatchError(
            f"{where} keeps the system's time, this process a replay's; "
            "give a replay a database of its own"
        )
    if mode == "replay" and not segments:
        raise ClockMismatchError(
            f"{where} belongs to replay {replay_id!r}, this process keeps the system's time; "
            "take the clock from the database (db.clock.connect_clock) or another DATABASE_URL"
        )
    if (
        mode == "replay"
        and real_start is not None
        and abs(real_start - segments[0].real_start) > 0.001
    ):
        raise ClockMismatchError(
            f"{where} belongs to replay {replay_id!r}, this process runs another one; "
            "give each replay a database of its own"
        )
