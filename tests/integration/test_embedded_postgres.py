"""PostgreSQL of our own: made, found again, recovered, stopped; one clear error each."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from ops.embedded.errors import (
    BinariesMissingError,
    NoSpaceError,
    PortTakenError,
    ServerStartError,
    StateFolderError,
    VersionMismatchError,
    start_error,
)
from ops.embedded.home import Home
from ops.embedded.postgres import PostgresServer
from ops.supervise.identity import children_of, is_alive

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def old_home(servers_folder) -> Home:
    """A state folder whose database was made before."""
    home = Home(servers_folder / f"old-{uuid.uuid4().hex[:8]}")
    PostgresServer.start(home, durable=False).stop()
    return home


@pytest.fixture
def home(old_home):
    """The old state folder; nothing runs in it before and after the test."""
    yield old_home
    server = PostgresServer.find(old_home)
    if server is not None:
        server.stop()


def start(home, **options) -> PostgresServer:
    return PostgresServer.start(home, durable=options.pop("durable", False), **options)


def ask(server: PostgresServer, question: str) -> str:
    with psycopg.connect(server.url, autocommit=True) as connection:
        row = connection.execute(question.encode()).fetchone()
    assert row is not None
    return str(row[0])


def execute(server: PostgresServer, statement: str) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(statement.encode())


def keep(server: PostgresServer) -> str:
    """Commit a word and return it."""
    word = uuid.uuid4().hex
    execute(server, "DROP TABLE IF EXISTS kept")
    execute(server, f"CREATE TABLE kept AS SELECT '{word}'::text AS word")
    return word


def data_of(server: PostgresServer) -> Path:
    place = server.home.known_place()
    assert place is not None
    return place.folder / "postgres"


def in_another_process(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *(str(argument) for argument in arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


START_AND_DIE = """
import os, signal, sys
from ops.embedded.home import Home
from ops.embedded.home import Home
from ops.embedded.postgres import PostgresServer
server = PostgresServer.start(Home(sys.argv[1]), durable=False)
print(server.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_first_start_makes_a_database_and_its_url_opens_it(make_home):
    server = start(make_home())

    assert ask(server, "SELECT current_database() || ' ' || current_user") == "gapless gapless"
    assert server.url.startswith("postgresql://gapless:")
    assert server.url.endswith(f"@127.0.0.1:{server.port}/gapless")
    assert ask(server, "SHOW server_encoding") == "UTF8"
    assert ask(server, "SELECT datcollate FROM pg_database WHERE datname = 'gapless'") == "C"
    assert ask(server, "SHOW timezone") == "UTC"


def test_nobody_connects_without_the_password_or_from_elsewhere(home):
    server = start(home)
    secret = server.home.path / "secrets" / "postgres"

    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(host="127.0.0.1", port=server.port, user="gapless", dbname="gapless")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.url.replace(secret.read_text().strip(), "guess"))
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert ask(server, "SHOW listen_addresses") == "127.0.0.1"
    assert ask(server, "SHOW unix_socket_directories") == ""


def test_a_durable_server_syncs_and_a_throw_away_one_does_not(home):
    names = ("fsync", "full_page_writes", "synchronous_commit")

    durable = start(home, durable=True)
    assert [ask(durable, f"SHOW {name}") for name in names] == ["on", "on", "on"]

    hasty = start(home, durable=False)
    # Commits reach the system's cache all the same: a killed server loses none.
    assert [ask(hasty, f"SHOW {name}") for name in names] == ["off", "off", "on"]
    assert not durable.alive(), "one server over one folder"


def test_settings_are_sized_and_the_caller_s_come_last(home):
    server = start(home, settings={"work_mem": "3MB", "application_name": "it's"})

    assert int(ask(server, "SHOW max_connections")) >= 100
    assert ask(server, "SHOW jit") == "off"
    assert ask(server, "SHOW random_page_cost") == "1.1"
    assert ask(server, "SHOW work_mem") == "3MB"
    assert (
        ask(server, "SELECT reset_val FROM pg_settings WHERE name = 'application_name'") == "it's"
    )
    megabytes = "SELECT setting::int / 128 FROM pg_settings WHERE name = 'shared_buffers'"
    assert 64 <= int(ask(server, megabytes)) <= 1024


