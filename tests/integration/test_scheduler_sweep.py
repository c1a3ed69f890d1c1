"""The sweep on a real database and real queues: right slots, once, whoever leads."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from core.bars import Bar
from core.errors import LeaseLostError, QueueError
from core.windows import Window
from core.words import Interval, Tier
from db import slots
from db.candles import Answer, Batch, write
from db.pool import connect
from db.slots import SlotKey
from tests.integration.scheduler_market import Alone, Market, at, drain, symbols_of
from workers.queues import Kind

pytestmark = pytest.mark.integration

SECOND = timedelta(seconds=1)


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def make_market(database_url: str) -> Iterator[object]:
    made: list[Market] = []

    def make(start: str) -> Market:
        made.append(Market(database_url, start))
        return made[-1]

    yield make
    for market in made:
        market.close()


def bars_of_day(alone: Alone, start: str, minutes: int) -> Counter[str]:
    """Bar jobs pushed in so many minutes, by the minute of their window's end."""
    pushed: Counter[str] = Counter()
    for minute in range(minutes):
        when = at(start) + timedelta(minutes=minute, seconds=3)
        for job in alone.sweep_at(when):
            if job.kind is Kind.BARS_1M:
                assert job.start is not None
                assert job.end is not None
                pushed[f"{job.end:%H:%M}"] += 1
    return pushed


@pytest.mark.parametrize(
    ("calendar", "day", "first", "last"),
    [
        ("NYSE", "2024-11-29", "14:30", "18:00"),
        ("NYSE", "2024-11-01", "13:30", "20:00"),
        ("NYSE", "2024-11-04", "14:30", "21:00"),
        ("NSE", "2024-11-29", "03:45", "10:00"),
    ],
    ids=["half day", "before daylight saving ended", "after daylight saving ended", "Mumbai"],
)
def test_the_edges_of_a_session_are_the_exchanges_own(
    make_market, redis, calendar, day, first, last
):
    opened, closed = at(f"{day}T{first}"), at(f"{day}T{last}")
    market = make_market(f"{day}T{first}")
    market.trade(calendar)
    market.enrol(T0=(2, calendar))
    alone = Alone(market, redis)
    alone.lead()

    before = bars_of_day(alone, (opened - timedelta(minutes=2)).isoformat()[:16], 3)
    assert not before, "no bar has closed until a minute after the open"
    assert bars_of_day(alone, (opened + timedelta(minutes=1)).isoformat()[:16], 3) == {
        f"{opened + timedelta(minutes=m):%H:%M}": 1 for m in (1, 2, 3)
    }
    around = bars_of_day(alone, (closed - timedelta(minutes=1)).isoformat()[:16], 6)
    # The close's own minute is asked twice: when it closed, and once more when it has settled.
    assert around == {f"{closed - timedelta(minutes=1):%H:%M}": 1, f"{closed:%H:%M}": 2}


def test_a_minute_pushes_each_t0_symbol_once_with_a_window_inside_the_session(make_market, redis):
    market = make_market("2024-12-02T14:35:30")
    market.trade("NYSE")
    market.enrol(T0=(250, "NYSE"))
    alone = Alone(market, redis)
    alone.lead()
    alone.sweep_at(at("2024-12-02T14:35:59"))
    jobs = alone.sweep_at(at("2024-12-02T14:36:03"))
    bars = [job for job in jobs if job.kind is Kind.BARS_1M]
    assert sorted(len(job.symbols) for job in bars) == [83, 83, 84]
    assert symbols_of(bars) == sorted(market.ids())
    assert {(job.start, job.end) for job in bars} == {
        (at("2024-12-02T14:34"), at("2024-12-02T14:36"))
    }
    assert {job.not_after for job in bars} == {at("2024-12-02T14:37:02")}


def test_a_step_that_is_repeated_pushes_nothing_more(make_market, redis):
    market = make_market("2024-12-02T14:40")
    market.trade("NYSE")
    market.enrol(T0=(5, "NYSE"))
    alone = Alone(market, redis)
    alone.lead()
    alone.sweep_at(at("2024-12-02T14:40:59"))
    assert alone.sweep_at(at("2024-12-02T14:41:03"))
    assert alone.sweep_at(at("2024-12-02T14:41:03") + SECOND / 10) == []


