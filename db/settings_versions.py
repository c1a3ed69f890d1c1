"""The fleet's shared settings as published: append-only versions, of which the newest is in force."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from psycopg.types.json import Jsonb

from db import horizon
from db.pool import Connection, Database, connect
from db.sql import sql


@dataclass(frozen=True, slots=True)
class Version:
    """What was published at one time."""

    number: int
    content: Mapping[str, str]
    """Setting -> text, as ``core.settings.shared_of`` has it."""
    published: float
    """Epoch seconds of the server's own clock."""


@dataclass(frozen=True, slots=True)
class Word:
    """What one process says of a version."""

    process: str
    application: str
    """As in pg_stat_activity: the process kind."""
    version: int
    problem: str = ""
    """Why it keeps its old settings; empty when it has taken the version on."""
    kept: tuple[str, ...] = ()
    """Published settings that its environment stands above."""


def newest(conn: Connection) -> Version | None:
    """The version in force; None before the first."""
    row = conn.execute(sql("settings", "newest")).fetchone()
    return None if row is None else Version(*row)


def publish(
    db: Database, content: Mapping[str, str], *, who: str, again: bool = False
) -> tuple[Version, bool]:
    """Make the content the newest version; the newest one's own content adds nothing.

    Args:
        db: Where.
        content: As ``core.settings.shared_of`` has it; checked by the caller.
        who: Who did it, and what made them.
        again: Add a version even so, so that every process looks at its own file anew.

    Returns:
        The version in force, and whether it is a new one.
    """

    def work(conn: Connection, as_of: datetime) -> tuple[Version, bool]:
        now = newest(conn)
        if now is not None and not again and dict(now.content) == dict(content):
            return now, False
        row = conn.execute(
            sql("settings", "add"), {"content": Jsonb(dict(content)), "who": who, "as_of": as_of}
        ).fetchone()
        assert row is not None, "an INSERT with RETURNING has a row"
        return Version(*row), True

    return horizon.run(db, work, lock="settings")


def tell(conn: Connection, word: Word) -> None:
    """Let whoever listens know what a process made of a version."""
    text = orjson.dumps(
        {
            "process": word.process,
            "application": word.application,
            "version": word.version,
            "problem": word.problem[:2000],
            "kept": word.kept,
        }
    ).decode()
    conn.execute(sql("settings", "tell"), {"word": text})


@contextmanager
def listening(url: str) -> Generator[Callable[[float], Word | None]]:
    """Yields what waits so many real seconds for the next word; None when there was none.

    On a connection of its own: of a pool's, anybody would get it next.

    Raises:
        StorageError: the database is away, also while somebody waits.
    """
    with connect(url, application="gapless-ops") as conn:
        conn.execute(sql("settings", "listen"))

        def hear(wait_s: float) -> Word | None:
            # With a timeout of 0 what has come is read and nothing waited for.
            words = [_word(n.payload) for n in conn.notifies(timeout=wait_s, stop_after=1)]
            return words[0] if words else None

        yield hear


def _word(payload: str) -> Word:
    said: dict[str, Any] = orjson.loads(payload)
    return Word(
        said["process"], said["application"], said["version"], said["problem"], tuple(said["kept"])
    )


def processes(conn: Connection) -> set[str]:
    """Process kinds, by application name, that are connected now and take on settings."""
    return {name for (name,) in conn.execute(sql("settings", "processes"))}
