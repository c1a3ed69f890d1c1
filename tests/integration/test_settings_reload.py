"""Settings that change while processes run: one file, one version, every process, or nobody."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from redis import Redis

from core.clock import SystemClock
from core.errors import StorageError
from core.settings import FIXED, LOCAL, Settings, adopt, load, shared_defaults, shared_of
from core.telemetry import Telemetry
from core.words import Capability, Share
from db import settings_versions
from db.live_settings import LiveSettings
from db.pool import Database, connect
from tests.servers import REPOSITORY, WaitUntil
from workers.stopping import Stop
from workers.wiring import open_base, worker_context

pytestmark = pytest.mark.integration

CLOCK = SystemClock()


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url, CLOCK, max_size=4)) as opened:
        yield opened


@pytest.fixture
def file(tmp_path: Path, database_url: str) -> Path:
    path = tmp_path / "settings.env"
    path.write_text("LIVE_BATCH_SIZE=50\n")
    old = CLOCK.timestamp() - 60
    os.utime(path, (old, old))
    return path


def write(path: Path, text: str) -> None:
    path.write_text(text)
    later = CLOCK.timestamp() + 60
    os.utime(path, (later, later))


def look(live: LiveSettings, db: Database) -> bool:
    """Two looks: a file counts once it has rested."""
    first = live.refresh(db)
    return live.refresh(db) or first


def versions(db: Database) -> int:
    with db.session() as conn:
        newest = settings_versions.newest(conn)
    return 0 if newest is None else newest.number


def test_every_setting_is_fixed_local_or_the_fleet_s_and_no_secret_is_the_fleet_s() -> None:
    shared = {name.partition("__")[0] for name in shared_defaults()}
    assert FIXED | LOCAL | shared == set(Settings.model_fields)
    assert not FIXED & LOCAL
    assert not (FIXED | LOCAL) & shared
    assert not [name for name in shared if "key" in name or "url" in name]


def test_the_fleet_s_part_of_a_file_gives_back_what_the_file_gives(file: Path) -> None:
    file.write_text(
        "POLICY_BARS_1M=yfinance,finnhub\nCADENCE_T0__bars_1m=30\n"
        'TIER_MAXS={"t1": 9}\nFINNHUB_API_KEY=k\nSOMEBODY_ELSES=1\n'
    )
    own = load(file)
    assert adopt(own, shared_of(file)) == own
    assert adopt(load(Path("/nonexistent/.env")), shared_of(file)).tier_maxs.t1 == 9
    assert "finnhub_api_key" not in shared_of(file)


def test_a_changed_file_reaches_processes_that_have_no_file(file: Path, db: Database) -> None:
    here, there = LiveSettings(file), LiveSettings(Path("/nonexistent/.env"))
    assert not here.refresh(db)
    assert not there.refresh(db)
    write(file, "LIVE_BATCH_SIZE=7\nPOLICY_EOD=yfinance\n")
    assert look(here, db)
    assert there.refresh(db)
    for live in (here, there):
        assert live.current().live_batch_size == 7
        assert live.current().policy_eod == "yfinance"
    write(file, "POLICY_EOD=yfinance\n")
    look(here, db)
    there.refresh(db)
    assert there.current().live_batch_size == 100, "what the file lacks has its default"


def test_a_file_with_a_mistake_changes_nothing_and_says_all_of_it(
    file: Path, db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    live = LiveSettings(file)
    live.refresh(db)
    write(file, "LIVE_BATCH_SIZE=0\nPOLICY_EOD=yfinance\nLOG_LEVEL=LOUD\n")
    assert not look(live, db)
    assert live.current().live_batch_size == 50
    assert live.current().policy_eod != "yfinance"
    assert versions(db) == 0
    assert "settings stay as they were" in caplog.text
    said = " ".join(str(getattr(record, "error", "")) for record in caplog.records)
    assert "LIVE_BATCH_SIZE" in said
    assert "LOG_LEVEL" in said
    write(file, "LIVE_BATCH_SIZE=8\n")
    assert look(live, db)
    assert live.current().live_batch_size == 8


def test_a_file_that_still_changes_is_left_alone(file: Path, db: Database) -> None:
    live = LiveSettings(file)
    live.refresh(db)
    write(file, "LIVE_BATCH_SIZE=7\n")
    assert not live.refresh(db)
    file.write_text("LIVE_BATCH_SIZE=77\n")
    assert not live.refresh(db)
    assert live.refresh(db)
    assert live.current().live_batch_size == 77


def test_a_file_that_is_gone_changes_nothing(file: Path, db: Database) -> None:
    live = LiveSettings(file)
    live.refresh(db)
    file.unlink()
    assert not look(live, db)
    assert live.current().live_batch_size == 50
    assert versions(db) == 0


def test_the_same_change_seen_by_two_processes_is_one_version(file: Path, db: Database) -> None:
    one, two = LiveSettings(file), LiveSettings(file)
    for live in (one, two):
        live.refresh(db)
    write(file, "LIVE_BATCH_SIZE=7\n")
    for live in (one, two):
        assert look(live, db)
    assert versions(db) == 1


def test_a_process_that_starts_takes_the_newest_version_or_its_younger_file(
    file: Path, db: Database
) -> None:
    settings_versions.publish(db, {"live_batch_size": "9"}, who="test")
    older = LiveSettings(file)
    assert older.refresh(db)
    assert older.current().live_batch_size == 9
    write(file, "LIVE_BATCH_SIZE=11\n")
    younger = LiveSettings(file)
    younger.refresh(db)
    assert younger.current().live_batch_size == 11
    assert versions(db) == 2


def test_the_environment_stands_above_what_is_published(
    file: Path, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVE_BATCH_SIZE", "3")
    live = LiveSettings(file)
    settings_versions.publish(db, {"live_batch_size": "9", "policy_eod": "yfinance"}, who="test")
    assert live.refresh(db)
    assert live.current().live_batch_size == 3
    assert live.current().policy_eod == "yfinance"


def test_servers_stay_until_a_restart_and_keys_change_without_being_published(
    file: Path, db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    live = LiveSettings(file)
    live.refresh(db)
    write(file, "LIVE_BATCH_SIZE=50\nREDIS_URL=redis://elsewhere\nFINNHUB_API_KEY=new\n")
    assert look(live, db)
    key = live.current().finnhub_api_key
    assert key is not None
    assert key.get_secret_value() == "new"
    assert live.current().redis_url != "redis://elsewhere"
    assert "needs a restart" in caplog.text
    with db.session() as conn:
        newest = settings_versions.newest(conn)
    assert newest is not None
    assert newest.content == {"live_batch_size": "50"}


def test_what_could_not_be_brought_into_force_is_tried_again_whole(
    file: Path, db: Database
) -> None:
    live, turns = LiveSettings(file), []

    def turn(settings: Settings) -> None:
        turns.append(settings.live_batch_size)
        if len(turns) == 1:
            raise StorageError("away")

    live.refresh(db, turn)
    settings_versions.publish(db, {"live_batch_size": "9"}, who="test")
    with pytest.raises(StorageError):
        live.refresh(db, turn)
    assert live.current().live_batch_size == 50
    assert live.refresh(db, turn)
    assert turns == [9, 9]
    assert live.current().live_batch_size == 9


def test_a_worker_turns_over_to_other_policies_and_limits_within_two_seconds(
    file: Path,
    database_url: str,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: WaitUntil,
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("GAPLESS_HOME", str(file.parent))
    old = CLOCK.timestamp() - 60
    file.write_text("POLICY_QUOTES_L1=finnhub\nFINNHUB_API_KEY=k\nFINNHUB_LIMITS=5/60s\n")
    os.utime(file, (old, old))
    base = open_base(LiveSettings(file, application="gapless-collect-T0"), "gapless-collect-T0")
    with closing(base):
        context = worker_context(base, Telemetry(), Stop(CLOCK))
        before = context.setup
        lease = context.router.acquire(
            Capability.QUOTES_L1, share=Share.LIVE, deadline=CLOCK.monotonic() + 3
        )
        assert lease.source == "finnhub"
        write(file, "POLICY_QUOTES_L1=yfinance,finnhub\nFINNHUB_API_KEY=k\nFINNHUB_LIMITS=9/60s\n")
        began = CLOCK.monotonic()
        wait_until(lambda: context.setup is not before, seconds=4)
        assert CLOCK.monotonic() - began < 2
        assert context.settings.finnhub_limits == "9/60s"
        assert context.router.eligible(Capability.QUOTES_L1) == ["yfinance", "finnhub"]
        # What was leased before ends as it would have; what was spent stays spent.
        lease.answered(0.01, endpoint="quote")
        uses = {s.source: s.budgets for s in context.router.status() if s.budgets}["finnhub"]
        assert [(use.limit.units, use.live) for use in uses] == [(9, 1)]
        assert before.router is not context.router
        context.close()


class Fleet:
    """Worker processes and the command, started as an operator would."""

    def __init__(self, folder: Path, database_url: str, redis_url: str) -> None:
        self.folder = folder
        self.env = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "METRICS_PORT": "0",
            "GAPLESS_HOME": str(folder),
        }
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, *words: str) -> None:
        log = (self.folder / f"{'-'.join(words)}.log").open("wb")
        with log:
            self.running.append(
                subprocess.Popen(
                    [sys.executable, "-m", *words],
                    cwd=self.folder,
                    env=self.env,
                    stdout=log,
                    stderr=log,
                )
            )

    def reload(self) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "ops", "reload", "--json"],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def close(self) -> None:
        for process in self.running:
            process.terminate()
        for process in self.running:
            process.wait(timeout=20)


def test_ops_reload_brings_a_file_into_force_in_every_process_and_a_bad_one_in_none(
    tmp_path: Path, database_url: str, redis_url: str, wait_until: WaitUntil
) -> None:
    (tmp_path / ".env").write_text("POLICY_BARS_1M=csv,yfinance\nPOLICY_EOD=csv\n")
    fleet = Fleet(tmp_path, database_url, redis_url)
    kinds = ("collect", "backfill")
    with closing(fleet), connect(database_url) as conn:
        fleet.start("scheduler")
        for kind in kinds:
            fleet.start("workers", kind, "--tier", "T0")

        def up() -> bool:
            known = {"gapless-scheduler", *(f"gapless-{kind}-T0" for kind in kinds)}
            return settings_versions.processes(conn) >= known

        wait_until(up, seconds=30)

        (tmp_path / ".env").write_text("POLICY_BARS_1M=csv,\nBACKFILL_BATCH_SIZE=x\n")
        code, said = fleet.reload()
        assert code == 1
        assert "POLICY_BARS_1M" in said
        assert "BACKFILL_BATCH_SIZE" in said
        assert "nothing was changed" in said
        assert settings_versions.newest(conn) is None

        (tmp_path / ".env").write_text("POLICY_BARS_1M=yfinance,csv\nPOLICY_EOD=csv\n")
        began = CLOCK.monotonic()
        code, said = fleet.reload()
        assert code == 0, said
        found = json.loads(said)
        assert {name.partition("@")[0] for name in found["in_force"]} == {
            "gapless-scheduler",
            "gapless-collect-T0",
            "gapless-backfill-T0",
        }
        assert (found["silent"], found["refused"]) == ([], {})
        # The command's own start is the larger part of it.
        assert CLOCK.monotonic() - began < 8
        ranks = conn.execute(
            "SELECT provider FROM source_rank"
            " WHERE capability = 'bars_1m' AND as_of = (SELECT max(as_of) FROM source_rank"
            " WHERE capability = 'bars_1m') ORDER BY position"
        )
        assert [name for (name,) in ranks] == ["yfinance", "csv"]
    with Redis.from_url(redis_url) as client:
        client.flushall()
