"""The intake's trial in short: killed at random instants, flushed once, every element accounted for."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis import Redis

from bench.databases import connected
from bench.queue.answering import Answering
from bench.queue.elements import JOBS
from bench.queue.intake import Ground, Outcome, Sizes, judge, trial
from bench.queue.movers import movers
from core.clock import SystemClock
from db.pool import Database
from ops.embedded.valkey import ValkeyServer
from tests.servers import MakeHome

pytestmark = pytest.mark.integration


@pytest.fixture
def ground(
    database_url: str, redis_url: str, db: Database, make_home: MakeHome, tmp_path: Path
) -> Iterator[Ground]:
    clock = SystemClock()
    lists_url = ValkeyServer.start(make_home(), durable=False).url
    settings = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "RLC_REDIS_URL": lists_url,
        "GAPLESS_HOME": str(tmp_path / "home"),
    }
    with ExitStack() as ending:
        lists = ending.enter_context(Redis.from_url(lists_url))
        queues = ending.enter_context(Redis.from_url(redis_url))
        owner = ending.enter_context(connected(database_url))
        running = ending.enter_context(movers(2, tmp_path, settings, clock))
        answering = ending.enter_context(Answering(queues, db, clock))
        yield Ground(clock, db, owner, lists, queues, running, answering)


def test_killed_intakes_and_a_flush_lose_nothing_and_double_nothing(ground: Ground) -> None:
    outcome = trial(ground, Sizes(5, 80, 60, patient=False), seed=11)

    assert (outcome.lost, outcome.doubled) == ([], [])
    assert outcome.elements == 540
    assert outcome.kills == 5
    assert outcome.flushed_jobs > 0

    # The judge sees what it is there for.
    ground.movers.kill_all()
    name = "element_id LIKE 'element-%' AND state <> 'dead'"
    ground.owner.execute(
        "DELETE FROM rlc_inbox WHERE inbox_id ="
        f" (SELECT min(inbox_id) FROM rlc_inbox WHERE {name} AND kind = 'jobs')".encode()
    )
    ground.owner.execute(
        "INSERT INTO backfill_jobs (symbol_id, interval_s, start_ts, end_ts, tier, origin, inbox_id, created_at)"
        " SELECT symbol_id, interval_s, start_ts, end_ts + interval '1 min', tier, origin, inbox_id, created_at"
        " FROM backfill_jobs ORDER BY job_id LIMIT 1"
    )
    ground.lists.lpop(f"{JOBS}:dead")
    seen = Outcome()
    judge(ground, outcome.fed, seen)
    assert len(seen.lost) == 2
    assert len(seen.doubled) == 1
