"""Real servers for tests: PostgreSQL and Valkey of our own, started on first use, gone at the end.

One PostgreSQL serves the whole run, all xdist workers included; every test has a database of its
own, cloned from a template that is migrated once. Each xdist worker has a Valkey of its own, so
that a test may flush or even kill it. The process that was called as ``pytest`` stops all of them;
what a killed run left is stopped by the next one.
"""

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

import psycopg
import pytest
import redis
from psycopg import sql

from core.clock import SystemClock
from core.settings import Settings
from ops.embedded.errors import AlreadyRunningError
from ops.embedded.home import Home
from ops.embedded.lock import FolderLock, StartLock
from ops.embedded.postgres import PostgresServer
from ops.embedded.valkey import ValkeyServer
from ops.supervise.records import stop_leftovers

REPOSITORY = Path(__file__).resolve().parent.parent
_PREFIX = "gapless-tests-"
_TEMPLATE = "gapless_template"
_MEMORY = Path("/dev/shm")
_ROOM = 2 << 30
_TIMESCALE = "TIMESCALE_DATABASE_URL"
_FOLDER = pytest.StashKey[Path]()
_LOCK = pytest.StashKey[FolderLock]()

WaitUntil = Callable[..., None]
MakeHome = Callable[..., Home]


def pytest_configure(config: pytest.Config) -> None:
    _scrub_environment()
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        config.stash[_FOLDER] = Path(worker["gapless_folder"])
        return
    _remove_abandoned()
    while _LOCK not in config.stash:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_parent())).resolve()
        lock = FolderLock(folder / "session.lock", "pytest", SystemClock())
        # Another run that clears up may have been faster than our lock.
        with suppress(AlreadyRunningError):
            lock.acquire()
            config.stash[_FOLDER] = folder
            config.stash[_LOCK] = lock


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    node.workerinput["gapless_folder"] = str(node.config.stash[_FOLDER])


def pytest_unconfigure(config: pytest.Config) -> None:
    lock = config.stash.get(_LOCK, None)
    if lock is not None:
        _remove(config.stash[_FOLDER])
        lock.release()


@pytest.fixture(scope="session")
def servers_folder(pytestconfig: pytest.Config) -> Path:
    """Parent of all state folders of this run."""
    return pytestconfig.stash[_FOLDER]


@pytest.fixture(scope="session")
def postgres_server(servers_folder: Path) -> PostgresServer:
    """The PostgreSQL of this run; its own database is ``gapless``, empty."""
    home = Home(servers_folder / "postgres", servers_root=_servers_root(servers_folder))
    return PostgresServer.start(home, durable=False, settings={"max_wal_size": "256MB"})


@pytest.fixture(scope="session")
def template_database(postgres_server: PostgresServer, servers_folder: Path) -> str:
    """Name of the migrated database that ``database_url`` clones."""
    with StartLock(servers_folder / "template.lock", 120.0, SystemClock()):
        with _connected(postgres_server.url) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [_TEMPLATE])
            if found.fetchone() is not None:
                return _TEMPLATE
            # Renamed when it is complete: a run that dies here leaves no half template.
            new = f"{_TEMPLATE}_new"
            _drop(connection, new)
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(new)))
        import_module("db.migrate").migrate(_with_database(postgres_server.url, new))
        with _connected(postgres_server.url) as connection:
            connection.execute(
                sql.SQL("ALTER DATABASE {} RENAME TO {}").format(
                    sql.Identifier(new), sql.Identifier(_TEMPLATE)
                )
            )
    return _TEMPLATE


@pytest.fixture
def database_url(postgres_server: PostgresServer, template_database: str) -> Iterator[str]:
    """A migrated database of this test's own, as its superuser."""
    with _database(postgres_server.url, template=template_database) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A database of this test's own without any migration."""
    with _database(postgres_server.url) as url:
        yield url


@pytest.fixture
def timescale_url(empty_timescale_url: str) -> str:
    """A migrated database of this test's own on the server that TIMESCALE_DATABASE_URL names."""
    import_module("db.migrate").migrate(empty_timescale_url)
    return empty_timescale_url


@pytest.fixture
def empty_timescale_url() -> Iterator[str]:
    """As ``timescale_url``, without any migration."""
    server = os.environ.get(_TIMESCALE)
    if not server:
        pytest.skip(f"{_TIMESCALE} is not set; it names a PostgreSQL with TimescaleDB")
    with _database(server, template="template0") as url:
        yield url


@pytest.fixture(scope="session")
def redis_server(servers_folder: Path) -> ValkeyServer:
    """The Valkey of this xdist worker."""
    return _start_valkey(servers_folder)


