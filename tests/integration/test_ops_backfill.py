"""Waiting for backfill rows: how it ends, what it says, and that it never waits for nobody."""

from typing import Any

import pytest
import redis
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer

from core.words import Interval, Tier
from db import backfill
from db.backfill import Finish, NewJob
from db.pool import Database
from ops.backfill_wait import Waiting
from ops.cli import main
from tests.storage import OPEN, answer, bar, put, span, symbols
from workers.queues import working

pytestmark = pytest.mark.integration


def job(symbol_id: int, start: int = 0, end: int = 10, **more: Any) -> NewJob:
    return NewJob(symbol_id, Interval.M1, span(start, end), Tier.T0, "operator", **more)


def end(db: Database, job_id: int, state: str, reason: str | None = None) -> None:
    """A worker took the row and brought it to a state."""
    backfill.claim(db, [job_id], "w", 30.0, 8)
    with db.transaction() as conn:
        backfill.finish(conn, Finish(job_id, "w", state, reason))


@pytest.fixture
def worker(redis_url: str):
    """A worker of backfill:T0 as RQ lists it."""
    with redis.Redis.from_url(redis_url) as client:
        listed = SimpleWorker(
            [Queue("backfill:T0", connection=client, serializer=JSONSerializer)],
            connection=client,
            serializer=JSONSerializer,
        )
        listed.register_birth()
        yield listed


def test_rows_that_nobody_will_end_are_not_waited_for(db, symbol, redis_url, capsys) -> None:
    ids = backfill.enqueue(db, [job(symbol)])

    assert Waiting(db, redis_url, ids, grace_s=0).run(OPEN) == 1

    said = capsys.readouterr().err
    assert "no backfill worker of T0 is alive" in said
    assert "1 row left queued" in said


def test_without_a_leader_no_row_is_waited_for_either(
    db, symbol, redis_url, worker, capsys
) -> None:
    ids = backfill.enqueue(db, [job(symbol)])

    assert Waiting(db, redis_url, ids, grace_s=0).run(OPEN) == 1
    assert "no scheduler leads" in capsys.readouterr().err


def test_rows_that_are_held_back_are_not_waited_for(db, symbol, redis_url, worker, capsys) -> None:
    ids = backfill.enqueue(db, [job(symbol)])
    backfill.pause(db, ids)

    assert Waiting(db, redis_url, ids).run(OPEN) == 1
    assert "ops backfill resume" in capsys.readouterr().err


def test_a_worker_counts_while_it_is_heard_of(redis_url, worker) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert working(client)["backfill:T0"] == 1
        assert working(client)["backfill:T1"] == 0

        client.hset(worker.key, "last_heartbeat", "2026-01-01T00:00:00.000000Z")
        assert working(client)["backfill:T0"] == 0

        worker.register_death()
        assert working(client)["backfill:T0"] == 0


def test_the_end_says_how_many_bars_there_are_and_how_many_are_new(
    db, symbol, redis_url, capsys
) -> None:
    put(db, answer(symbol, [bar(0)]))
    ids = backfill.enqueue(db, [job(symbol)])
    since = db.clock.now()
    put(db, answer(symbol, [bar(0, 11.0), bar(1), bar(2)]), source="finnhub")
    end(db, ids[0], "done")

    assert Waiting(db, redis_url, ids).run(since) == 0
    assert capsys.readouterr().out == "1 done; 3 bars stored in these windows, 2 of them new\n"


def test_a_row_that_failed_says_why(db, symbol, redis_url, capsys) -> None:
    ids = backfill.enqueue(db, [job(symbol), job(symbol, 10, 20)])
    end(db, ids[0], "done")
    end(db, ids[1], "failed", "not_found: no such symbol")

    assert Waiting(db, redis_url, ids).run(OPEN) == 1
    assert "SPY tried once: not_found: no such symbol" in capsys.readouterr().err


def test_progress_through_a_pipe_names_the_last_reason(
    db, symbol, redis_url, worker, capsys
) -> None:
    ids = backfill.enqueue(db, [job(symbol), job(symbol, 10, 20)])
    end(db, ids[0], "done")
    end(db, ids[1], "pending", "unavailable: finnhub refused")

    Waiting(db, redis_url, ids, grace_s=0).run(OPEN)

    said = capsys.readouterr().err
    assert "1/2 rows ended" in said
    assert "SPY tried once: unavailable: finnhub refused" in said


def test_a_row_that_is_queued_already_is_found_again(db) -> None:
    ids = symbols(db, "SPY", "BAC")
    first = backfill.enqueue(db, [job(ids["SPY"])])
    backfill.enqueue(db, [job(ids["SPY"], provider="csv"), job(ids["SPY"], 0, 20)])

    assert backfill.same_open(db, [job(ids["SPY"]), job(ids["BAC"])]) == first

    end(db, first[0], "done")
    assert backfill.same_open(db, [job(ids["SPY"])]) == []


@pytest.mark.parametrize(
    ("verb", "state", "said"),
    [
        ("retry", "done", "row {id} is done; retry fits failed or cancelled rows"),
        ("pause", "failed", "row {id} is failed; pause fits pending rows"),
    ],
)
def test_a_change_that_fits_no_row_says_why(
    db, symbol, database_url, redis_url, monkeypatch, tmp_path, capsys, verb, state, said
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("GAPLESS_HOME", str(tmp_path))
    [job_id] = backfill.enqueue(db, [job(symbol)])
    end(db, job_id, state)

    assert main(["backfill", verb, str(job_id), "99"]) == 1

    printed = capsys.readouterr()
    assert printed.out == f"{verb}: 0 rows\n"
    assert said.format(id=job_id) in printed.err
    assert "there is no row 99" in printed.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--last such as 2h"),
        (["--start", "2026-11-18"], "--start and --end"),
        (["--last", "2h", "--start", "2026-11-18"], "one or the other"),
        (["--last", "soon"], "'soon'; expected a number with m, h or d"),
        (["--last", "0h"], "'0h'"),
    ],
)
def test_a_window_is_given_in_one_of_two_ways(
    db, database_url, monkeypatch, tmp_path, capsys, words, said
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("GAPLESS_HOME", str(tmp_path))
    symbols(db, "SPY", calendar="24/7")
    assert (
        main(["calendar", "publish", "24/7", "--start", "2026-01-01", "--end", "2026-01-02"]) == 0
    )

    assert main(["enqueue-backfill", "SPY", "--interval", "1m", *words]) == 2
    assert said in capsys.readouterr().err
