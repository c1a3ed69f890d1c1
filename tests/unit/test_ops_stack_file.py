"""Which running stack the commands typed in a folder speak to."""

import json
import os
import socket
from pathlib import Path

import pytest

from core.errors import StorageError, UsageError
from ops.connect import database, settings, stack_of
from ops.stack_file import StackInfo, find_stack, read_stack, remove_stack, shown, write_stack
from ops.supervise.identity import ProcessIdentity
from ops.supervise.records import own_identity

GONE = ProcessIdentity(os.getpid(), "started long ago")


def publish(home: Path, kind: str, *, live: bool = True, port: int = 1) -> StackInfo:
    home.mkdir(parents=True, exist_ok=True)
    info = StackInfo(
        f"ops {kind}",
        f"postgresql://me:secret@127.0.0.1:{port}/{kind.replace(' ', '')}",
        f"redis://127.0.0.1:{port}/0",
        env={"FINNHUB_LIMITS": "7/60s", "CADENCE_T0__bars_1m": "30"},
        owner=own_identity() if live else GONE,
    )
    write_stack(home, info)
    return info


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder of an empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".gapless"


def test_what_was_published_is_read_back_by_its_owner_alone(home: Path) -> None:
    info = publish(home, "up")
    assert read_stack(home) == info
    assert (home / "stack.json").stat().st_mode & 0o077 == 0
    remove_stack(home)
    remove_stack(home)
    assert read_stack(home) is None


def test_a_file_of_an_earlier_version_names_no_owner_and_counts_as_killed(home: Path) -> None:
    home.mkdir()
    (home / "stack.json").write_text(
        json.dumps({"kind": "up", "database_url": "postgresql://x", "redis_url": "redis://x"})
    )
    info = read_stack(home)
    assert info is not None
    assert not info.alive
    assert info.command == "ops up"


def test_the_only_live_stack_below_the_folder_is_taken_and_said(home: Path, capsys) -> None:
    info = publish(home / "sim", "up --sim")
    publish(home / "demo", "demo", live=False)

    config = settings()

    assert (config.database_url, config.redis_url) == (info.database_url, info.redis_url)
    assert (config.finnhub_limits, config.cadence_t0.bars_1m) == ("7/60s", 30)
    assert config.gapless_home == ".gapless/sim"
    assert stack_of(config) == info
    said = capsys.readouterr()
    assert said.err == "ops: asking the stack in .gapless/sim (`ops up --sim`)\n"
    assert said.out == ""


def test_the_folders_own_stack_stands_above_those_below_it(home: Path, capsys) -> None:
    own = publish(home, "up")
    publish(home / "demo", "demo")

    assert settings().database_url == own.database_url
    assert capsys.readouterr().err == ""


def test_a_live_stack_stands_above_a_killed_one(home: Path) -> None:
    publish(home, "up", live=False)
    demo = publish(home / "demo", "demo")

    found = find_stack(home)

    assert found is not None
    assert found.info == demo


def test_two_live_stacks_are_named_with_the_way_to_choose(home: Path) -> None:
    publish(home / "sim", "up --sim")
    publish(home / "demo", "demo")

    with pytest.raises(UsageError) as refused:
        settings()

    for part in (".gapless/sim (ops up --sim)", ".gapless/demo (ops demo)", "GAPLESS_HOME="):
        assert part in str(refused.value)


def test_a_database_that_the_user_names_is_never_mixed_with_a_local_stack(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(home, "up")
    monkeypatch.setenv("DATABASE_URL", "postgresql://elsewhere/db")

    config = settings()

    assert config.redis_url == "redis://127.0.0.1:6379/0"
    assert stack_of(config) is None


def test_a_stack_on_the_named_database_lends_its_other_settings(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = publish(home, "up")
    monkeypatch.setenv("DATABASE_URL", info.database_url)

    assert settings().redis_url == info.redis_url


@pytest.mark.parametrize("killed", [False, True])
def test_where_nothing_runs_the_way_to_start_is_said(home: Path, killed: bool) -> None:
    if killed:
        publish(home, "up", live=False)
    else:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 5432)) == 0:
                pytest.skip("a server of somebody else's answers where settings look by default")

    with pytest.raises(StorageError) as refused, database():
        pass

    said = str(refused.value)
    assert said.startswith("nothing runs in .gapless")
    assert "`ops up`" in said
    assert ("killed" in said) is killed
    assert "secret" not in said


def test_a_path_is_shown_as_it_is_typed(home: Path) -> None:
    assert shown(home / "sim") == ".gapless/sim"
    assert shown(Path(".gapless/sim")) == ".gapless/sim"
    assert shown(Path("/var/lib")) == "/var/lib"
