"""The queue worker under real deaths: nothing lost, nothing stuck, nothing that stops the line."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from rq import Queue, Retry
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import now as rq_now

from core.clock import SystemClock
from core.errors import BadJobError
from core.words import Tier
from workers.orphans import Orphans
from workers.queues import (
    COLLECT_FUNCTION,
    RETRIES,
    CollectJob,
    Kind,
    connect,
    depths,
    enqueue_collect,
)
from workers.recovery import LEASE_S, Recovery
from workers.stopping import Stop
from workers.worker import BatchWorker

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
SLOT = datetime(2024, 3, 5, 15, 0, tzinfo=UTC)
QUEUE = "collect:T0"

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def start(redis_url: str, redis: Redis, wait_until, tmp_path: Path) -> Iterator[Start]:
    """Starts queue workers; all are gone after the test."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(wrong_by_s: int = 0, **environment: str) -> subprocess.Popen[bytes]:
        redis.delete("ready")
        with (tmp_path / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                [
                    sys.executable,
                    str(Path(__file__).with_name("worker_process.py")),
                    redis_url,
                    QUEUE,
                    str(wrong_by_s),
                ],
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
                stderr=log,
            )
        running.append(process)
        wait_until(lambda: redis.exists("ready"), what="the worker is ready")
        return process

    yield begin
    for process in running:
        process.kill()
        process.wait()


def job(part: int, *symbols: str) -> CollectJob:
    return CollectJob(
        kind=Kind.QUOTES_L1,
        tier=Tier.T0,
        slot=SLOT,
        symbols=symbols or ("A",),
        not_after=SLOT,
        part=part,
    )


def ids(redis: Any, key: str) -> list[str]:
    return [entry.decode() for entry in redis.lrange(key, 0, -1)]


def failed(redis: Any) -> list[str]:
    return [entry.decode() for entry in redis.zrange(f"rq:failed:{QUEUE}", 0, -1)]


def reason(redis: Redis, job_id: str) -> str:
    result = Job.fetch(job_id, connection=redis, serializer=JSONSerializer).latest_result()
    assert result is not None
    return str(result.exc_string)


def test_pushing_a_job_twice_runs_it_once(redis: Redis, start: Start, wait_until) -> None:
    assert enqueue_collect(redis, [job(1), job(2)]) == 2
    assert enqueue_collect(redis, [job(2), job(3)]) == 1
    assert depths(redis)[QUEUE] == 3

    start()
    wait_until(lambda: redis.llen("done") == 3)
    assert enqueue_collect(redis, [job(1)]) == 0, "a finished id stays taken for a while"

    assert sorted(ids(redis, "begun")) == [job(part).id for part in (1, 2, 3)]


def test_rq_reads_what_was_pushed(redis: Redis) -> None:
    enqueue_collect(redis, [job(1, "AAPL", "MSFT")])

    (found,) = Queue(QUEUE, connection=redis, serializer=JSONSerializer).jobs

    assert found.func_name == COLLECT_FUNCTION
    assert CollectJob.from_wire(found.args[0]) == job(1, "AAPL", "MSFT")
    assert (found.timeout, found.result_ttl, found.failure_ttl) == (60, 60, 86_400)
    assert found.retries_left == RETRIES
    assert found.get_status() == "queued"
    assert redis.ttl(found.key) > 3600, "a hint that nobody takes is forgotten one day"


def test_several_batches_run_at_once(redis: Redis, start: Start, wait_until) -> None:
    start()
    enqueue_collect(redis, [job(part, "UNTIL:go") for part in range(5)])

    wait_until(lambda: redis.llen("begun") == 4, what="four slots are taken")
    assert depths(redis)[QUEUE] == 1, "the fifth waits in Redis, not in the process"
    redis.set("go", 1)
    wait_until(lambda: redis.llen("done") == 5)


def test_the_jobs_of_a_killed_worker_are_run_by_another(
    redis: Redis, start: Start, wait_until
) -> None:
    first = start()
    enqueue_collect(redis, [job(part, "UNTIL:go") for part in range(3)])
    wait_until(lambda: redis.llen("begun") == 3)

    first.kill()
    first.wait()
    redis.set("go", 1)
    start()

    wait_until(lambda: redis.llen("done") == 3, seconds=20, what="found within the lease")
    assert sorted(ids(redis, "done")) == [job(part).id for part in range(3)]
    wait_until(lambda: redis.zcard(f"rq:wip:{QUEUE}") == 0)


