"""Migrations run once, together or not at all, and never over a file that has changed."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from core.clock import SystemClock
from core.errors import ClockMismatchError, MigrationError
from db.migrate import FOLDER, migrate, read_migrations
from db.pool import Database
from tests.storage import with_parts

pytestmark = pytest.mark.integration

GATED = {
    "0008_hypertables.sql",
    "0009_columnstore.sql",
    "0130_daily_hypertables.sql",
    "0131_daily_columnstore.sql",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the migrations that a test may change."""
    return shutil.copytree(FOLDER, tmp_path / "migrations")


def ledger(url: str) -> dict[str, str]:
    with psycopg.connect(url) as conn:
        return dict(conn.execute("SELECT name, state FROM schema_migrations").fetchall())


def test_every_file_is_applied_or_recorded_as_skipped_and_a_second_run_changes_nothing(
    empty_database_url,
):
    files = [m.name for m in read_migrations()]
    applied = migrate(empty_database_url)
    assert applied == [name for name in files if name not in GATED]
    assert ledger(empty_database_url) == {n: "skipped" if n in GATED else "applied" for n in files}
    assert migrate(empty_database_url) == []


def test_runners_that_start_together_apply_each_file_once(empty_database_url):
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda _: migrate(empty_database_url), range(4)))
    files = [m.name for m in read_migrations() if m.name not in GATED]
    assert sorted(name for run in runs for name in run) == sorted(files)


def test_an_applied_file_that_has_changed_is_refused_with_the_mend(empty_database_url, folder):
    migrate(empty_database_url, folder=folder)
    changed = folder / "0003_candles.sql"
    changed.write_text(changed.read_text() + "\nSELECT 1;\n")
    with pytest.raises(MigrationError, match=r"0003_candles.sql has changed.*higher-numbered file"):
        migrate(empty_database_url, folder=folder)


def test_a_database_from_a_newer_version_is_refused(empty_database_url, folder):
    (folder / "9000_later.sql").write_text("-- locks: none.\nCREATE TABLE later (x int);\n")
    migrate(empty_database_url, folder=folder)
    (folder / "9000_later.sql").unlink()
    with pytest.raises(MigrationError, match=r"9000_later.sql.*newer gapless"):
        migrate(empty_database_url, folder=folder)


def test_of_a_file_that_fails_nothing_stays_and_what_came_before_does(empty_database_url, folder):
    (folder / "9000_broken.sql").write_text("CREATE TABLE half (x int); SELECT no_such_function();")
    with pytest.raises(MigrationError, match=r"9000_broken.sql failed.*no_such_function"):
        migrate(empty_database_url, folder=folder)
    with psycopg.connect(empty_database_url) as conn:
        assert conn.execute("SELECT to_regclass('half')").fetchone() == (None,)
    assert "9000_broken.sql" not in ledger(empty_database_url)
    (folder / "9000_broken.sql").write_text("CREATE TABLE half (x int);")
    assert migrate(empty_database_url, folder=folder) == ["9000_broken.sql"]


def test_a_file_may_refuse_a_transaction(empty_database_url, folder):
    (folder / "9000_index.sql").write_text(
        "-- migrate: no-transaction\n"
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS later ON quarantine (as_of);\n"
    )
    assert "9000_index.sql" in migrate(empty_database_url, folder=folder)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("12_short.sql", "", "no migration's name"),
        ("9000_what.sql", "-- migrate: requires=oracle\n", "requires=oracle"),
        ("9000_what.sql", "-- migrate: quickly\n", "quickly"),
    ],
)
def test_names_and_headers_that_say_nothing_are_refused(folder, name, text, words):
    (folder / name).write_text(text)
    with pytest.raises(MigrationError, match=words):
        read_migrations(folder)


def test_every_file_says_what_it_locks():
    for migration in read_migrations():
        assert "\n-- locks: " in migration.text, migration.name


def test_without_the_right_to_the_roles_the_rest_works_and_they_follow_later(
    empty_database_url, template_database, caplog
):
    login = "gapless_test_owner"
    name = conninfo_to_dict(empty_database_url)["dbname"]
    url = with_parts(empty_database_url, user=login, password="owner")
    with psycopg.connect(empty_database_url, autocommit=True) as admin:
        admin.execute(f"DROP ROLE IF EXISTS {login}")
        admin.execute(f"CREATE ROLE {login} LOGIN PASSWORD 'owner'")
        admin.execute(f"ALTER DATABASE {name} OWNER TO {login}".encode())
        try:
            migrate(url)
            assert ledger(url)["0007_roles.sql"] == "skipped"
            mends = [vars(record).get("mend", "") for record in caplog.records]
            assert any("create the roles gapless_writer" in mend for mend in mends)
            with closing(Database(url, SystemClock(), max_size=1)) as db, db.session() as conn:
                assert conn.execute("SELECT current_user").fetchone() == (login,)
            admin.execute(f"GRANT gapless_writer, gapless_reader TO {login}")
            assert migrate(url) == ["0007_roles.sql"]
            with closing(Database(url, SystemClock(), max_size=1)) as db, db.session() as conn:
                assert conn.execute("SELECT current_user").fetchone() == ("gapless_writer",)
                assert conn.execute("SELECT count(*) FROM candles").fetchone() == (0,)
        finally:
            admin.execute(f"DROP OWNED BY {login}")
            admin.execute(f"ALTER DATABASE {name} OWNER TO CURRENT_USER".encode())
            admin.execute(f"DROP ROLE {login}")


def test_a_database_keeps_one_clock(empty_database_url):
    migrate(empty_database_url, clock_mode="replay:monday")
    assert migrate(empty_database_url, clock_mode="replay:monday") == []
    for other in ("system", "replay:tuesday"):
        with pytest.raises(ClockMismatchError, match="keeps the clock replay:monday"):
            migrate(empty_database_url, clock_mode=other)
