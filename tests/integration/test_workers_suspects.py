"""Symbols whose answers kill workers: doubted, tried alone, left out; everybody else is served."""

from collections.abc import Iterator

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from core.errors import QueueError
from core.words import Capability, Tier
from db import inbox
from tests.workers_world import Scripted, World, at, every_minute, metric
from workers.collect import collect
from workers.queues import CollectJob, Kind
from workers.suspects import DOUBTED, LEFT_OUT_S, TRIALS, Standing, Suspects

pytestmark = pytest.mark.integration

BARS, QUOTES = Capability.BARS_1M, Capability.QUOTES_L1
BATCH = ("A", "B", "C")


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def suspects(redis: Redis) -> Suspects:
    return Suspects(redis)


@pytest.fixture
def world(database_url: str, redis_url: str) -> Iterator[World]:
    with World(database_url, redis_url, at("15:10:10")) as made:
        made.load(*BATCH)
        yield made


def kill_on_trial(suspects: Suspects, symbol: str) -> None:
    """What a process leaves behind that died in a trial: it never gets to the end of its block."""
    suspects._add(BARS, [symbol], trials=1)
    suspects.died(BARS, [symbol])


def leave_out(suspects: Suspects, symbol: str) -> None:
    for _ in range(DOUBTED):
        suspects.died(BARS, [symbol])
    for _ in range(TRIALS):
        kill_on_trial(suspects, symbol)


def job(symbols: tuple[str, ...] = BATCH, inbox_: dict[int, tuple[str, ...]] | None = None):
    return CollectJob(
        kind=Kind.BARS_1M,
        tier=Tier.T0,
        slot=at("15:10"),
        symbols=symbols,
        not_after=at("16:00"),
        start=at("15:05"),
        end=at("15:10"),
        inbox=inbox_,
    )


def test_one_death_is_remembered_and_changes_nothing(suspects: Suspects) -> None:
    suspects.died(BARS, ["A", "B"])

    assert suspects.look(BARS, BATCH) == Standing(BATCH, once=("A", "B"))
    suspects.clear(BARS, ["A"])
    assert suspects.look(BARS, BATCH).once == ("B",)
    assert suspects.look(QUOTES, BATCH) == Standing(BATCH)


def test_nobody_is_doubted_where_nobody_died(suspects: Suspects) -> None:
    assert suspects.look(BARS, BATCH) == Standing(BATCH)
    suspects.clear(BARS, BATCH)
    assert suspects.all_left_out() == {}


def test_a_second_death_makes_a_symbol_doubted_and_its_answer_ends_that(suspects: Suspects) -> None:
    suspects.died(BARS, ["A", "B"])
    suspects.died(BARS, ["B"])

    standing = suspects.look(BARS, BATCH)
    assert (standing.free, standing.doubted, standing.once) == (("A", "C"), ("B",), ("A",))

    with suspects.trial(BARS, "B", 0) as begun:
        assert begun
    assert suspects.look(BARS, BATCH).doubted == ()


def test_the_likeliest_culprit_is_tried_last(suspects: Suspects) -> None:
    for _ in range(DOUBTED):
        suspects.died(BARS, BATCH)
    kill_on_trial(suspects, "A")

    assert suspects.look(BARS, BATCH).doubted == ("B", "C", "A")


def test_who_died_in_two_trials_is_left_out_for_an_hour(suspects: Suspects, redis: Redis) -> None:
    leave_out(suspects, "B")

    assert suspects.look(BARS, BATCH) == Standing(("A", "C"), left_out=("B",))
    assert suspects.look(QUOTES, BATCH).left_out == ()
    (left,) = suspects.all_left_out()[BARS].items()
    assert left == ("B", pytest.approx(LEFT_OUT_S, abs=3))

    now = redis.time()[0]
    redis.hset("gapless:suspects", "bars_1m|B", f"4 2 {now}")
    assert suspects.look(BARS, BATCH) == Standing(BATCH, once=("B",))
    assert suspects.all_left_out() == {}
    suspects.died(BARS, ["B"])
    assert suspects.look(BARS, BATCH).once == ("B",), "it begins anew"


def test_trials_that_still_go_on_condemn_nobody(suspects: Suspects, redis_url: str) -> None:
    for _ in range(DOUBTED):
        suspects.died(BARS, ["B"])
    with Redis.from_url(redis_url) as other, suspects.trial(BARS, "B", 0):
        elsewhere = Suspects(other)
        with elsewhere.trial(BARS, "B", 0) as begun:
            assert begun
            assert elsewhere.look(BARS, BATCH).doubted == ("B",)


def test_a_process_has_one_trial_at_a_time(suspects: Suspects) -> None:
    with suspects.trial(BARS, "A", 0), suspects.trial(BARS, "B", 0.01) as begun:
        assert not begun
    with suspects.trial(BARS, "B", 0) as begun:
        assert begun


def test_an_error_in_a_trial_is_no_death(suspects: Suspects) -> None:
    for _ in range(DOUBTED):
        suspects.died(BARS, ["B"])
    with pytest.raises(ValueError, match="bad"), suspects.trial(BARS, "B", 0):
        raise ValueError("bad")
    assert suspects.look(BARS, BATCH) == Standing(BATCH)


def test_without_redis_nobody_is_doubted_and_no_trial_begins() -> None:
    with Redis(port=1, retry=Retry(NoBackoff(), 0)) as nowhere:
        suspects = Suspects(nowhere)
        assert suspects.look(BARS, BATCH) == Standing(BATCH)
        suspects.clear(BARS, BATCH)
        with suspects.trial(BARS, "A", 0) as begun:
            assert not begun
        with pytest.raises(RedisConnectionError):
            suspects.died(BARS, BATCH)
        with pytest.raises(QueueError):
            suspects.all_left_out()


def test_doubted_symbols_are_asked_alone_after_the_others(world: World) -> None:
    one = Scripted("one", world.clock, batch=3)
    context = world.context(one)
    for _ in range(DOUBTED):
        context.suspects.died(BARS, ["A", "B"])

    assert collect(context, job()) == {"asked": 3, "answered": 3, "failed": 0}

    assert [call.symbols for call in one.sent] == [("C",), ("A",), ("B",)]
    assert context.suspects.look(BARS, BATCH) == Standing(BATCH)
    assert all(len(world.stored(symbol)) == 5 for symbol in BATCH)


def test_a_batch_that_ends_clears_who_was_in_one_that_died(world: World) -> None:
    context = world.context(Scripted("one", world.clock))
    context.suspects.died(BARS, BATCH)

    collect(context, job())

    assert context.suspects.look(BARS, BATCH) == Standing(BATCH)


def test_who_is_left_out_is_not_asked_and_its_element_ends_with_the_reason(world: World) -> None:
    one = Scripted("one", world.clock, every_minute)
    context = world.context(one)
    leave_out(context.suspects, "B")
    kept = [
        inbox.Element(name, "market:jobs", b"{}", {}, "jobs", symbols)
        for name, symbols in (("x", BATCH), ("y", ("A", "C")))
    ]
    rows = inbox.receive(world.db, kept)
    inbox.dispatchable(world.db, 10, 30)

    collect(context, job(inbox_={rows["x"]: BATCH, rows["y"]: ("A", "C")}))

    assert sorted(one.asked()) == ["A", "C"]
    assert metric(context, "symbols_left_out_total", type="bars_1m", tier="T0") == 1
    assert world.rows("SELECT element_id, state, remaining, reason FROM rlc_inbox ORDER BY 1") == [
        ("x", "dead", [], "workers died each time they asked for B"),
        ("y", "done", [], None),
    ]
