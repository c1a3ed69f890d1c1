"""A PostgreSQL to measure on: an embedded one of the run's own, or any that a URL names.

The embedded one runs with the settings of production, durable, on the disk of the temporary folder.
On a server that somebody else runs, only databases of our own are made, and dropped.
"""

import shutil
import tempfile
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from core.clock import Clock
from db.migrate import migrate
from ops.embedded.home import Home
from ops.embedded.postgres import PostgresServer

Owner = psycopg.Connection[tuple[Any, ...]]
"""An autocommit connection of the database's owner, outside of what is measured."""


@contextmanager
def server(url: str | None, clock: Clock) -> Generator[str]:
    """The URL of the server to measure on; ours is gone afterwards."""
    if url is not None:
        yield url
        return
    folder = Path(tempfile.mkdtemp(prefix="gapless-bench-")).resolve()
    servers = folder.with_name(f"{folder.name}-servers")
    try:
        home = Home(folder, servers_root=servers, clock=clock)
        running = PostgresServer.start(home, durable=True, clock=clock)
        try:
            yield running.url
        finally:
            running.stop()
            home.remove()
    finally:
        shutil.rmtree(servers, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def database(server_url: str) -> Generator[str]:
    """A migrated database of one measure's own; dropped afterwards."""
    name = f"bench_{uuid.uuid4().hex[:12]}"
    quoted = sql.Identifier(name)
    with connected(server_url) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(quoted))
    try:
        url = urlsplit(server_url)._replace(path=f"/{name}").geturl()
        migrate(url)
        _rest_jobs(url)
        yield url
    finally:
        with connected(server_url) as conn:
            conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(quoted))


@contextmanager
def connected(url: str) -> Generator[Owner]:
    """A connection of the owner's."""
    with psycopg.connect(url, autocommit=True, application_name="bench") as conn:
        conn.execute("SET timezone = 'UTC'")
        yield conn


def compress(owner: Owner, relation: str) -> None:
    """Compress every chunk of a hypertable, now."""
    owner.execute("SELECT compress_chunk(c, true) FROM show_chunks(%s::regclass) c", [relation])


def _rest_jobs(url: str) -> None:
    """Policies that run by themselves would compress while we measure; the measures do it themselves."""
    with connected(url) as conn:
        if conn.execute("SELECT to_regclass('timescaledb_information.jobs')").fetchone() != (None,):
            conn.execute(
                "SELECT alter_job(job_id, scheduled => false)"
                " FROM timescaledb_information.jobs WHERE job_id >= 1000"
            )
