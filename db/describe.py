"""Describes a database's schema from its catalogues: ``python -m db.describe > db/migrations/schema.sql``.

The text is for people and for comparing two databases, not for running: tables with columns, keys
and checks, indexes, views, functions, triggers, types, comments, in a fixed order, whatever the
server's version. Objects of extensions and everything outside of the schema ``public`` are left out.
"""

import sys

from core import settings
from core.errors import GaplessError
from db.pool import Connection, connect
from db.sql import sql, statements

HEADER = """\
-- The schema that db/migrations make on plain PostgreSQL, for reading: a description, not a script.
-- Made by `python -m db.describe`; a test holds that it equals the migrations' result.
"""


def describe(conn: Connection) -> str:
    """The schema as text; equal schemas give equal texts."""
    parts = [HEADER]
    # The statements' order in the file is the order of the text.
    for name in statements("describe"):
        parts += [f"{text}\n" for (text,) in conn.execute(sql("describe", name))]
    return "\n".join(parts)


def main() -> int:
    """Describe DATABASE_URL on stdout."""
    try:
        with connect(settings.load().database_url) as conn:
            sys.stdout.write(describe(conn))
    except GaplessError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