def test_a_second_start_finds_the_first_server(home):
    first = start(home)

    second = start(home)

    found = PostgresServer.find(home)
    assert found is not None
    assert first.pid == second.pid == found.pid
    assert first.url == found.url


def test_starts_at_the_same_time_end_with_one_server(make_home):
    home = make_home()
    with ThreadPoolExecutor(4) as pool:
        servers = list(pool.map(lambda _: start(home), range(4)))

    assert len({server.pid for server in servers}) == 1
    assert ask(servers[0], "SELECT 1") == "1"


def test_a_server_whose_owner_was_killed_is_adopted(home):
    died = in_another_process(START_AND_DIE, home.path)
    assert died.returncode == -signal.SIGKILL

    server = start(home)

    assert server.pid == int(died.stdout)
    assert ask(server, "SELECT 1") == "1"


def test_or_it_is_stopped_first_when_the_caller_asks(home):
    died = in_another_process(START_AND_DIE, home.path)
    left = PostgresServer.find(home)
    assert left is not None

    server = start(home, if_running="restart")

    assert not left.alive()
    assert server.pid != int(died.stdout)


def test_a_server_that_was_never_written_down_is_found_by_its_own_pid_file(home):
    first = start(home)
    (home.path / "run" / "postgres.json").unlink()

    second = start(home)

    assert not first.alive(), "nobody knows how it was started, so it is started anew"
    assert ask(second, "SELECT 1") == "1"


def test_data_outlives_a_killed_postmaster_even_while_it_is_a_zombie(home):
    server = start(home)
    word = keep(server)
    # Our own child, not collected: a zombie until the next start looks at it.
    os.kill(server.pid, signal.SIGKILL)

    again = start(home)

    assert again.pid != server.pid
    assert ask(again, "SELECT word FROM kept") == word


def test_busy_sessions_of_a_killed_postmaster_are_waited_for(home):
    server = start(home)
    word = keep(server)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("BEGIN")
        connection.execute("LOCK TABLE kept")
        os.kill(server.pid, signal.SIGKILL)

        again = start(home)
        connection.close()

    assert ask(again, "SELECT word FROM kept") == word


def test_a_stale_pid_file_with_a_stranger_s_id_does_not_stop_a_start(home):
    server = start(home)
    server.stop()
    # This test's own process: alive, and no server.
    (data_of(server) / "postmaster.pid").write_text(
        f"{os.getpid()}\n{data_of(server)}\n1\n5432\n\n\n"
    )

    assert PostgresServer.find(home) is None
    assert ask(start(home), "SELECT 1") == "1"


def test_a_stop_leaves_no_process_and_may_be_repeated(home):
    server = start(home)
    sessions = children_of(server.pid)
    assert sessions

    server.stop()
    server.stop()

    assert not server.alive()
    assert not any(is_alive(session) for session in sessions)
    assert PostgresServer.find(home) is None


def test_a_stop_ends_open_transactions_and_keeps_what_was_committed(home):
    server = start(home)
    word = keep(server)
    with psycopg.connect(server.url) as connection:
        connection.execute("UPDATE kept SET word = 'changed'")
        server.stop()
        connection.close()

    assert ask(start(home), "SELECT word FROM kept") == word


def test_the_next_start_keeps_the_port_unless_it_is_taken(home):
    first = start(home)
    first.stop()
    second = start(home)
    second.stop()
    assert second.port == first.port

    with socket.create_server(("127.0.0.1", first.port)):
        third = start(home)

    assert third.port != first.port
    assert ask(third, "SELECT 1") == "1"


def test_a_fixed_port_that_is_taken_is_said_so(make_home):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTakenError, match=rf"port {port} .*choose another port"):
            start(make_home(), port=port)


def test_a_fixed_port_is_used(home):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

    assert start(home, port=port).port == port


def test_a_creation_that_was_cut_short_is_begun_again(make_home):
    home = make_home()
    half = home.place().folder / "postgres.new-1"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")

    assert ask(start(home), "SELECT 1") == "1"
    assert not half.exists()


def test_a_lost_secret_is_replaced_and_the_data_kept(home):
    server = start(home)
    word = keep(server)
    (home.path / "secrets" / "postgres").unlink()

    again = start(home)

    assert ask(again, "SELECT word FROM kept") == word


