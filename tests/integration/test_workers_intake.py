"""The coordinator's elements: taken once, answered or buried with a reason, whatever dies."""

import json
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest

from core.telemetry import Telemetry
from core.words import Capability, Tier
from db import backfill, inbox, universe
from providers.base import Call, Page
from tests.workers_world import Scripted, World, at, every_minute
from workers.backfill import backfill as run_backfill
from workers.collect import collect
from workers.intake import Intake, sources
from workers.queues import BackfillJob, CollectJob, Kind, depths
from workers.reference import Reference

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
JOBS = "market:jobs"
DEAD = f"{JOBS}:dead"
DEAD_LETTER = jsonschema.Draft202012Validator(
    json.loads((ROOT / "docs" / "contracts" / "dead-letter.schema.json").read_text())
)
WINDOW = {"start": "2024-03-05T15:00:00Z", "end": "2024-03-05T15:10:00Z"}


@pytest.fixture
def world(database_url: str, redis_url: str) -> Iterator[World]:
    with World(database_url, redis_url, at("16:00:00")) as made:
        made.load("A", "B", "C")
        yield made


@pytest.fixture
def intake(world: World) -> Intake:
    month = {capability: timedelta(days=30) for capability in Capability}
    return Intake(
        settings=world.settings(use_rlc=True),
        db=world.db,
        coordinator=world.redis,
        redis=world.redis,
        reference=Reference(world.db),
        telemetry=Telemetry(),
        stop=world.stop,
        providers={"one": month, "alphavantage": {}},
    )


def push(world: World, *elements: Any, key: str = JOBS) -> None:
    for element in elements:
        world.redis.lpush(key, element if isinstance(element, bytes) else json.dumps(element))


def element(**fields: Any) -> dict[str, Any]:
    return {"type": "bars_1m", "symbols": ["A"], **WINDOW, **fields}


def queued(world: World) -> list[CollectJob]:
    """Collect jobs in the queues, taken out."""
    redis: Any = world.redis
    found: list[CollectJob] = []
    for tier in Tier:
        while (taken := redis.lpop(f"rq:queue:collect:{tier}")) is not None:
            data = zlib.decompress(redis.hget(f"rq:job:{taken.decode()}", "data"))
            found.append(CollectJob.from_wire(json.loads(data)[2][0]))
    return found


def dead(world: World, key: str = DEAD) -> list[dict[str, str]]:
    entries = [json.loads(entry) for entry in world.redis.lrange(key, 0, -1)[::-1]]
    for entry in entries:
        DEAD_LETTER.validate(entry)
    return entries


def test_an_element_becomes_a_batch_and_is_done_when_it_is_answered(
    world: World, intake: Intake
) -> None:
    push(world, element(id="x-1", symbols=["A", "B"], tier="T1", note="kept"))

    intake.run(burst=True)

    assert world.redis.llen(JOBS) == 0
    assert world.rows("SELECT state, remaining, payload->>'note' FROM rlc_inbox") == [
        ("dispatched", ["A", "B"], "kept")
    ]
    (job,) = queued(world)
    assert (job.tier, job.kind, job.symbols) == (Tier.T1, Kind.BARS_1M, ("A", "B"))
    assert job.window.start == at("15:00:00")

    collect(world.context(Scripted("one", world.clock)), job)
    assert world.rows("SELECT state, remaining FROM rlc_inbox") == [("done", [])]
    assert len(world.stored("B")) == 10


def test_elements_that_ask_alike_share_a_batch(world: World, intake: Intake) -> None:
    push(
        world,
        element(id="1", symbols=["A"]),
        element(id="2", symbols=["B", "A"]),
        element(id="3", symbols=["C"], start="2024-03-05T14:50:00Z"),
        element(id="4", symbol="A", type="quotes_l1"),
    )

    intake.run(burst=True)

    jobs = queued(world)
    assert sorted((job.kind, job.symbols) for job in jobs) == [
        (Kind.BARS_1M, ("A", "B")),
        (Kind.BARS_1M, ("C",)),
        (Kind.QUOTES_L1, ("A",)),
    ]
    context = world.context(Scripted("one", world.clock))
    for job in jobs:
        if job.kind is Kind.BARS_1M:
            collect(context, job)
    assert world.rows("SELECT element_id, state FROM rlc_inbox ORDER BY element_id") == [
        ("1", "done"),
        ("2", "done"),
        ("3", "done"),
        ("4", "dispatched"),
    ]