def test_what_a_dead_leader_claimed_and_never_pushed_is_pushed_by_the_next(make_market, redis):
    market = make_market("2024-12-02T14:40")
    market.trade("NYSE")
    market.enrol(T0=(5, "NYSE"))
    dead, heir = Alone(market, redis), Alone(market, redis)
    dead.lead()
    dead.sweep_at(at("2024-12-02T14:40:59"))
    market.jump("2024-12-02T14:41:03")
    token = dead.leader.token()
    assert token is not None
    key = SlotKey("bars_1m", Tier.T0, at("2024-12-02T14:41"), 0)
    assert slots.claim_slots(market.db, token, [key]) == [key]
    dead.leader.resign()

    heir.lead()
    heir.sweep.step()
    jobs = [job for job in drain(redis) if job.kind is Kind.BARS_1M]
    assert [(job.slot, symbols_of([job])) for job in jobs] == [(key.slot_ts, sorted(market.ids()))]
    assert slots.unpushed(market.db, at("2024-12-02T14:00")) == []


def test_a_leader_that_was_paused_claims_nothing_after_its_lease(make_market, redis):
    market = make_market("2024-12-02T14:40")
    market.trade("NYSE")
    market.enrol(T0=(5, "NYSE"))
    old, new = Alone(market, redis), Alone(market, redis)
    old.lead()
    old.sweep_at(at("2024-12-02T14:40:59"))
    token = old.leader.token()
    assert token is not None
    # As after a pause: the database has given the lease away, this process does not know yet.
    market.ask("UPDATE leader_lease SET expires_at = '-infinity' RETURNING 1")
    new.lead()
    market.jump("2024-12-02T14:41:03")
    with pytest.raises(LeaseLostError, match="another scheduler leads"):
        old.sweep.step()
    assert old.leader.token() is None
    assert drain(redis) == []
    new.sweep.step()
    assert symbols_of(j for j in drain(redis) if j.kind is Kind.BARS_1M) == sorted(market.ids())


def test_live_slots_that_nobody_pushed_in_time_are_counted_and_skipped_not_made_up(
    make_market, redis
):
    market = make_market("2024-12-02T15:00")
    market.trade("NYSE")
    market.enrol(T0=(5, "NYSE"))
    first = Alone(market, redis)
    first.lead()
    first.sweep_at(at("2024-12-02T15:00:30"))
    first.sweep_at(at("2024-12-02T15:01:04"))
    first.leader.resign()

    late = Alone(market, redis)
    late.lead()
    jobs = late.sweep_at(at("2024-12-02T15:10:10"))
    bars = [job for job in jobs if job.kind is Kind.BARS_1M]
    assert [job.slot for job in bars] == [at("2024-12-02T15:10")]
    # 15:02 to 15:09; the quotes of nine minutes, one phase every five seconds.
    assert late.counted("slots_missed_total", type="bars_1m", tier="T0") == 8
    assert late.counted("slots_missed_total", type="quotes_l1", tier="T0") == pytest.approx(
        (9 * 60 + 5) / 5, abs=3
    )


def test_the_first_sweep_of_a_database_asks_for_the_running_minute_and_missed_nothing(
    make_market, redis
):
    market = make_market("2024-12-02T17:00")
    market.trade("NYSE")
    market.enrol(T0=(5, "NYSE"))
    alone = Alone(market, redis)
    alone.lead()
    jobs = alone.sweep_at(at("2024-12-02T17:00:30"))
    assert [job.slot for job in jobs if job.kind is Kind.BARS_1M] == [at("2024-12-02T17:00")]
    assert alone.counted("slots_pushed_total", type="bars_1m", tier="T0") == 1
    for kind in ("bars_1m", "quotes_l1"):
        assert alone.counted("slots_missed_total", type=kind, tier="T0") == 0