def test_a_job_taken_by_a_worker_that_died_before_it_began_is_run(
    redis: Redis, start: Start, wait_until
) -> None:
    enqueue_collect(redis, [job(1)])
    assert redis.lmove(f"rq:queue:{QUEUE}", f"rq:queue:{QUEUE}:intermediate") is not None

    start()

    wait_until(lambda: redis.llen("done") == 1, seconds=15)
    assert redis.llen(f"rq:queue:{QUEUE}:intermediate") == 0


def test_a_job_that_kills_its_worker_each_time_is_put_aside(
    redis: Redis, start: Start, wait_until
) -> None:
    enqueue_collect(redis, [job(1, "UNTIL:never")])
    redis.hset(f"rq:job:{job(1).id}", "retries_left", 0)
    start_one = start()
    wait_until(lambda: redis.llen("begun") == 1)
    start_one.kill()
    start_one.wait()

    start()

    wait_until(lambda: failed(redis) == [job(1).id], seconds=20)
    assert "died each time" in reason(redis, job(1).id)
    assert redis.llen("begun") == 1


def raw_job(redis: Redis, job_id: str, function: str, *args: object) -> None:
    made = Job.create(
        function,
        args=args,
        connection=redis,
        id=job_id,
        origin=QUEUE,
        timeout=60,
        retry=Retry(max=2),
        serializer=JSONSerializer,
    )
    made.save()
    redis.rpush(f"rq:queue:{QUEUE}", job_id)


def test_a_job_of_another_world_is_put_aside_with_its_reason(
    redis: Redis, start: Start, wait_until, tmp_path: Path
) -> None:
    start()
    raw_job(redis, "version", COLLECT_FUNCTION, {"v": 9})
    raw_job(redis, "kind", COLLECT_FUNCTION, {**job(1).to_wire(), "kind": "depth_l2"})
    raw_job(redis, "function", "workers.jobs.settle", {})
    raw_job(redis, "evil", "os.system", f"touch {tmp_path}/evil")
    raw_job(redis, "arguments", COLLECT_FUNCTION, {}, {})
    redis.hset("rq:job:bytes", mapping={"data": b"\x00", "origin": QUEUE, "status": "queued"})
    redis.rpush(f"rq:queue:{QUEUE}", "bytes")
    redis.hset("rq:job:status", mapping={"data": b"[]", "status": "napping"})
    redis.rpush(f"rq:queue:{QUEUE}", "status")
    redis.set("rq:job:string", "?")
    redis.rpush(f"rq:queue:{QUEUE}", "string", "nothing", b"\xff\xfe")
    enqueue_collect(redis, [job(7)])

    wait_until(lambda: ids(redis, "done") == [job(7).id], what="the line goes on")
    expected = ["arguments", "bytes", "evil", "function", "kind", "version"]
    wait_until(lambda: sorted(failed(redis)) == expected)
    assert "version 9" in reason(redis, "version")
    assert "depth_l2" not in reason(redis, "version")
    assert "kind" in reason(redis, "kind")
    assert "workers.jobs.settle" in reason(redis, "function")
    assert "not JSON" in reason(redis, "bytes")
    assert not (tmp_path / "evil").exists(), "nothing is imported by a name from Redis"
    assert redis.exists("rq:job:status:unreadable", "rq:job:string:unreadable") == 2
    assert depths(redis)[QUEUE] == 0
    assert redis.llen(f"rq:queue:{QUEUE}:intermediate") == 0
    assert ids(redis, "begun") == [job(7).id], "none was tried twice"


def test_a_bug_is_tried_again_and_then_put_aside(redis: Redis, start: Start, wait_until) -> None:
    start()
    enqueue_collect(redis, [job(1, "BUG"), job(2)])

    wait_until(lambda: failed(redis) == [job(1).id])
    assert ids(redis, "begun").count(job(1).id) == 1 + RETRIES
    assert ids(redis, "done") == [job(2).id]
    assert "RuntimeError: a bug" in reason(redis, job(1).id)