@pytest.fixture
def redis_url(redis_server: ValkeyServer, servers_folder: Path) -> str:
    """An empty Valkey; no other test uses it at the same time."""
    # The test before may have killed it. It comes back on its port, so the address stays true.
    server = redis_server if redis_server.alive() else _start_valkey(servers_folder)
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    return server.url


@pytest.fixture
def make_home(servers_folder: Path) -> Iterator[MakeHome]:
    """Makes state folders whose servers and processes are gone after the test."""
    homes: list[Path] = []

    def make(path: Path | None = None, **options: object) -> Home:
        home = Home(path or servers_folder / f"home-{uuid.uuid4().hex[:8]}", **options)  # pyright: ignore[reportArgumentType]
        homes.append(home.path)
        return home

    yield make
    for path in homes:
        if path.exists():
            remove_home(path)


@pytest.fixture(scope="session")
def shared_recorded() -> Path:
    """Recorded market data beside the repository."""
    folder = REPOSITORY.parent / "shared" / "recorded"
    if not folder.is_dir():
        pytest.skip("no recorded data: ../shared/recorded is not there")
    return folder


@pytest.fixture
def wait_until() -> WaitUntil:
    """Waits for a condition with a deadline: ``wait_until(lambda: ..., seconds=5)``."""
    clock = SystemClock()

    def wait(condition: Callable[[], object], *, seconds: float = 10.0, what: str = "") -> None:
        deadline = clock.monotonic() + seconds
        while not condition():
            if clock.monotonic() >= deadline:
                pytest.fail(f"still not so after {seconds} s: {what or condition}")
            clock.sleep(0.01)

    return wait


def remove_home(path: Path) -> None:
    """Stop everything that runs in a state folder and delete it."""
    home = Home(path)
    stop_leftovers(path, SystemClock())
    for server in (ValkeyServer.find(home), PostgresServer.find(home)):
        if server is not None:
            server.stop()
    home.remove()


def _start_valkey(folder: Path) -> ValkeyServer:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    return ValkeyServer.start(Home(folder / f"valkey-{worker}"), durable=False)


@contextmanager
def _connected(url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@contextmanager
def _database(server_url: str, *, template: str = "template1") -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    # Copied as files: a tenth of the time, since nothing goes through the log.
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
        sql.Identifier(name), sql.Identifier(template)
    )
    with _connected(server_url) as connection:
        connection.execute(create)
    try:
        yield _with_database(server_url, name)
    finally:
        with _connected(server_url) as connection:
            _drop(connection, name)


def _drop(connection: psycopg.Connection, name: str) -> None:
    connection.execute(
        sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    )


def _with_database(url: str, name: str) -> str:
    head, _, tail = url.partition("?")
    return f"{head.rpartition('/')[0]}/{name}" + (f"?{tail}" if tail else "")


def _scrub_environment() -> None:
    """Forget the developer's own settings and PostgreSQL's; tests state what they need."""
    names = tuple(name.upper() for name in Settings.model_fields)
    for variable in list(os.environ):
        upper = variable.upper()
        nested = upper.startswith(tuple(f"{name}__" for name in names))
        if upper in names or nested or upper.startswith("PG"):
            del os.environ[variable]


def _parent() -> Path:
    """Where a run keeps its servers: in memory where that has room, since disks create files slowly."""
    with suppress(OSError):
        room = os.statvfs(_MEMORY)
        runs_programs = not room.f_flag & os.ST_NOEXEC
        if runs_programs and room.f_bavail * room.f_frsize >= _ROOM and os.access(_MEMORY, os.W_OK):
            return _MEMORY
    return Path(tempfile.gettempdir()).resolve()


def _servers_root(folder: Path) -> Path:
    """Beside the run's folder, which the servers' user may not enter."""
    return folder.with_name(f"{folder.name}-servers")


def _remove_abandoned() -> None:
    """Stop and delete what test runs left that were killed."""
    parents = {_MEMORY, Path(tempfile.gettempdir()).resolve()}
    for lock in [lock for parent in parents for lock in parent.glob(f"{_PREFIX}*/session.lock")]:
        with suppress(AlreadyRunningError, FileNotFoundError, PermissionError):
            if lock.stat().st_uid == os.geteuid():
                with FolderLock(lock, "pytest, clearing up", SystemClock()):
                    _remove(lock.parent)


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        if (path / "run").is_dir():
            remove_home(path)
    shutil.rmtree(_servers_root(folder), ignore_errors=True)
    shutil.rmtree(folder)