def test_redis_away_costs_the_slot_nothing_but_time(make_market, redis):
    market = make_market("2024-12-02T14:40")
    market.trade("NYSE")
    market.enrol(T0=(5, "NYSE"))
    alone = Alone(market, redis)
    alone.lead()
    alone.sweep_at(at("2024-12-02T14:40:59"))
    market.jump("2024-12-02T14:41:03")
    with Redis(port=1, retry=Retry(NoBackoff(), 0)) as nowhere:
        alone.sweep._redis = nowhere
        with pytest.raises(QueueError):
            alone.sweep.step()
    alone.sweep._redis = redis
    alone.sweep.step()
    assert symbols_of(j for j in drain(redis) if j.kind is Kind.BARS_1M) == sorted(market.ids())


def test_lower_tiers_and_quotes_yield_while_a_queue_is_behind(make_market, redis):
    market = make_market("2024-12-02T14:40")
    market.trade("NYSE")
    market.enrol(T0=(5, "NYSE"))
    market.enrol(T1=(5, "NYSE"))
    alone = Alone(market, redis)
    alone.lead()
    alone.sweep_at(at("2024-12-02T14:44:58"))
    # Two cadences of T0 push four jobs. Nobody works.
    redis.rpush("rq:queue:collect:T0", *[f"x{i}" for i in range(7)])
    market.jump("2024-12-02T14:45:03")
    alone.sweep.step()
    pushed = market.ask(
        "SELECT DISTINCT kind, tier FROM sweep_slots WHERE slot_ts >= '2024-12-02T14:45Z' AND jobs > 0"
    )
    assert pushed == [("bars_1m", "T0")]
    assert alone.counted("slots_missed_total", type="quotes_l1", tier="T0") == 1
    assert alone.counted("slots_missed_total", type="quotes_l1", tier="T1") >= 1
    assert alone.counted("slots_missed_total", type="bars_1m", tier="T1") == 1


def test_the_day_ends_with_each_daily_bar_asked_once_and_the_session_read_again(make_market, redis):
    market = make_market("2024-11-29T18:05")
    market.trade("NYSE")
    market.enrol(T0=(3, "NYSE"))
    market.enrol(T2=(45, "NYSE"))
    supply(market, "yfinance", ["T0N0", "T0N1"])
    supply(market, "finnhub", ["T0N1"])
    alone = Alone(market, redis)
    alone.lead()
    jobs = [
        job
        for minute in range(40)
        for job in alone.sweep_at(at("2024-11-29T18:20") + timedelta(minutes=minute))
    ]
    daily = [job for job in jobs if job.kind is Kind.BARS_EOD]
    assert symbols_of(daily) == sorted(market.ids())
    assert {(job.start, job.end) for job in daily} == {
        (at("2024-11-29T14:30"), at("2024-11-29T18:00"))
    }
    again = [job for job in jobs if job.kind is Kind.REREAD]
    assert sorted((job.provider, sorted(job.symbols)) for job in again) == [
        ("finnhub", ["T0N1"]),
        ("yfinance", ["T0N0", "T0N1"]),
    ]
    first = market.ask(
        "SELECT min(pushed_at) FROM sweep_slots WHERE kind IN ('bars_eod', 'reread')"
    )
    assert first[0][0] >= at("2024-11-29T18:30")
    # The next leader finds the day done.
    heir = Alone(market, redis)
    alone.leader.resign()
    heir.lead()
    assert heir.sweep_at(at("2024-11-29T19:10")) == []


def test_what_is_asked_once_a_day_goes_again_when_redis_forgot_it(make_market, redis):
    market = make_market("2024-11-29T18:05")
    market.trade("NYSE")
    market.enrol(T0=(2, "NYSE"))
    supply(market, "yfinance", ["T0N0", "T0N1"])
    alone = Alone(market, redis)
    alone.lead()
    pushed = {
        job.id: job
        for minute in range(45)
        for job in alone.sweep_at(at("2024-11-29T18:20") + timedelta(minutes=minute))
        if not job.kind.value.startswith("quotes")
    }
    assert Kind.REREAD in {job.kind for job in pushed.values()}
    last = at("2024-11-29T19:04")
    # This market's time stands all but still: so they were pushed a few real seconds ago.
    market.ask(
        "UPDATE sweep_slots SET pushed_at = %s WHERE kind IN ('bars_eod', 'reread') RETURNING 1",
        last + 2 * SECOND,
    )
    alone.sweep._looked_at = float("-inf")
    assert alone.sweep_at(last + SECOND) == [], "Redis remembers"

    redis.flushall()
    alone.sweep._looked_at = float("-inf")
    again = alone.sweep_at(last + 2 * SECOND)

    assert {job.id for job in again} == {
        name for name, job in pushed.items() if job.kind in (Kind.BARS_EOD, Kind.REREAD)
    }
    alone.sweep._looked_at = float("-inf")
    assert alone.sweep_at(last + 3 * SECOND) == [], "once"