def test_a_stop_lets_batches_finish_and_takes_no_new_one(
    redis: Redis, start: Start, wait_until
) -> None:
    worker = start()
    enqueue_collect(redis, [job(part, "SLEEP:0.5") for part in range(4)])
    wait_until(lambda: redis.llen("begun") == 4)

    worker.terminate()
    enqueue_collect(redis, [job(9)])

    assert worker.wait(timeout=5) == 0
    assert sorted(ids(redis, "done")) == [job(part).id for part in range(4)]
    assert ids(redis, f"rq:queue:{QUEUE}") == [job(9).id]
    assert redis.scard("rq:workers") == 0


def test_a_stop_hands_back_what_can_not_finish(redis: Redis, start: Start, wait_until) -> None:
    worker = start()
    enqueue_collect(redis, [job(1, "PATIENT:go"), job(2, "UNTIL:go")])
    wait_until(lambda: redis.llen("begun") == 2)

    worker.terminate()
    worker.send_signal(signal.SIGTERM)
    worker.send_signal(signal.SIGINT)

    assert worker.wait(timeout=5) == 7, "one thread hung until the end of the grace"
    assert sorted(ids(redis, f"rq:queue:{QUEUE}")) == [job(1).id, job(2).id]
    assert redis.zcard(f"rq:wip:{QUEUE}") == 0
    for part in (1, 2):
        assert redis.hget(f"rq:job:{job(part).id}", "retries_left") == str(RETRIES).encode()

    redis.set("go", 1)
    start()
    wait_until(lambda: sorted(ids(redis, "done")) == [job(1).id, job(2).id])


def test_a_flush_costs_neither_the_worker_nor_its_place_in_the_list(
    redis: Redis, start: Start, wait_until
) -> None:
    start()
    enqueue_collect(redis, [job(1, "UNTIL:go")])
    wait_until(lambda: redis.llen("begun") == 1)
    assert redis.scard("rq:workers") == 1

    redis.flushall()
    redis.set("go", 1)

    wait_until(lambda: redis.llen("done") == 1, what="the batch in hand is finished")
    wait_until(lambda: redis.scard("rq:workers") == 1, what="it is listed again")
    enqueue_collect(redis, [job(2)])
    wait_until(lambda: redis.llen("done") == 2)
    wait_until(
        lambda: all(0 < redis.ttl(key) <= 60 for key in redis.scan_iter("rq:job:*")),
        what="what a flushed job leaves behind goes by itself",
    )


def test_a_redis_that_is_away_is_waited_for(
    redis: Redis, redis_server, start: Start, wait_until, tmp_path: Path
) -> None:
    start()
    log = tmp_path / "worker.log"

    os.kill(redis_server.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: "Redis is lost" in log.read_text(), seconds=60)
    finally:
        os.kill(redis_server.pid, signal.SIGCONT)

    enqueue_collect(redis, [job(1)])
    wait_until(lambda: redis.llen("done") == 1, seconds=15)
    assert "Redis is back" in log.read_text()
    assert "Traceback" not in log.read_text()


def lasting(redis: Redis) -> list[bytes]:
    """Hashes of jobs, executions and workers that would never end by themselves."""
    keys = [key for kind in ("job", "execution", "executions") for key in found(redis, kind)]
    return [key for key in keys if redis.ttl(key) == -1]


def found(redis: Redis, kind: str) -> list[bytes]:
    return list(redis.scan_iter(f"rq:{kind}:*"))


def test_a_job_whose_worker_died_between_listing_and_starting_it_is_run(
    redis: Redis, start: Start, wait_until
) -> None:
    enqueue_collect(redis, [job(1)])
    redis.lmove(f"rq:queue:{QUEUE}", f"rq:queue:{QUEUE}:intermediate")
    redis.zadd(f"rq:wip:{QUEUE}", {f"{job(1).id}:execution": redis.time()[0] - 1})

    start()

    wait_until(lambda: redis.llen("done") == 1, seconds=15)
    assert ids(redis, "begun") == [job(1).id]
    assert redis.hget(f"rq:job:{job(1).id}", "retries_left") == str(RETRIES).encode(), (
        "no fault of the job"
    )
    # The batch says that it is done a moment before its worker has written that down.
    wait_until(lambda: redis.zcard(f"rq:wip:{QUEUE}") == 0)
    assert redis.llen(f"rq:queue:{QUEUE}:intermediate") == 0


