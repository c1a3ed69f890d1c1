"""Backfill dispatch and the lease on real servers: within rate and concurrency, T0 first, once."""

import json
import zlib
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any, cast

import pytest
from redis import Redis

from core.telemetry import Telemetry
from core.windows import Window
from core.words import Interval, Tier
from db import backfill
from db.backfill import NewJob
from db.pool import connect
from scheduler.dispatch import Dispatch
from scheduler.leader import Leader
from scheduler.service import Means, Service
from tests.integration.scheduler_market import Market, at, settings_of

pytestmark = pytest.mark.integration

START = at("2024-12-02T14:30")


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def market(database_url: str) -> Iterator[Market]:
    market = Market(database_url, "2024-12-03T10:00")
    market.enrol(T0=(1, "NYSE"))
    market.enrol(T1=(1, "NYSE"))
    yield market
    market.close()


def enqueue(market: Market, tier: Tier, count: int) -> list[int]:
    symbol_id = market.ids()[f"{tier}N0"]
    windows = [
        Window(START + timedelta(minutes=2 * i), START + timedelta(minutes=2 * i + 1))
        for i in range(count)
    ]
    jobs = [NewJob(symbol_id, Interval.M1, window, tier, "operator") for window in windows]
    return backfill.enqueue(market.db, jobs)


def dispatcher(market: Market, redis: Redis, **more: object) -> Dispatch:
    leader = Leader(market.db, "dispatcher")
    leader.step()
    settings = settings_of(market.url, "redis://unused", **more)
    return Dispatch(market.db, redis, leader, settings, Telemetry())


def pushed(market: Market) -> dict[str, int]:
    return dict(
        market.ask(
            "SELECT tier, count(*) FROM backfill_jobs WHERE dispatched_at IS NOT NULL GROUP BY 1"
        )
    )


def test_rows_go_out_at_their_rate_and_t0_first(market, redis, wait_until):
    enqueue(market, Tier.T1, 5)
    enqueue(market, Tier.T0, 12)
    dispatch = dispatcher(
        market,
        redis,
        backfill_dispatch_rate_per_sec=10,
        backfill_max_concurrency_t0=50,
        backfill_batch_size=4,
    )
    seen: list[int] = []

    def step() -> bool:
        dispatch.step()
        seen.append(sum(pushed(market).values()))
        return seen[-1] == 17

    began = market.clock.monotonic()
    wait_until(step, seconds=10)
    took_s = market.clock.monotonic() - began
    # 17 rows at 10 a second, of which at most a second's worth may go at once.
    assert took_s >= 0.6
    assert all(later - earlier <= 10 for earlier, later in pairwise(seen))
    order = [
        tier
        for (tier,) in market.ask("SELECT tier FROM backfill_jobs ORDER BY dispatched_at, tier")
    ]
    assert order == ["T0"] * 12 + ["T1"] * 5
    assert 3 <= redis.llen("rq:queue:backfill:T0") <= 12, "a few rows to a job"


def test_no_more_rows_are_out_than_the_tier_may_run_twice_over(market, redis):
    enqueue(market, Tier.T0, 20)
    dispatch = dispatcher(market, redis, backfill_max_concurrency_t0=3)
    dispatch._allowance = 50.0
    for _ in range(3):
        dispatch.step()
    assert pushed(market) == {"T0": 6}


def test_rows_of_a_silent_worker_go_out_again(market, redis):
    (job_id,) = enqueue(market, Tier.T0, 1)
    assert backfill.claim(market.db, [job_id], "dead", 60, 8)
    market.ask("UPDATE backfill_jobs SET lease_expires = clock_timestamp() RETURNING 1")
    dispatch = dispatcher(market, redis)
    dispatch._allowance = 50.0
    dispatch.step()
    assert pushed(market) == {"T0": 1}
    assert redis.llen("rq:queue:backfill:T0") == 1


def test_who_does_not_lead_dispatches_nothing(market, redis):
    enqueue(market, Tier.T0, 1)
    first = dispatcher(market, redis)
    second = dispatcher(market, redis)
    second._allowance = 50.0
    second.step()
    assert pushed(market) == {}
    first._allowance = 50.0
    first.step()
    assert pushed(market) == {"T0": 1}


def test_a_lease_that_could_not_be_renewed_is_not_trusted_to_its_end(market, wait_until):
    leader = Leader(market.db, "one", ttl_s=0.6)
    other = Leader(market.db, "two", ttl_s=0.6)
    leader.step()
    assert leader.token() == 1
    other.step()
    assert other.token() is None
    began = market.clock.monotonic()
    wait_until(lambda: leader.token() is None, seconds=2)
    stepped_down_s = market.clock.monotonic() - began
    wait_until(lambda: other.step() > 0 and other.token() is not None, seconds=2)
    assert stepped_down_s < 0.6, "before the database gives the lease away"
    assert other.token() == 2
    leader.step()
    assert leader.token() is None


def test_a_resigned_lease_is_free_at_once(market):
    leader, heir = Leader(market.db, "one"), Leader(market.db, "two")
    leader.step()
    leader.resign()
    heir.step()
    assert heir.token() == 2


def test_a_row_whose_worker_fell_silent_goes_alone(market, redis, wait_until):
    ids = enqueue(market, Tier.T0, 4)
    backfill.claim(market.db, ids[1:3], "dead", 0.01, 8)
    wait_until(lambda: backfill.reap(market.db) == 2)
    dispatch = dispatcher(
        market, redis, backfill_batch_size=10, backfill_dispatch_rate_per_sec=1000
    )
    dispatch._allowance = 100.0

    dispatch.step()

    assert carried(redis) == [[ids[0], ids[3]], [ids[1]], [ids[2]]]


def carried(redis: Redis) -> list[list[int]]:
    """The rows of each job in the queue of T0, in its order."""
    found = []
    for job_id in cast("Any", redis).lrange("rq:queue:backfill:T0", 0, -1):
        packed = cast("Any", redis).hget(f"rq:job:{job_id.decode()}", "data")
        data = zlib.decompress(packed)
        found.append(json.loads(data)[2][0]["ids"])
    return found


def test_where_no_worker_takes_them_jobs_do_not_pile_up(market, redis):
    enqueue(market, Tier.T0, 3)
    dispatch = dispatcher(
        market, redis, backfill_dispatch_rate_per_sec=1000, backfill_max_concurrency_t0=2
    )
    for _ in range(20):
        dispatch.step()
        market.ask("UPDATE backfill_jobs SET dispatched_until = clock_timestamp() RETURNING 1")
    assert redis.llen("rq:queue:backfill:T0") <= 4


def test_a_leader_whose_sweep_hangs_gives_up_and_its_lease_runs_out(
    market, redis, wait_until, monkeypatch
):
    monkeypatch.setattr("scheduler.facts.HANGS_AFTER_S", 0.5)
    market.trade("NYSE")
    service = Service(
        Means(market.db, redis, settings_of(market.url, "redis://unused"), Telemetry())
    )
    with connect(market.url) as owner:
        with owner.transaction():
            owner.execute("LOCK TABLE sweep_slots IN ACCESS EXCLUSIVE MODE")
            service.start()
            wait_until(lambda: service.leader.token() is not None)
            wait_until(lambda: service.watch() is None and service.loop.stopping)
            failure = service.loop.failure
        assert "sweep hung" in str(failure)
        service.stop()
    assert market.ask("SELECT 1 FROM leader_lease WHERE expires_at > clock_timestamp()") == []
