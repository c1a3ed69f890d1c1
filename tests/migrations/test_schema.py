"""``schema.sql`` is what the migrations make."""

import difflib

import psycopg
import pytest

from db.describe import describe
from db.migrate import FOLDER

pytestmark = pytest.mark.integration


def test_schema_sql_equals_the_migrations_result(database_url):
    with psycopg.connect(database_url) as conn:
        made = describe(conn)
    kept = (FOLDER / "schema.sql").read_text(encoding="utf-8")
    difference = "\n".join(
        difflib.unified_diff(kept.splitlines(), made.splitlines(), lineterm="", n=1)
    )
    assert not difference, f"run `python -m db.describe > db/migrations/schema.sql`:\n{difference}"


def test_the_description_tells_schemas_apart(database_url):
    with psycopg.connect(database_url) as conn:
        before = describe(conn)
        conn.execute("ALTER TABLE quarantine ADD COLUMN extra text")
        with_column = describe(conn)
        conn.execute("ALTER TABLE quarantine ADD CHECK (reason <> '')")
        with_check = describe(conn)
        conn.execute("DROP TRIGGER append_only ON quarantine")
        without_trigger = describe(conn)
        conn.rollback()
    assert len({before, with_column, with_check, without_trigger}) == 4
