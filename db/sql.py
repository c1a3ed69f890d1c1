"""Loads ``db/queries/*.sql``: each file holds statements under ``-- name: <name>`` lines."""

import re
from functools import cache
from pathlib import Path
from typing import LiteralString, cast

_QUERIES = Path(__file__).parent / "queries"
_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


@cache
def statements(file: str) -> dict[str, LiteralString]:
    """Every statement of ``db/queries/<file>.sql`` by its name.

    The text is part of the program, never put together from input: that is LiteralString's claim.

    Raises:
        KeyError: a name occurs twice in the file.
    """
    parts = _NAME.split((_QUERIES / f"{file}.sql").read_text(encoding="utf-8"))
    found: dict[str, LiteralString] = {}
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        if name in found:
            raise KeyError(f"db/queries/{file}.sql has two statements named {name!r}")
        found[name] = cast("LiteralString", body.strip())
    return found


def sql(file: str, name: str) -> LiteralString:
    """One statement; loaded once a process."""
    return statements(file)[name]