def test_jobs_that_stand_in_no_list_are_found(redis: Redis, start: Start, wait_until) -> None:
    enqueue_collect(redis, [job(part) for part in (1, 2, 3, 4)])
    # What a Redis that lost a part of itself may come back with.
    for part in (1, 2, 3):
        redis.lrem(f"rq:queue:{QUEUE}", 1, job(part).id)
    redis.hset(f"rq:job:{job(2).id}", "status", "started")
    redis.hset(f"rq:job:{job(3).id}", mapping={"status": "started", "retries_left": 0})
    redis.persist(f"rq:job:{job(3).id}")
    rest = f"rq:job:{job(5).id}"
    redis.hset(rest, "status", "started")
    redis.hset("rq:worker:collect-T0-gone", "state", "busy")

    start()

    expected = sorted(job(part).id for part in (1, 2, 4))
    wait_until(lambda: sorted(ids(redis, "done")) == expected, seconds=15)
    wait_until(lambda: failed(redis) == [job(3).id])
    wait_until(lambda: 0 < redis.ttl(rest) <= 60, what="nothing can be run of it")
    wait_until(lambda: redis.ttl("rq:worker:collect-T0-gone") > 0)
    wait_until(lambda: lasting(redis) == [])


def test_a_look_for_orphans_pushes_no_job_that_is_taken_care_of(
    redis: Redis, start: Start, wait_until
) -> None:
    start()
    enqueue_collect(redis, [job(part, "UNTIL:go") for part in range(6)])
    wait_until(lambda: redis.llen("begun") == 4)
    finder = Orphans(QUEUE, redis, lambda *_: pytest.fail("no job died"))
    redis.delete(f"gapless:orphans:{QUEUE}")

    finder.run()

    assert depths(redis)[QUEUE] == 2
    redis.set("go", 1)
    wait_until(lambda: redis.llen("done") == 6)
    assert redis.llen("begun") == 6


def test_a_long_walk_for_orphans_costs_no_running_job_its_lease(
    redis: Redis, redis_url: str, wait_until, monkeypatch: pytest.MonkeyPatch
) -> None:
    walking, go = threading.Event(), threading.Event()

    def walk(_orphans: Orphans) -> None:
        walking.set()
        go.wait(60)

    monkeypatch.setattr(Orphans, "run", walk)
    clock = SystemClock()
    stop = Stop(clock)
    worker = BatchWorker(
        QUEUE, {COLLECT_FUNCTION: lambda _: go.wait(60)}, connect(redis_url), clock, stop, slots=1
    )
    loop = threading.Thread(target=worker.run)
    loop.start()
    try:
        assert walking.wait(10)
        enqueue_collect(redis, [job(1)])

        def leases() -> Any:
            return [until for _, until in redis.zrange(f"rq:wip:{QUEUE}", 0, -1, withscores=True)]

        wait_until(leases, what="the job runs")
        first = leases()
        wait_until(lambda: leases() > first, what="its lease is renewed")
    finally:
        go.set()
        stop.request()
        loop.join(timeout=20)
    assert not loop.is_alive()


def test_a_batch_that_hangs_ends_its_process_and_counts_as_a_death(
    redis: Redis, start: Start, wait_until, tmp_path: Path
) -> None:
    enqueue_collect(redis, [job(1, "UNTIL:go")])
    redis.hset(f"rq:job:{job(1).id}", "timeout", 1)

    worker = start()

    assert worker.wait(timeout=15) == 7
    assert "batch hangs" in (tmp_path / "worker.log").read_text()
    assert redis.zcard(f"rq:wip:{QUEUE}") == 1, "not handed back as if nothing had happened"
    redis.set("go", 1)
    start()
    wait_until(lambda: redis.llen("done") == 1, seconds=20)
    assert redis.hget(f"rq:job:{job(1).id}", "retries_left") == str(RETRIES - 1).encode()


def test_a_stopped_worker_that_wakes_up_after_its_job_was_run_elsewhere_harms_nothing(
    redis: Redis, start: Start, wait_until
) -> None:
    first = start()
    enqueue_collect(redis, [job(1, "UNTIL:go")])
    wait_until(lambda: redis.llen("begun") == 1)
    first.send_signal(signal.SIGSTOP)
    redis.set("go", 1)
    start()
    wait_until(lambda: redis.llen("done") == 1, seconds=20, what="another has run it")

    first.send_signal(signal.SIGCONT)

    wait_until(lambda: redis.llen("done") == 2, what="its own run ends too")
    enqueue_collect(redis, [job(2)])
    wait_until(lambda: redis.llen("done") == 3)
    assert failed(redis) == []
    assert depths(redis)[QUEUE] == 0
    wait_until(lambda: redis.zcard(f"rq:wip:{QUEUE}") == 0)
    wait_until(lambda: lasting(redis) == [])
    first.terminate()
    assert first.wait(timeout=5) == 0


