"""A symbol whose answer kills every worker process that reads it: everybody else is served all the same."""

import subprocess
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from core.telemetry import Telemetry
from core.words import Interval, Tier
from db import backfill
from db.backfill import NewJob
from scheduler.dispatch import Dispatch
from scheduler.leader import Leader
from tests.integration.scheduler_market import settings_of
from tests.integration.test_workers_process import (
    Start,
    batch,
    environment,
    market,
    start,
    stored,
    truth,
    world,
)
from tests.workers_world import World, window
from workers.queues import RETRIES, CollectJob, Kind, enqueue_collect
from workers.suspects import Suspects

pytestmark = pytest.mark.integration

__all__ = ["environment", "market", "start", "world"]

FATAL = "tests.integration.fatal_process"
PLACE = 7
"""Of the fatal symbol in the first batch."""


class Supervisor:
    """Starts the process again whenever it has died."""

    def __init__(self, begin: Callable[..., "subprocess.Popen[bytes]"]) -> None:
        self._begin = begin
        self.process = begin()
        self.deaths = 0

    def look(self) -> None:
        if self.process.poll() is not None:
            self.deaths += 1
            self.process = self._begin(ready=False)


def supervised(start: Start, world: World, kind: str, fatal: str) -> Supervisor:
    ((symbol_id,),) = world.rows("SELECT symbol_id FROM universe WHERE symbol = %s", fatal)
    words = (kind, "--tier", "T0")
    return Supervisor(partial(start, *words, module=FATAL, FATAL_SYMBOL_ID=str(symbol_id)))


def idle(world: World) -> bool:
    """Nothing waits, is taken or runs."""
    keys = ("rq:queue:collect:T0", "rq:queue:collect:T0:intermediate")
    return not any(map(world.redis.llen, keys)) and not world.redis.zcard("rq:wip:collect:T0")


def minutes(found: dict[str, dict[float, float]], *jobs: CollectJob) -> dict[str, set[float]]:
    """Bars may have been restated since they were stored; which there are does not change."""
    names = {symbol for job in jobs for symbol in job.symbols}
    return {symbol: set(bars) for symbol, bars in found.items() if symbol in names}


def test_live_batches_are_asked_without_it(
    market: Any, world: World, start: Start, wait_until
) -> None:
    # Pushed once, as what is asked once a session: nobody comes back for what was put aside.
    jobs = [batch(market, 0), batch(market, 1)]
    fatal = jobs[0].symbols[PLACE]
    enqueue_collect(world.redis, jobs)
    worker = supervised(start, world, "collect", fatal)

    def done() -> bool:
        worker.look()
        return idle(world)

    wait_until(done, seconds=90, what="both batches have ended")
    assert worker.deaths == RETRIES
    assert world.redis.zcard("rq:failed:collect:T0") == 0
    assert list(Suspects(world.redis).all_left_out()[Kind.BARS_1M]) == [fatal]
    expected = minutes(truth(market, "15:00:00", "15:30:00"), *jobs)
    assert expected.pop(fatal)
    assert minutes(stored(world, "15:00:00", "15:30:00"), *jobs) == expected


def test_connections_that_rest_are_closed_while_nothing_is_asked(
    market: Any, world: World, start: Start, wait_until
) -> None:
    words = ("collect", "--tier", "T0")
    collector = psutil.Process(start(*words, module=FATAL, FATAL_SYMBOL_ID="0", REST_S="1").pid)
    vendors = {urlsplit(source["base_url"]).port for source in market.endpoints["sources"].values()}

    def connected() -> int:
        return sum(c.raddr != () and c.raddr.port in vendors for c in collector.net_connections())

    most = 0

    def busy() -> bool:
        nonlocal most
        most = max(most, connected())
        return most > 1 and idle(world)

    enqueue_collect(world.redis, [batch(market, 0), batch(market, 1)])
    wait_until(busy, seconds=20, what="both batches have ended")
    wait_until(lambda: connected() == 0, seconds=20, what="all are closed")


def test_only_its_own_backfill_row_is_given_up(
    market: Any, world: World, start: Start, wait_until
) -> None:
    symbols = batch(market, 0).symbols[: PLACE + 5]
    ids = dict(world.rows("SELECT symbol, symbol_id FROM universe"))
    span = window("15:00", "15:30")
    rows = backfill.enqueue(
        world.db,
        [NewJob(ids[name], Interval.M1, span, Tier.T0, "gap", max_attempts=4) for name in symbols],
    )
    leader = Leader(world.db, "leader")
    settings = settings_of(world.database_url, world.redis_url)
    dispatch = Dispatch(world.db, world.redis, leader, settings, Telemetry())
    worker = supervised(start, world, "backfill", symbols[PLACE])

    def ended() -> bool:
        leader.step()
        dispatch.step()
        worker.look()
        return set(backfill.states(world.db, rows).values()) <= {"done", "failed"}

    wait_until(ended, seconds=90, what="every row has ended")
    states = world.rows(
        "SELECT u.symbol, j.attempts FROM backfill_jobs j JOIN universe u USING (symbol_id)"
        " WHERE j.state = 'failed'"
    )
    assert states == [(symbols[PLACE], 4)]
    assert worker.deaths == 4
