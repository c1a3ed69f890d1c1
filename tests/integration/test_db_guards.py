"""What was known stays known: every forbidden statement is refused, for the writer and the owner."""

import os
import socket
from contextlib import closing

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from core.clock import SystemClock
from core.errors import StorageError
from db.expire import Retention, expire
from db.pool import Database
from tests.storage import answer, bar, put, rows, span, with_parts

pytestmark = pytest.mark.integration

APPEND_ONLY = [
    "candles_intraday",
    "candles_eod",
    "quotes_l1",
    "fetch_evidence",
    "confirmed_empty",
    "provider_payloads",
    "quarantine",
    "source_rank",
    "symbols",
    "symbol_names",
    "universe_versions",
    "symbol_universe",
    "calendar_versions",
    "calendar_sessions",
    "calendar_overrides",
    "provider_switches",
    "corporate_actions",
    "replay_segments",
    "source_capabilities",
]
MUTABLE = [
    "ingestion_cursor",
    "quote_heads",
    "backfill_jobs",
    "sweep_slots",
    "rlc_inbox",
    "leader_lease",
    "market_clock",
]


@pytest.fixture
def stored(db, symbol) -> int:
    """A bar, evidence and a refused bar."""
    put(db, answer(symbol, [bar(0)], window=span(0, 2), lacking=[span(1, 2)]))
    return symbol


def refused(conn: psycopg.Connection, statement: str) -> str:
    with pytest.raises(psycopg.Error) as refusal, conn.transaction():
        conn.execute(statement.encode())
    assert refusal.value.sqlstate is not None
    return refusal.value.sqlstate


@pytest.mark.parametrize("table", APPEND_ONLY)
def test_the_writer_may_only_add(db, stored, table):
    with db.session() as conn:
        [(column,)] = conn.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
            " AND attidentity = '' ORDER BY attnum LIMIT 1",
            (table,),
        )
        assert refused(conn, f"UPDATE {table} SET {column} = {column}") == "42501"
        assert refused(conn, f"DELETE FROM {table}") == "42501"
        assert refused(conn, f"TRUNCATE {table} CASCADE") == "42501"
        assert refused(conn, f"ALTER TABLE {table} DISABLE TRIGGER ALL") == "42501"
        assert refused(conn, f"DROP TABLE {table}") == "42501"
        privileges = "SELECT has_table_privilege(%s, 'SELECT'), has_table_privilege(%s, 'INSERT')"
        assert conn.execute(privileges, (table, table)).fetchone() == (True, True)


@pytest.mark.parametrize("table", MUTABLE)
def test_the_writer_may_change_work_but_not_delete_it(db, table):
    with db.session() as conn:
        for privilege, expected in (
            ("SELECT", True),
            ("INSERT", True),
            ("UPDATE", True),
            ("DELETE", False),
            ("TRUNCATE", False),
        ):
            found = conn.execute(
                "SELECT has_table_privilege(%s, %s)", (table, privilege)
            ).fetchone()
            assert found == (expected,), privilege


@pytest.mark.parametrize("table", APPEND_ONLY)
def test_even_the_owner_is_refused_by_the_guard(database_url, db, stored, table):
    with psycopg.connect(database_url, autocommit=True) as owner:
        assert refused(owner, f"TRUNCATE {table} CASCADE") == "ZG004"
        guards = owner.execute(
            "SELECT tgname, tgenabled, tgtype FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal"
            " ORDER BY tgname",
            (table,),
        ).fetchall()
        # Row, before, delete and update; statement, before, truncate.
        assert guards == [("append_only", "O", 27), ("append_only_truncate", "O", 34)]


def test_rows_cannot_be_changed_or_deleted_by_the_owner(database_url, stored):
    with psycopg.connect(database_url, autocommit=True) as owner:
        for table in ("candles_intraday", "fetch_evidence", "symbol_names"):
            assert refused(owner, f"DELETE FROM {table}") == "ZG004"
        assert refused(owner, "UPDATE candles_intraday SET close = 1") == "ZG004"
        assert refused(owner, "UPDATE fetch_evidence SET settled = false") == "ZG004"


def test_the_reader_may_only_read(db, database_url, stored):
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("SET ROLE gapless_reader")
        assert conn.execute("SELECT count(*) FROM candles").fetchone() == (1,)
        read = "SELECT count(*) FROM candles_as_of(NULL, '1m', NULL, NULL, NULL)"
        assert conn.execute(read).fetchone() is not None
        assert conn.execute("SELECT count(*) FROM coverage").fetchone() is not None
        for table in (*APPEND_ONLY, *MUTABLE):
            assert refused(conn, f"INSERT INTO {table} DEFAULT VALUES") == "42501"
            assert refused(conn, f"DELETE FROM {table}") == "42501"
        assert refused(conn, "SELECT gapless_expire('payloads', interval '1 day')") == "42501"
        assert refused(conn, "SELECT gapless_end_stuck_writes(10)") == "42501"