def test_a_worker_whose_clock_is_behind_keeps_its_jobs(
    redis: Redis, start: Start, wait_until
) -> None:
    start(wrong_by_s=-3600)
    enqueue_collect(redis, [job(1, "UNTIL:go")])
    wait_until(lambda: redis.llen("begun") == 1)
    cleaner = Recovery(
        Queue(QUEUE, connection=redis, serializer=JSONSerializer),
        redis,
        SystemClock(),
        lambda *_: pytest.fail("no job died"),
        lambda *_: pytest.fail("no job died"),
    )
    # Its heart has beaten since, by RQ's bookkeeping as well as by ours.
    heard = redis.hget(next(redis.scan_iter("rq:execution:*")), "last_heartbeat")
    wait_until(
        lambda: redis.hget(next(redis.scan_iter("rq:execution:*")), "last_heartbeat") != heard
    )

    wait_until(lambda: redis.zrange(f"rq:wip:{QUEUE}", f"({redis.time()[0]}", "+inf", byscore=True))
    cleaner.run()

    assert depths(redis)[QUEUE] == 0
    redis.set("go", 1)
    wait_until(lambda: redis.llen("done") == 1)
    assert redis.llen("begun") == 1


def test_a_dead_worker_whose_clock_was_ahead_keeps_no_job(
    redis: Redis, start: Start, wait_until
) -> None:
    first = start(wrong_by_s=3600)
    enqueue_collect(redis, [job(1, "UNTIL:go")])
    wait_until(lambda: redis.llen("begun") == 1)
    first.kill()
    first.wait()
    redis.set("go", 1)

    start()

    wait_until(lambda: redis.llen("done") == 1, seconds=20, what="found within the lease")


def test_workers_killed_at_random_instants_leave_no_job_behind(
    redis: Redis, start: Start, wait_until
) -> None:
    count, draws, clock = 300, random.Random(7), SystemClock()
    enqueue_collect(redis, [job(part, "SLEEP:0.25") for part in range(count)])
    workers = [start(), start()]
    for kill in range(10):
        clock.sleep(draws.uniform(0.0, 0.3))
        workers[kill % 2].kill()
        workers[kill % 2].wait()
        workers[kill % 2] = start()

    def ended() -> set[str]:
        return {*ids(redis, "done"), *failed(redis)}

    wait_until(lambda: len(ended()) == count, seconds=40)
    # Only a job that was in hand at three of the deaths may be put aside.
    assert len(failed(redis)) <= 1
    wait_until(lambda: redis.zcard(f"rq:wip:{QUEUE}") == 0, seconds=20)
    wait_until(lambda: redis.llen(f"rq:queue:{QUEUE}:intermediate") == 0, seconds=20)
    wait_until(lambda: depths(redis)[QUEUE] == 0)
    wait_until(lambda: lasting(redis) == [], seconds=20)
    # What was begun more than once is what was in the hands of the dead.
    again = redis.llen("begun") - count
    assert again <= 10 * 4


def in_process(redis_url: str, run: Callable[[object], object], died: list[str]) -> BatchWorker:
    """A worker in this process; deaths are told to a list."""
    clock = SystemClock()
    worker = BatchWorker(
        QUEUE,
        {COLLECT_FUNCTION: run},
        connect(redis_url),
        clock,
        Stop(clock, finish_s=0.1, grace_s=0.5),
        slots=1,
        on_death={COLLECT_FUNCTION: lambda _payload, word: died.append(word)},
    )
    worker.birth_date = rq_now()
    worker._judges_from = 0.0
    return worker


def test_a_worker_that_begins_lets_the_others_vouch_before_it_judges(
    redis: Redis, redis_url: str
) -> None:
    clock, died = SystemClock(), list[str]()
    worker = in_process(redis_url, lambda _: None, died)
    fresh = BatchWorker(
        QUEUE, {}, worker.connection, clock, Stop(clock, finish_s=0.1, grace_s=0.5), slots=1
    )
    assert fresh._judges_from > clock.monotonic()