def test_an_id_is_done_once(world: World, intake: Intake) -> None:
    push(world, element(id="x"), element(id="x", symbols=["B"]))
    intake.run(burst=True)
    push(world, element(id="x"))
    intake.run(burst=True)

    assert world.redis.llen(JOBS) == 0
    assert world.rows("SELECT element_id, remaining FROM rlc_inbox") == [("x", ["A"])]
    assert len(queued(world)) == 1


def test_elements_without_an_id_are_each_done(world: World, intake: Intake) -> None:
    push(world, element(), element())

    intake.run(burst=True)

    assert world.rows("SELECT count(*) FROM rlc_inbox") == [(2,)]


def test_intakes_take_turns_at_a_list_and_wait_for_nobody_who_stands_still(
    world: World, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = sources(world.settings())[0]
    push(world, element(), element())
    with inbox.turn(world.db, JOBS) as ours:
        assert ours
        assert intake.move(jobs) == 0, "another has the turn"
        assert intake.move(jobs) == 0
        assert world.redis.llen(JOBS) == 2
        monkeypatch.setattr("workers.intake._TURN_S", 0.0)
        assert intake.move(jobs) == 2, "whoever has it does nothing with it"

    push(world, element())
    monkeypatch.undo()
    assert intake.move(jobs) == 1, "the turn was given back"
    assert world.rows("SELECT count(*) FROM rlc_inbox") == [(3,)]


def test_who_stood_still_once_is_not_waited_for_with_each_hundred_elements(
    world: World, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = sources(world.settings())[0]
    push(world, element(), element(), element())
    monkeypatch.setattr("workers.intake.PEEK", 1)
    monkeypatch.setattr("workers.intake._TURN_S", 0.0)
    with inbox.turn(world.db, JOBS):
        assert [intake.move(jobs) for _ in range(5)] == [0, 1, 1, 1, 0]

    push(world, element())
    assert intake.move(jobs) == 1, "the turn was given back"


def test_a_key_that_holds_no_list_stops_only_itself(
    world: World, intake: Intake, caplog: pytest.LogCaptureFixture
) -> None:
    world.redis.set(JOBS, "?")
    push(world, element(id="b"), key="market:backfills:T2")

    intake.run(burst=True)
    intake.run(burst=True)

    assert world.rows("SELECT element_id FROM rlc_inbox") == [("b",)]
    assert caplog.text.count(f"{JOBS} is no list") == 1
    world.redis.delete(JOBS)
    push(world, element(id="x"))
    intake.run(burst=True)
    assert world.rows("SELECT count(*) FROM rlc_inbox") == [(2,)]


BAD: list[tuple[Any, str]] = [
    (b"{not json", "not JSON"),
    (b'"text"', "one JSON object"),
    (element(type="depth"), "type"),
    ({"type": "bars_1m"}, "symbols"),
    (element(symbols=["GHOST", "A"]), "GHOST"),
    (element(provider="nasdaq"), "nasdaq"),
    (element(start=WINDOW["end"], end=WINDOW["start"]), "not after its start"),
    (element(start="2024-03-05T17:00:00Z", end="2024-03-05T17:10:00Z"), "future"),
    (element(start="2024-01-05T15:00:00Z", end="2024-01-05T15:10:00Z"), "look-back"),
    (element(tier="T5"), "tier"),
    (element(interval="5m"), "5m"),
    (element(note="a\x00b"), "NUL"),
    (element(start="0001-01-01T00:00:00+23:59"), "beyond what a calendar holds"),
]


def test_a_bad_element_goes_to_the_dead_list_and_never_stops_the_line(
    world: World, intake: Intake
) -> None:
    raws = [json.dumps(bad).encode() if isinstance(bad, dict) else bad for bad, _ in BAD]
    for raw in raws:
        push(world, raw, element(symbols=["B"]))

    intake.run(burst=True)

    assert world.redis.llen(JOBS) == 0
    entries = dead(world)
    assert [entry["element"].encode() for entry in entries] == raws, "byte for byte, in order"
    for entry, (_, said) in zip(entries, BAD, strict=True):
        assert said in entry["reason"]
    assert world.rows("SELECT state, count(*) FROM rlc_inbox GROUP BY 1 ORDER BY 1") == [
        ("dead", len(BAD)),
        ("dispatched", len(BAD)),
    ]


def test_bytes_that_are_no_text_are_kept_too(world: World, intake: Intake) -> None:
    push(world, b"\xff\xfe\x00")

    intake.run(burst=True)

    (entry,) = dead(world)
    assert entry["element_base64"] == "//4A"


def test_backfill_lists_become_rows(world: World, intake: Intake) -> None:
    push(world, element(id="b-1", symbols=["A", "B"]), key="market:backfills:T2")
    push(world, element(id="b-2", type="quotes_l1"), key="market:backfills:T0")
    push(world, {"type": "bars_1m", "symbols": ["A"], "id": "b-3"}, key="market:backfills:T0")

    intake.run(burst=True)

    assert world.rows("SELECT origin, tier, state FROM backfill_jobs") == [
        ("coordinator", "T2", "pending"),
        ("coordinator", "T2", "pending"),
    ]
    assert world.redis.llen("market:backfills:T0:dead") == 2
    ids = [job for (job,) in world.rows("SELECT job_id FROM backfill_jobs")]
    context = world.context(Scripted("one", world.clock))
    run_backfill(context, BackfillJob(tier=Tier.T2, ids=tuple(ids), push=1))
    assert world.rows("SELECT state FROM rlc_inbox WHERE element_id = 'b-1'") == [("done",)]


def test_a_backfill_of_what_expires_anyway_is_refused(world: World) -> None:
    intake = Intake(
        settings=world.settings(use_rlc=True, candle_retention_days=30),
        db=world.db,
        coordinator=world.redis,
        redis=world.redis,
        reference=Reference(world.db),
        telemetry=Telemetry(),
        stop=world.stop,
        providers={"one": dict.fromkeys(Capability, None)},
    )
    key = "market:backfills:T1"
    old = {"start": "2023-03-06T15:00:00Z", "end": "2023-03-06T16:00:00Z"}
    push(world, element(**old), element(), key=key)

    intake.run(burst=True)

    assert "CANDLE_RETENTION_DAYS=30" in dead(world, f"{key}:dead")[0]["reason"]
    assert len(backfill.list_jobs(world.db)) == 1


def test_an_element_that_is_not_answered_is_dispatched_again(world: World, intake: Intake) -> None:
    push(world, element(id="x"))
    intake.run(burst=True)
    first = queued(world)
    world.redis.flushall()

    intake.dispatch()
    assert queued(world) == [], "its lease still holds"
    world.rows("UPDATE rlc_inbox SET lease_expires = '-infinity' RETURNING 1")
    intake.dispatch()

    (again,) = queued(world)
    assert again.symbols == first[0].symbols
    assert again.id != first[0].id, "the id of the lost job may still be taken"


def test_an_element_whose_job_waits_in_a_long_queue_is_not_pushed_again(
    world: World, intake: Intake
) -> None:
    push(world, element(id="x", symbols=["A", "B"]), element(id="y", start="2024-03-05T15:01:00Z"))
    intake.run(burst=True)
    waiting = depths(world.redis)["collect:T0"]
    world.rows("UPDATE rlc_inbox SET lease_expires = '-infinity' RETURNING 1")
    intake.dispatch()
    assert depths(world.redis)["collect:T0"] == waiting == 2
    assert world.rows("SELECT count(*) FROM rlc_inbox WHERE lease_expires > clock_timestamp()") == [
        (2,)
    ]

    # The job of one is begun and never ends: only that element comes again.
    [job] = cast("list[bytes]", world.redis.lrange("rq:queue:collect:T0", 0, 0))
    world.redis.hset(f"rq:job:{job.decode()}", "status", "started")
    world.rows("UPDATE rlc_inbox SET lease_expires = '-infinity' RETURNING 1")
    intake.dispatch()
    assert depths(world.redis)["collect:T0"] == 3


def test_a_backfill_whose_rows_are_kept_is_left_to_them(world: World, intake: Intake) -> None:
    push(world, element(id="b"), key="market:backfills:T0")
    push(world, element(id="x"))
    intake.run(burst=True)

    long = "lease_expires > clock_timestamp() + interval '3 minutes'"
    assert world.rows(f"SELECT element_id FROM rlc_inbox WHERE {long}") == [("b",)]


def test_a_backfill_of_several_symbols_is_not_asked_again_for_what_it_has(
    world: World, intake: Intake
) -> None:
    key = "market:backfills:T0"
    push(world, element(id="b", symbols=["A", "B"]), key=key)
    intake.run(burst=True)
    rows = dict(
        world.rows(
            "SELECT u.symbol, j.job_id FROM backfill_jobs j JOIN universe u USING (symbol_id)"
        )
    )
    context = world.context(Scripted("one", world.clock))
    run_backfill(context, BackfillJob(tier=Tier.T0, ids=(rows["A"],), push=1))

    world.rows("UPDATE rlc_inbox SET lease_expires = '-infinity' RETURNING 1")
    assert intake.dispatch() == 1

    assert sorted(backfill.states(world.db, list(rows.values())).values()) == ["done", "pending"]
    assert world.rows("SELECT count(*) FROM backfill_jobs") == [(2,)]
    run_backfill(context, BackfillJob(tier=Tier.T0, ids=(rows["B"],), push=2))
    assert inbox.counts(world.db) == {"done": 1}


def test_a_second_push_of_an_element_asks_only_for_what_the_first_did_not_answer(
    world: World, intake: Intake
) -> None:
    push(world, element(id="x", symbols=["A", "B"]))
    intake.run(burst=True)
    (first,) = queued(world)
    world.redis.flushall()
    world.rows("UPDATE rlc_inbox SET lease_expires = '-infinity' RETURNING 1")
    intake.dispatch()
    (second,) = queued(world)
    one = Scripted("one", world.clock)
    context = world.context(one)

    with world.db.transaction() as conn:
        assert first.inbox is not None
        inbox.answered(conn, {row: ["A"] for row in first.inbox})
    collect(context, second)
    collect(context, first)

    assert one.asked() == ["B"]
    assert inbox.counts(world.db) == {"done": 1}


def test_an_element_is_not_dispatched_again_while_its_job_runs(
    world: World, intake: Intake, monkeypatch: pytest.MonkeyPatch, wait_until
) -> None:
    monkeypatch.setattr("workers.collect._RENEW_S", 0.05)
    push(world, element(id="x"))
    intake.run(burst=True)
    (job,) = queued(world)
    run_out = "UPDATE rlc_inbox SET lease_expires = '-infinity' RETURNING 1"
    held = "SELECT 1 FROM rlc_inbox WHERE lease_expires > clock_timestamp()"
    dispatched: list[int] = []

    def slow(call: Call, asked_at: datetime) -> Page:
        dispatched.append(intake.dispatch())
        world.rows(run_out)
        wait_until(lambda: world.rows(held), what="the lease is renewed")
        return every_minute(call, asked_at)

    world.rows(run_out)
    collect(world.context(Scripted("one", world.clock, slow)), job)

    assert dispatched == [0], "the job took a lease when it began"
    assert inbox.counts(world.db) == {"done": 1}


def test_elements_wait_in_the_database_while_nobody_takes_their_jobs(
    world: World, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.dispatching.FULL", 2)
    for n in range(6):
        push(world, element(id=f"x-{n}", start=f"2024-03-05T15:0{n}:00Z"))
        intake.run(burst=True)

    assert depths(world.redis)["collect:T0"] == 2
    assert inbox.counts(world.db) == {"dispatched": 6}
    world.redis.flushall()
    world.rows("UPDATE rlc_inbox SET lease_expires = '-infinity' RETURNING 1")
    intake.dispatch()
    assert depths(world.redis)["collect:T0"] == 6, "none was given up"


def test_an_element_waits_for_a_calendar_that_is_about_to_be_published(
    world: World, intake: Intake
) -> None:
    universe.load(world.db, [("M", Tier.T0, "MARS", "")], "test", replace=False)
    push(world, {"type": "bars_1m", "symbol": "M", "id": "x"})
    push(world, {"type": "quotes_l1", "symbol": "M", "id": "q"})

    intake.run(burst=True)

    assert inbox.counts(world.db) == {"dispatched": 2}
    assert [job.kind for job in queued(world)] == [Kind.QUOTES_L1]


def test_an_element_that_a_newer_version_kept_is_left_to_it(world: World, intake: Intake) -> None:
    newer = {**element(id="n"), "v": 2}
    kept = inbox.Element("n", JOBS, json.dumps(newer).encode(), newer, "jobs", ["A"])
    inbox.receive(world.db, [kept])
    push(world, element(id="x"))

    intake.run(burst=True)

    assert [job.symbols for job in queued(world)] == [("A",)]
    assert inbox.counts(world.db) == {"dispatched": 2}, "its lease runs out, then another may try"
    assert dead(world) == []


def test_an_element_whose_time_is_over_expires(world: World, intake: Intake) -> None:
    push(world, element(id="x", not_after="2024-03-05T15:59:00Z"))

    intake.run(burst=True)

    assert inbox.counts(world.db) == {"expired": 1}
    assert depths(world.redis)["collect:T0"] == 0


def test_an_element_that_no_source_can_ever_answer_is_done_with_evidence(
    world: World, intake: Intake
) -> None:
    push(world, element(id="x"))
    intake.run(burst=True)
    (job,) = queued(world)

    collect(world.context(Scripted("one", world.clock, lookback=timedelta(minutes=5))), job)

    assert inbox.counts(world.db) == {"done": 1}
    assert world.rows("SELECT outcome, code FROM fetch_evidence") == [("failed", "bad_request")]


def test_bars_without_a_window_are_those_of_the_current_slot(world: World, intake: Intake) -> None:
    push(world, {"type": "bars_1m", "symbol": "A"}, {"type": "bars_eod", "symbol": "A"})

    intake.run(burst=True)

    jobs = {job.kind: job for job in queued(world)}
    assert jobs[Kind.BARS_1M].end == at("16:00:00")
    assert jobs[Kind.BARS_1M].start == at("15:58:00")
    assert (jobs[Kind.BARS_EOD].start, jobs[Kind.BARS_EOD].end) == (
        at("14:30:00") - timedelta(days=1),
        at("21:00:00") - timedelta(days=1),
    )


def test_a_provider_that_is_known_and_not_installed_is_no_mistake(
    world: World, intake: Intake
) -> None:
    push(world, element(id="x", provider="alphavantage"))

    intake.run(burst=True)

    assert inbox.counts(world.db) == {"dispatched": 1}


def test_killed_intakes_lose_nothing_and_double_nothing(
    world: World, redis_url: str, wait_until
) -> None:
    count, bad = 2000, 20
    pipe = world.redis.pipeline()
    for n in range(count):
        raw = json.dumps(element(id=f"x-{n}", symbols=["ABC"[n % 3]]))
        pipe.lpush(JOBS, f"{{broken {n}" if n % (count // bad) == 7 else raw)
    pipe.execute()
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "DATABASE_URL": world.database_url,
        "REDIS_URL": redis_url,
        "USE_RLC": "true",
        "METRICS_ENABLED": "false",
        "LOG_LEVEL": "ERROR",
    }

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("intake_process.py"))], env=environment
        )

    movers = [start(), start()]
    kills = 0
    try:
        while world.redis.llen(JOBS):
            left = world.redis.llen(JOBS)
            victim = movers[kills % 2]
            wait_until(lambda left=left: world.redis.llen(JOBS) < left, seconds=20)
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            kills += 1
            movers[(kills - 1) % 2] = start()
    finally:
        for mover in movers:
            mover.kill()
            mover.wait()

    assert kills >= 5
    assert world.rows(
        "SELECT count(*), count(DISTINCT element_id) FROM rlc_inbox WHERE state <> 'dead'"
    ) == [(count - bad, count - bad)]
    assert world.redis.llen(DEAD) == bad
    assert len({entry["element"] for entry in dead(world)}) == bad
    assert backfill.depth(world.db)[Tier.T0][0] == 0
