"""Symbols whose answers kill workers: doubted, tried alone, left out; everybody else is served."""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import orjson
import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from core.errors import ProviderTimeoutError, QueueError
from core.words import Interval, Tier
from db import backfill as table
from db import inbox
from db.backfill import NewJob
from ops.cli import main
from providers.base import Call, Page
from tests.workers_world import Scripted, World, at, every_minute, metric, refusing, window
from workers.backfill import backfill
from workers.collect import collect
from workers.queues import DEATHS_ON_TRIAL, DEATHS_TO_DOUBT, BackfillJob, CollectJob, Kind
from workers.suspects import LEFT_OUT_S, Standing, Suspects, family

pytestmark = pytest.mark.integration

BARS, QUOTES = "bars_1m", "quotes_l1"
BATCH = ("A", "B", "C")


@pytest.fixture(autouse=True)
def _deaths_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test does not wait between two deaths."""
    monkeypatch.setattr("workers.suspects.SAME_S", 0)


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


def die(suspects: Suspects, *symbols: str, of: str = BARS) -> None:
    suspects.died(of, symbols, uuid.uuid4().hex)


def doubt(suspects: Suspects, *symbols: str, of: str = BARS) -> None:
    for _ in range(DEATHS_TO_DOUBT):
        die(suspects, *symbols, of=of)


def die_on_trial(suspects: Suspects, symbol: str, of: str = BARS) -> None:
    """What a process leaves behind that died in a trial: it never got to the end of its block."""
    suspects._note("trial", uuid.uuid4().hex, of, [symbol])
    die(suspects, symbol, of=of)


def leave_out(suspects: Suspects, symbol: str, of: str = BARS) -> None:
    doubt(suspects, symbol, of=of)
    for _ in range(DEATHS_ON_TRIAL):
        die_on_trial(suspects, symbol, of)


def job(
    symbols: tuple[str, ...] = BATCH,
    inbox_: dict[int, tuple[str, ...]] | None = None,
    not_after: datetime | None = None,
) -> CollectJob:
    return CollectJob(
        kind=Kind.BARS_1M,
        tier=Tier.T0,
        slot=at("15:10"),
        symbols=symbols,
        not_after=not_after or at("16:00"),
        start=at("15:05"),
        end=at("15:10"),
        inbox=inbox_,
    )


def test_one_death_is_remembered_and_changes_nothing(suspects: Suspects) -> None:
    die(suspects, "A", "B")

    assert suspects.look(BARS, BATCH) == Standing(BATCH, once=frozenset("AB"))
    suspects.clear(BARS, ["A"])
    assert suspects.look(BARS, BATCH).once == {"B"}
    assert suspects.look(QUOTES, BATCH) == Standing(BATCH)


def test_nobody_is_doubted_where_nobody_died(suspects: Suspects) -> None:
    assert suspects.look(BARS, BATCH) == Standing(BATCH)
    assert suspects.look(BARS, ()) == Standing(())
    suspects.clear(BARS, BATCH)
    assert suspects.all_left_out() == {}


def test_a_second_death_makes_a_symbol_doubted_and_an_ask_ends_that(suspects: Suspects) -> None:
    die(suspects, "A", "B")
    die(suspects, "B")

    standing = suspects.look(BARS, BATCH)
    assert (standing.free, standing.doubted, standing.once) == (("A", "C"), (("B",),), {"A"})

    with suspects.trial(BARS, ["B"], 0) as trial:
        assert trial.mine
        trial.begin()
        trial.survived = {"B"}
    assert suspects.look(BARS, BATCH).doubted == ()


def test_a_death_that_is_told_twice_counts_once(suspects: Suspects) -> None:
    suspects.died(BARS, BATCH, "job:execution")
    suspects.died(BARS, BATCH, "job:execution")

    assert suspects.look(BARS, BATCH).once == set(BATCH)


def test_a_process_that_died_with_two_jobs_of_a_symbol_died_once(
    suspects: Suspects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.suspects.SAME_S", 5)
    die(suspects, *BATCH)
    die(suspects, *BATCH)

    assert suspects.look(BARS, BATCH).once == set(BATCH)


def test_the_likeliest_culprit_is_tried_last(suspects: Suspects) -> None:
    doubt(suspects, *BATCH)
    die_on_trial(suspects, "A")

    assert suspects.look(BARS, BATCH).doubted == (("B", "C"), ("A",))


def test_those_of_a_first_trial_are_asked_together_ten_at_a_time(suspects: Suspects) -> None:
    many = [f"S{n}" for n in range(25)]
    doubt(suspects, *many)

    assert [len(group) for group in suspects.look(BARS, many).doubted] == [10, 10, 5]
    with suspects.trial(BARS, many[:10], 0) as trial:
        trial.begin()
        # The process dies here: of its whole batch only those on trial were.
        die(suspects, *many)

    groups = suspects.look(BARS, many).doubted
    assert [len(group) for group in groups] == [10, 5, *[1] * 10]
    assert {symbol for group in groups[2:] for symbol in group} == set(many[:10])


def test_who_died_in_two_trials_is_left_out_for_an_hour(suspects: Suspects, redis: Redis) -> None:
    leave_out(suspects, "B")

    left_out = suspects.look(BARS, BATCH).left_out
    assert left_out == {"B": pytest.approx(LEFT_OUT_S, abs=3)}
    assert suspects.look(BARS, BATCH) == Standing(("A", "C"), left_out=left_out)
    assert suspects.look(QUOTES, BATCH).left_out == {}
    (left,) = suspects.all_left_out()[BARS].items()
    assert left == ("B", pytest.approx(LEFT_OUT_S, abs=3))

    known = orjson.loads(redis.hget("gapless:suspects", "bars_1m|B") or b"")
    redis.hset("gapless:suspects", "bars_1m|B", orjson.dumps({**known, "until": known["last"]}))
    assert suspects.look(BARS, BATCH) == Standing(BATCH, once=frozenset("B"))
    assert suspects.all_left_out() == {}
    die(suspects, "B")
    assert suspects.look(BARS, BATCH).once == {"B"}, "it begins anew"


def test_the_hour_is_not_made_longer_by_deaths_of_others(suspects: Suspects, redis: Redis) -> None:
    leave_out(suspects, "B")
    before = redis.hget("gapless:suspects", "bars_1m|B")

    die(suspects, *BATCH)

    assert redis.hget("gapless:suspects", "bars_1m|B") == before


def test_trials_that_end_or_go_on_condemn_nobody(suspects: Suspects, redis_url: str) -> None:
    doubt(suspects, "B")
    with Redis.from_url(redis_url) as other:
        elsewhere = Suspects(other)
        for _ in range(5):
            with suspects.trial(BARS, ["B"], 0) as one, elsewhere.trial(BARS, ["B"], 0) as two:
                one.begin()
                two.begin()
        for _ in range(5):
            die(suspects, "B")

    assert suspects.look(BARS, BATCH).doubted == (("B",),)


def test_until_it_is_asked_a_death_is_not_its_own(suspects: Suspects) -> None:
    doubt(suspects, "B")
    for _ in range(5):
        with suspects.trial(BARS, ["B"], 0):
            die(suspects, "B")

    assert suspects.look(BARS, BATCH).doubted == (("B",),)


def test_doubt_ends_half_an_hour_after_the_last_death_whatever_is_tried(
    suspects: Suspects, redis: Redis
) -> None:
    doubt(suspects, "B")
    before = until(redis, "B")
    with suspects.trial(BARS, ["B"], 0) as trial:
        trial.begin()
        assert until(redis, "B") == before
    assert until(redis, "B") == before


def test_a_clock_that_was_ahead_leaves_nobody_out_for_ever(
    suspects: Suspects, redis: Redis
) -> None:
    ahead = redis.time()[0] + 30 * 86_400
    said = {"deaths": 4, "trials": 2, "until": ahead, "last": ahead, "death": "x"}
    redis.hset("gapless:suspects", "bars_1m|B", orjson.dumps(said))

    assert suspects.look(BARS, BATCH) == Standing(BATCH, once=frozenset("B"))
    die(suspects, "B")
    assert 0 < until(redis, "B") - redis.time()[0] <= LEFT_OUT_S


def until(redis: Redis, symbol: str) -> int:
    return orjson.loads(redis.hget("gapless:suspects", f"bars_1m|{symbol}") or b"")["until"]


def test_a_trial_that_ends_without_an_answer_changes_nothing(
    suspects: Suspects, redis: Redis
) -> None:
    doubt(suspects, "B")
    die_on_trial(suspects, "B")
    before = redis.hget("gapless:suspects", "bars_1m|B")

    with suspects.trial(BARS, ["B"], 0) as trial:
        trial.begin()
        assert redis.hget("gapless:suspects", "bars_1m|B") != before
    assert orjson.loads(redis.hget("gapless:suspects", "bars_1m|B") or b"") == orjson.loads(
        before or b""
    )
    with pytest.raises(ValueError, match="bad"), suspects.trial(BARS, ["B"], 0):
        raise ValueError("bad")
    assert suspects.look(BARS, BATCH).doubted == (("B",),)


def test_deaths_of_several_on_trial_condemn_nobody(suspects: Suspects) -> None:
    doubt(suspects, *BATCH)
    for _ in range(5):
        suspects._note("trial", uuid.uuid4().hex, BARS, BATCH)
        die(suspects, *BATCH)

    assert suspects.look(BARS, BATCH).doubted == (("A",), ("B",), ("C",))
    die_on_trial(suspects, "B")
    assert list(suspects.look(BARS, BATCH).left_out) == ["B"]


def test_a_process_has_one_trial_at_a_time(suspects: Suspects) -> None:
    with suspects.trial(BARS, ["A"], 0), suspects.trial(BARS, ["B"], 0.01) as second:
        assert not second.mine
    with suspects.trial(BARS, ["B"], 0) as second:
        assert second.mine


@pytest.mark.parametrize("value", ["4 2 99999999999", "[]", "7", '{"deaths": {}}', "\xff"])
def test_what_another_version_wrote_says_nothing(
    suspects: Suspects, redis: Redis, value: str
) -> None:
    redis.hset("gapless:suspects", "bars_1m|A", value)
    redis.hset("gapless:suspects", b"\xff|A", value)

    assert suspects.look(BARS, BATCH).free == BATCH
    assert suspects.all_left_out() == {}
    die(suspects, "A")
    assert suspects.look(BARS, BATCH).once == {"A"}


def test_what_another_version_added_stays(suspects: Suspects, redis: Redis) -> None:
    die(suspects, "A")
    known = orjson.loads(redis.hget("gapless:suspects", "bars_1m|A") or b"")
    redis.hset("gapless:suspects", "bars_1m|A", orjson.dumps({**known, "more": "x"}))
    die(suspects, "A")

    known = orjson.loads(redis.hget("gapless:suspects", "bars_1m|A") or b"")
    assert (known["deaths"], known["more"]) == (2, "x")


def test_without_redis_nobody_is_doubted_and_trials_are_not_known_of() -> None:
    with Redis(port=1, retry=Retry(NoBackoff(), 0)) as nowhere:
        suspects = Suspects(nowhere)
        assert suspects.look(BARS, BATCH) == Standing(BATCH)
        suspects.clear(BARS, BATCH)
        with suspects.trial(BARS, ["A"], 0) as trial:
            trial.begin()
        with pytest.raises(RedisConnectionError):
            die(suspects, *BATCH)
        with pytest.raises(QueueError):
            suspects.all_left_out()


def test_batches_of_another_kind_or_size_are_a_family_of_their_own() -> None:
    swept = job()
    assert family(swept) == "bars_1m"
    assert family(replace(swept, kind=Kind.REREAD)) == "reread"
    asked_for = replace(swept, inbox={1: BATCH})
    assert family(asked_for) == "bars_1m.elements"
    of_the_past = replace(asked_for, slot=at("16:10"))
    assert family(of_the_past) == "bars_1m.elements.20240305T1505-20240305T1510"


def test_doubted_symbols_are_asked_alone_after_the_others(world: World) -> None:
    one = Scripted("one", world.clock, batch=3)
    context = world.context(one)
    doubt(context.suspects, "A", "B")

    assert collect(context, job()) == {"asked": 3, "answered": 3, "failed": 0}

    assert [call.symbols for call in one.sent] == [("C",), ("A", "B")]
    assert context.suspects.look(BARS, BATCH) == Standing(BATCH)
    assert all(len(world.stored(symbol)) == 5 for symbol in BATCH)


def test_who_was_on_trial_at_a_death_is_asked_alone(world: World) -> None:
    one = Scripted("one", world.clock, batch=3)
    context = world.context(one)
    doubt(context.suspects, *BATCH)
    die_on_trial(context.suspects, "A")

    collect(context, job())

    assert [call.symbols for call in one.sent] == [("B", "C"), ("A",)]


def test_who_gets_no_turn_is_counted_as_failed(world: World) -> None:
    one = Scripted("one", world.clock)
    context = world.context(one)
    doubt(context.suspects, "B")

    with context.suspects.turn(0):
        assert collect(context, job(not_after=at("15:10:11"))) == {
            "asked": 3,
            "answered": 2,
            "failed": 1,
        }
    assert sorted(one.asked()) == ["A", "C"]
    assert context.suspects.look(BARS, BATCH).doubted == (("B",),)


def test_a_window_of_which_the_last_part_kills_is_not_forgiven_for_its_first(world: World) -> None:
    def script(call: Call, asked_at: datetime) -> Page:
        assert call.window is not None
        if call.window.start > at("15:05"):
            # By now the first part has been read.
            context.clock.sleep(0.3)
            raise ProviderTimeoutError("the process would have died here")
        return every_minute(call, asked_at)

    one = Scripted("one", world.clock, script, span=timedelta(minutes=3))
    context = world.context(one)
    die(context.suspects, "A")

    assert collect(context, job(("A",)))["failed"] == 1

    assert world.stored("A"), "its first part was answered"
    assert context.suspects.look(BARS, BATCH).once == {"A"}


def test_a_batch_that_was_asked_clears_who_was_in_one_that_died(world: World) -> None:
    context = world.context(Scripted("one", world.clock))
    die(context.suspects, *BATCH)

    collect(context, job())

    assert context.suspects.look(BARS, BATCH) == Standing(BATCH)


@pytest.mark.parametrize("policy", [["nobody"], ["one"]], ids=["no source", "no answer"])
def test_a_batch_of_which_no_answer_was_read_clears_nobody(world: World, policy) -> None:
    one = Scripted("one", world.clock, refusing(ProviderTimeoutError("silent")))
    context = world.context(one, bands=policy)
    die(context.suspects, *BATCH)
    die(context.suspects, "B")

    assert collect(context, job())["answered"] == 0

    standing = context.suspects.look(BARS, BATCH)
    assert (standing.once, standing.doubted) == ({"A", "C"}, (("B",),))


def test_who_is_left_out_is_not_asked_and_its_element_ends_with_the_reason(world: World) -> None:
    one = Scripted("one", world.clock, every_minute)
    context = world.context(one)
    leave_out(context.suspects, "B", of="bars_1m.elements")
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


def test_backfill_rows_of_who_is_left_out_wait_with_the_reason(world: World) -> None:
    one = Scripted("one", world.clock)
    context = world.context(one)
    leave_out(context.suspects, "B")
    ids = enqueue_gaps(world, "A", "B")

    backfill(context, BackfillJob(tier=Tier.T0, ids=ids, push=1))

    assert one.asked() == ["A"]
    ((state, attempts, wait_s, reason),) = world.rows(
        "SELECT state, attempts, extract(epoch FROM next_try - clock_timestamp()), reason"
        " FROM backfill_jobs WHERE job_id = %s",
        ids[1],
    )
    assert (state, attempts) == ("pending", 0)
    assert LEFT_OUT_S - 60 < wait_s <= LEFT_OUT_S
    assert reason == "workers died each time they asked for B; see `ops queues`"


def test_rows_whose_worker_died_are_asked_one_at_a_time_the_likeliest_last(world: World) -> None:
    one = Scripted("one", world.clock, batch=3)
    context = world.context(one)
    ids = enqueue_gaps(world, *BATCH)
    claim = partial(table.claim, world.db, owner="dead", lease_s=0, max_concurrency=9)
    claim(ids[1:])
    claim(ids[1:2])
    assert table.left_by_the_dead(world.db, ids) == [ids[2], ids[1]]

    with context.suspects.turn(0):
        assert backfill(context, BackfillJob(tier=Tier.T0, ids=ids[1:2], push=1)) == {"claimed": 0}
    assert backfill(context, BackfillJob(tier=Tier.T0, ids=ids, push=1))["claimed"] == 3

    assert one.asked() == ["A", "C", "B"]


def enqueue_gaps(world: World, *symbols: str) -> tuple[int, ...]:
    ids = dict(world.rows("SELECT symbol, symbol_id FROM universe"))
    gap = window("15:00", "15:05")
    rows = [NewJob(ids[name], Interval.M1, gap, Tier.T0, "gap") for name in symbols]
    return tuple(table.enqueue(world.db, rows))


def test_an_operator_sees_who_is_left_out(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", world.database_url)
    monkeypatch.setenv("REDIS_URL", world.redis_url)
    leave_out(Suspects(world.redis), "B")

    assert main(["queues", "--json"]) == 0
    left_out = orjson.loads(capsys.readouterr().out)["left_out"]
    assert left_out == {"bars_1m": {"B": pytest.approx(LEFT_OUT_S, abs=3)}}
    assert main(["queues"]) == 0
    assert "Left out, workers died each time they asked" in capsys.readouterr().out