def test_bars_without_prices_are_tombstones_only(db, stored):
    insert = (
        "INSERT INTO candles_intraday (symbol_id, interval_s, ts, as_of, asked_at, open, high, low, close,"
        " provider_id, status) VALUES (1, 60, now(), now(), now(), {}, 1, {})"
    )
    with db.session() as conn:
        assert refused(conn, insert.format("1, 1, 1, NULL", 1)) == "23514"
        assert refused(conn, insert.format("1, 1, 1, 1", 3)) == "23514"
        assert refused(conn, insert.format("1, 1, 1, 1", 4)) == "23514"


class TestRetention:
    """Only gapless_expire() deletes, by age, and it remembers."""

    def test_old_replies_quotes_and_bars_leave_by_their_own_retention(self, db, stored):
        keep = Retention(payload_days=1, quote_days=1)
        old, new = "now() - interval '40 days'", "now()"
        with db.transaction() as conn:
            for asked in (old, new):
                conn.execute(
                    "INSERT INTO provider_payloads (provider_id, asked_at, endpoint, digest, as_of, status,"
                    f" symbols, body) VALUES (1, {asked}, 'chart', '', now(), 200, '{{}}', '')"
                )
                conn.execute(
                    f"INSERT INTO quotes_l1 (symbol_id, provider_id, ts, as_of) VALUES (1, 1, {asked}, now())"
                )
        assert expire(db, keep) == {"payloads": 1, "quotes": 1, "work": 0}
        assert rows(db, "SELECT count(*) FROM candles_intraday") == [(1,)], "bars stay for ever"
        assert rows(db, "SELECT DISTINCT kind FROM retention_cuts ORDER BY 1") == [
            ("payloads",),
            ("quotes",),
        ]
        keep = Retention(payload_days=1, quote_days=1, candle_days=30)
        assert expire(db, keep)["candles"] == 1
        assert rows(db, "SELECT count(*) FROM candles_intraday") == [(0,)]

    def test_a_retention_that_is_too_short_is_refused(self, db):
        for kind, keep in (("candles", "29 days"), ("quotes", "1 hour"), ("payloads", "1 minute")):
            with db.session() as conn:
                refused(conn, f"SELECT gapless_expire('{kind}', interval '{keep}')")

    def test_a_setting_alone_does_not_let_the_writer_delete(self, db, stored):
        with db.session() as conn:
            conn.execute("SET gapless.expiring = 'on'")
            assert refused(conn, "DELETE FROM candles_intraday") == "42501"


def test_a_login_without_the_roles_still_works_and_is_told(database_url, caplog):
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("DROP ROLE IF EXISTS gapless_test_stranger")
        owner.execute("CREATE ROLE gapless_test_stranger LOGIN PASSWORD 'stranger'")
        owner.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO gapless_test_stranger")
    url = with_parts(database_url, user="gapless_test_stranger", password="stranger")
    try:
        with closing(Database(url, SystemClock(), max_size=1)) as db:
            assert rows(db, "SELECT current_user") == [("gapless_test_stranger",)]
        assert "running without role" in caplog.text
    finally:
        with psycopg.connect(database_url, autocommit=True) as owner:
            owner.execute("DROP OWNED BY gapless_test_stranger")
            owner.execute("DROP ROLE gapless_test_stranger")


def test_processes_run_as_the_writer(db):
    assert rows(db, "SELECT current_user") == [("gapless_writer",)]


def test_a_wrong_password_and_an_absent_database_are_told_in_one_message(database_url):
    password = str(conninfo_to_dict(database_url)["password"])
    for change, words in (
        ({"password": "wrong"}, "refused the login"),
        ({"dbname": "no_such_database"}, "mend the name in DATABASE_URL"),
        ({"port": "1"}, "can't be reached"),
    ):
        url = with_parts(database_url, **change)
        with pytest.raises(StorageError, match=words) as refusal:
            Database(url, SystemClock())
        assert password not in str(refusal.value)


def test_an_unmigrated_database_says_so(empty_database_url):
    with pytest.raises(StorageError, match="ops migrate"):
        Database(empty_database_url, SystemClock())


def test_work_is_retried_after_a_lost_connection(db, database_url, symbol):
    lost = []

    def work(conn: psycopg.Connection) -> int:
        if not lost:
            lost.append(conn.info.backend_pid)
            with psycopg.connect(database_url, autocommit=True) as owner:
                owner.execute("SELECT pg_terminate_backend(%s)", (lost[0],))
        [(one,)] = conn.execute("SELECT 1").fetchall()
        return one

    assert db.run(work) == 1
    assert lost


def test_a_server_that_vanishes_without_a_word_is_noticed_in_seconds(db):
    """No FIN, no RST, such as a cable that is cut: only the kernel's own limits can tell."""
    with db.session() as conn, socket.socket(fileno=os.dup(conn.fileno())) as wire:
        unsent_ms = wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        alive = [
            wire.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        ]
    assert unsent_ms == 10_000
    idle_s, every_s, times = alive
    assert idle_s + every_s * times <= 12