def left_behind(redis: Redis, one: CollectJob, until_s: float) -> str:
    """A job as a worker leaves it that died while it ran."""
    enqueue_collect(redis, [one])
    redis.lrem(f"rq:queue:{QUEUE}", 1, one.id)
    redis.hset(f"rq:job:{one.id}", "status", "started")
    redis.zadd(f"rq:wip:{QUEUE}", {f"{one.id}:x": redis.time()[0] + until_s})
    return f"{one.id}:x"


def test_a_job_whose_end_could_not_be_told_runs_again_and_was_no_death(
    redis: Redis, redis_url: str, wait_until, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, ran, died = SystemClock(), list[float](), list[str]()
    away = threading.Event()

    def run(_payload: object) -> object:
        ran.append(clock.monotonic())
        if len(ran) == 1:
            # Longer than the client's own patience.
            away.set()
            threading.Timer(2.5, away.clear).start()
        return {}

    worker = in_process(redis_url, run, died)
    pool = worker.connection.connection_pool
    connected = pool.get_connection

    def refusing(*words: Any, **named: Any) -> Any:
        if away.is_set():
            raise RedisConnectionError("refused")
        return connected(*words, **named)

    monkeypatch.setattr(pool, "get_connection", refusing)
    enqueue_collect(redis, [job(1)])
    thread = threading.Thread(target=worker.run)
    thread.start()

    wait_until(lambda: len(ran) == 2, seconds=20, what="it runs again")
    wait_until(lambda: redis.hget(f"rq:job:{job(1).id}", "status") == b"finished")
    assert ran[1] - ran[0] < LEASE_S, "handed back, not found by its lease"
    assert redis.hget(f"rq:job:{job(1).id}", "retries_left") == str(RETRIES).encode()
    assert died == []
    worker._stop.request()
    thread.join()


def test_whoever_was_cut_off_lets_the_others_vouch_before_it_judges(
    redis: Redis, redis_url: str
) -> None:
    died: list[str] = []
    worker = in_process(redis_url, lambda _: None, died)
    execution = left_behind(redis, job(1), until_s=-5)

    worker._kept_house -= 60
    worker._keep_house()
    assert died == []
    assert redis.zscore(f"rq:wip:{QUEUE}", execution) is not None

    worker._judges_from = 0.0
    worker._keep_house()
    assert died == [execution]
    assert depths(redis)[QUEUE] == 1


def test_a_death_of_which_nothing_can_be_read_stops_no_recovery(
    redis: Redis, redis_url: str
) -> None:
    def unreadable(_payload: object, _word: str) -> None:
        raise BadJobError("of another version")

    worker = in_process(redis_url, lambda _: None, [])
    worker._on_death = {COLLECT_FUNCTION: unreadable}
    left_behind(redis, job(1), until_s=-5)
    redis.hset(f"rq:job:{job(1).id}", "retries_left", 0)
    left_behind(redis, job(2), until_s=-5)

    worker._keep_house()

    assert failed(redis) == [job(1).id]
    assert ids(redis, f"rq:queue:{QUEUE}") == [job(2).id]


def test_a_lease_that_reaches_too_far_ends_when_nobody_vouches_for_it(redis: Redis) -> None:
    class Hands(SystemClock):
        at = 0.0

        def monotonic(self) -> float:
            return self.at

    clock, died = Hands(), list[str]()
    queue = Queue(QUEUE, connection=redis, serializer=JSONSerializer)
    recovery = Recovery(
        queue, redis, clock, lambda *_: None, lambda _job, execution: died.append(execution)
    )
    dead, alive = (left_behind(redis, job(part), until_s=3 * 3600) for part in (1, 2))

    for clock.at in (0.0, LEASE_S - 1):
        recovery.run()
        recovery.vouch([alive])
    assert died == []
    for clock.at in (LEASE_S, LEASE_S + 2):
        recovery.run()

    assert died == [dead]
    assert ids(redis, f"rq:queue:{QUEUE}") == [job(1).id]


def test_a_process_whose_threads_get_no_turn_any_more_ends(
    redis: Redis, start: Start, tmp_path: Path, wait_until
) -> None:
    worker = start(FROZEN_S="2")
    enqueue_collect(redis, [job(1, "SLEEP:3")])
    wait_until(
        lambda: redis.llen("done") == 1, what="a batch that lets others have theirs is no matter"
    )

    enqueue_collect(redis, [job(2, "FREEZE")])

    assert worker.wait(timeout=20) == 1
    assert "Timeout" in (tmp_path / "worker.log").read_text()