def test_data_of_another_major_version_is_refused_and_left_alone(home):
    server = start(home)
    server.stop()
    (data_of(server) / "PG_VERSION").write_text("9\n")

    with pytest.raises(VersionMismatchError, match=r"PostgreSQL 9's.*another state folder"):
        start(home)

    (data_of(server) / "PG_VERSION").write_text(server.version.split(".")[0] + "\n")
    assert ask(start(home), "SELECT 1") == "1"


def test_a_folder_without_programs_is_named(make_home, tmp_path):
    with pytest.raises(BinariesMissingError, match=rf"{tmp_path} has no initdb and no postgres"):
        start(make_home(), bin_dir=tmp_path)


def test_a_program_that_does_not_run_is_named(make_home, servers_folder):
    broken = servers_folder / "broken-bin"
    broken.mkdir(mode=0o755)
    for name in ("initdb", "postgres"):
        (broken / name).write_text("no program")
        (broken / name).chmod(0o755)

    with pytest.raises(BinariesMissingError, match=r"can't run|fails for"):
        start(make_home(), bin_dir=broken)


def test_the_system_s_installation_comes_first_when_preferred(make_home):
    if not list(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        pytest.skip("no PostgreSQL of the system's in /usr/lib/postgresql")

    server = start(make_home(), prefer="system")

    assert server.bin_dir.is_relative_to("/usr/lib/postgresql")
    assert ask(server, "SHOW server_version").startswith(server.version)


def test_libraries_are_loaded_where_the_installation_has_them(home):
    server = start(home, preload=("pg_stat_statements",))
    assert server.preload == ("pg_stat_statements",)
    assert ask(server, "SHOW shared_preload_libraries") == "pg_stat_statements"

    without = start(home, preload=("no_such_library",))
    assert without.preload == ()
    assert ask(without, "SHOW shared_preload_libraries") == ""


def test_a_wrong_setting_is_quoted_from_the_log(home):
    with pytest.raises(ServerStartError, match="unrecognized configuration parameter"):
        start(home, settings={"no_such_setting": "1"})


def test_a_slow_start_is_reported_and_goes_on(home):
    server = start(home)
    os.kill(server.pid, signal.SIGKILL)
    said: list[str] = []

    with pytest.raises(ServerStartError, match=r"not ready after 0 s.*start again to wait for it"):
        start(home, ready_s=0.0, progress=said.append)

    assert ask(start(home), "SELECT 1") == "1"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_is_said_so_before_anything_is_made(make_home):
    small = Path(tempfile.mkdtemp())
    small.chmod(0o755)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m,mode=755", "none", str(small)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode != 0:
        small.rmdir()
        pytest.skip("this root may not mount")
    try:
        with pytest.raises(NoSpaceError, match=r"a new database needs 200 MB; free some space"):
            start(make_home(servers_root=small / "servers"))
    finally:
        subprocess.run(["umount", str(small)], check=True)
        small.rmdir()


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ('FATAL:  could not write to file "pg_wal/x": No space left on device', NoSpaceError),
        ('FATAL:  could not open file "base/1": Permission denied', StateFolderError),
        ("initdb: error: could not create directory: Read-only file system", StateFolderError),
        ("PANIC:  could not locate a valid checkpoint record", ServerStartError),
        ("", ServerStartError),
    ],
)
def test_the_last_words_of_a_server_tell_the_trouble(said, error):
    found = start_error("PostgreSQL does not start", said, Path("/data"))

    assert type(found) is error
    assert said.partition(":")[2].strip() in str(found) or not said


def test_no_folder_but_our_own_changes_its_permissions(make_home, servers_folder):
    closed = servers_folder / f"closed-{os.getpid()}"
    closed.mkdir(mode=0o700)
    watched = [closed, servers_folder, *servers_folder.parents]
    watched += [Path("/var/lib"), Path(sys.executable).parent, REPOSITORY]
    before = [stat.S_IMODE(folder.stat().st_mode) for folder in watched]
    home = make_home(closed / ".gapless")

    server = start(home)

    assert ask(server, "SELECT 1") == "1"
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in watched] == before
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700


def test_a_copied_folder_gets_a_server_of_its_own(make_home, servers_folder):
    home = make_home()
    server = start(home)
    copy = servers_folder / "copied"
    shutil.copytree(home.path, copy, symlinks=True)
    (copy / "postgres" / "postmaster.pid").unlink(missing_ok=True)

    other = start(make_home(copy))

    assert other.pid != server.pid
    assert server.alive()
