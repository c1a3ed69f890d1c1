"""``ops down`` ends what runs near here; ``ops url`` says where it is."""

import subprocess
import sys
from pathlib import Path

import pytest

from ops.cli import main
from ops.embedded.home import Home
from ops.embedded.valkey import ValkeyServer
from ops.stack_file import StackInfo, read_stack, write_stack
from ops.supervise.identity import identify
from tests.servers import MakeHome

pytestmark = pytest.mark.integration


@pytest.fixture
def home(make_home: MakeHome, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The state folder of ``ops up --sim`` in the current folder's."""
    parent = make_home()
    monkeypatch.setenv("GAPLESS_HOME", str(parent.path))
    return make_home(parent.path / "sim")


def test_down_ends_a_live_owner_and_a_server_that_a_killed_one_left(home: Home, capsys) -> None:
    server = ValkeyServer.start(home)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as owner:
        write_stack(
            home.path,
            StackInfo("ops up --sim", "postgresql://x", server.url, owner=identify(owner.pid)),
        )

        assert main(["down"]) == 0
        assert owner.wait(timeout=5) == -15

    said = capsys.readouterr().out
    assert "stopping `ops up --sim`" in said
    assert "stopped Valkey" in said
    assert not server.alive()
    assert read_stack(home.path) is None
    assert home.path.is_dir()
    assert main(["down"]) == 0


def test_nothing_is_forgotten_without_yes(home: Home, capsys) -> None:
    server = ValkeyServer.start(home)

    assert main(["down", "--forget"]) == 2

    said = capsys.readouterr().err
    assert str(home.path) in said
    assert "--yes" in said
    assert server.alive()


def test_forget_deletes_the_folder_and_the_servers_data_outside_it(home: Home, capsys) -> None:
    ValkeyServer.start(home)
    place = home.known_place()
    assert place is not None

    assert main(["down", "--forget", "--yes"]) == 0

    assert not home.path.parent.exists()
    assert not place.folder.exists()
    assert str(place.folder) in capsys.readouterr().out


def test_the_url_comes_without_its_password_unless_that_is_asked_for(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("GAPLESS_HOME", str(tmp_path))
    monkeypatch.setenv("DATABASE_URL", database_url)
    user, _, place = database_url.removeprefix("postgresql://").partition("@")
    assert ":" in user

    assert main(["url"]) == 0
    said = capsys.readouterr()
    assert said.out == f"postgresql://{user.partition(':')[0]}@{place}\n"
    assert "--show-password" in said.err

    assert main(["url", "--show-password"]) == 0
    assert capsys.readouterr().out == f"{database_url}\n"