def test_daily_work_waits_for_room_instead_of_being_skipped(make_market, redis):
    market = make_market("2024-11-29T18:05")
    market.trade("NYSE")
    market.enrol(T2=(300, "NYSE"))
    alone = Alone(market, redis, live_batch_size=20)
    alone.lead()
    market.jump("2024-11-29T18:41")
    alone.sweep.step()
    assert redis.llen("rq:queue:collect:T2") == 2, "no more than the workers can begin with"
    asked = symbols_of(drain(redis))
    while more := alone.sweep_at(market.clock.now() + SECOND):
        asked += symbols_of(more)
    assert sorted(asked) == sorted(market.ids())
    assert alone.counted("slots_missed_total", type="bars_eod", tier="T2") == 0


def supply(market: Market, source: str, symbols: list[str]) -> None:
    """One settled bar of each symbol at 15:00 from a source."""
    ts = at("2024-11-29T15:00")
    asked = ts + timedelta(minutes=5)
    ids = market.ids()
    write(
        market.db,
        Batch(
            source,
            Interval.M1,
            [
                Answer(
                    ids[symbol],
                    Window(ts, ts + timedelta(minutes=1)),
                    asked,
                    [Bar(ts, 1.0, 1.0, 1.0, 1.0, 1.0)],
                    asked,
                )
                for symbol in symbols
            ],
        ),
    )


def test_a_leader_that_wakes_up_between_claim_and_push_pushes_nothing_new(make_market, redis):
    market = make_market("2024-12-02T14:40")
    market.trade("NYSE")
    market.enrol(T0=(250, "NYSE"))
    old, heir = Alone(market, redis), Alone(market, redis)
    old.lead()
    old.sweep_at(at("2024-12-02T14:40:59"))
    market.jump("2024-12-02T14:41:03")
    token, plan = old.leader.token(), old.planning.current()
    assert token is not None
    assert plan is not None
    old.sweep._claim_due(token, plan)
    # Stopped here for longer than its lease.
    market.ask("UPDATE leader_lease SET expires_at = '-infinity' RETURNING 1")
    heir.lead()
    heir.sweep.step()
    queue = redis.lrange("rq:queue:collect:T0", 0, -1)
    assert len(queue) >= 3

    old.sweep._push_owed(plan)

    assert redis.lrange("rq:queue:collect:T0", 0, -1) == queue
    market.jump("2024-12-02T14:42:03")
    with pytest.raises(LeaseLostError):
        old.sweep._claim_due(token, plan)


def test_a_slot_of_a_newer_versions_kind_is_left_to_a_newer_leader(make_market, redis):
    market = make_market("2024-12-02T14:40")
    market.trade("NYSE")
    market.enrol(T0=(5, "NYSE"))
    # As its migration would have it.
    with connect(market.url) as owner:
        owner.execute("ALTER TABLE sweep_slots DROP CONSTRAINT sweep_slots_kind_check")
        owner.execute(
            "INSERT INTO sweep_slots (kind, tier, slot_ts, token, claimed_at)"
            " VALUES ('depth_l2', 'T0', %s, 1, gapless_now())",
            [at("2024-12-02T14:39")],
        )
    alone = Alone(market, redis)
    alone.lead()

    alone.sweep_at(at("2024-12-02T14:40:59"))
    assert alone.sweep_at(at("2024-12-02T14:41:03"))

    assert market.ask("SELECT pushed_at FROM sweep_slots WHERE kind = 'depth_l2'") == [(None,)]
