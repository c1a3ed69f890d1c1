"""Backfill rows on a real database: claimed, asked of one source after the other, finished with their bars."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from core.errors import BadRequestError, ProviderUnavailableError
from core.windows import Window
from core.words import Capability, Interval, Tier
from db import backfill as table
from db import gaps, universe
from db.backfill import NewJob
from providers.base import Call, Page
from tests.workers_world import (
    CLOSE,
    MINUTE,
    OPEN,
    Scripted,
    World,
    at,
    bar,
    every_minute,
    metric,
    refusing,
    window,
)
from workers.backfill import backfill
from workers.context import Context
from workers.queues import BackfillJob

pytestmark = pytest.mark.integration

AFTER = at("21:40:00")


@pytest.fixture
def world(database_url: str, redis_url: str) -> Iterator[World]:
    """A market forty minutes after the close."""
    with World(database_url, redis_url, AFTER) as made:
        yield made


def row(symbol_id: int, span: Window, **changes: Any) -> NewJob:
    facts: dict[str, Any] = {
        "symbol_id": symbol_id,
        "interval": Interval.M1,
        "window": span,
        "tier": Tier.T0,
        "origin": "gap",
        **changes,
    }
    return NewJob(**facts)


def run(context: Context, ids: list[int], push: int = 1) -> dict[str, int]:
    return backfill(context, BackfillJob(tier=Tier.T0, ids=tuple(ids), push=push))


def states(world: World) -> list[tuple[Any, ...]]:
    return world.rows("SELECT state, attempts, answered_by FROM backfill_jobs ORDER BY job_id")


def without(*missing: datetime):
    """A market in which some minutes had no trade."""

    def script(call: Call, asked_at: datetime) -> Page:
        page = every_minute(call, asked_at)
        return Page(
            bars={s: [b for b in bars if b.ts not in missing] for s, bars in page.bars.items()}
        )

    return script


def test_a_row_is_filled_and_done_with_its_bars(world: World) -> None:
    ids = world.load("A")
    one = Scripted("one", world.clock)
    context = world.context(one)
    jobs = table.enqueue(world.db, [row(ids["A"], window("15:00:00", "15:10:00"))])

    assert run(context, jobs) == {"claimed": 1, "done": 1}

    assert len(world.stored("A")) == 10
    assert states(world) == [("done", 1, [])]
    assert metric(context, "backfill_jobs_completed_total", tier="T0", status="done") == 1
    assert metric(context, "gap_seconds_count", interval="1m", tier="T0") == 10


def test_a_row_that_runs_elsewhere_or_has_ended_is_left_alone(world: World) -> None:
    ids = world.load("A", "B")
    one = Scripted("one", world.clock)
    context = world.context(one)
    jobs = table.enqueue(
        world.db, [row(ids[s], window("15:00:00", "15:10:00")) for s in ("A", "B")]
    )
    table.claim(world.db, jobs[:1], "another worker", 30.0, 100)
    run(context, jobs[1:])

    assert run(context, jobs, push=2) == {"claimed": 0}
    assert len(one.sent) == 1


def test_the_fleet_wide_concurrency_holds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = world.load(*"ABCDE")
    context = world.context(Scripted("one", world.clock), backfill_max_concurrency_t0=2)
    jobs = table.enqueue(world.db, [row(i, window("15:00:00", "15:10:00")) for i in ids.values()])

    sizes: list[int] = []
    claim = table.claim

    def counted(*arguments: Any) -> list[table.Job]:
        claimed = claim(*arguments)
        sizes.append(len(claimed))
        return claimed

    monkeypatch.setattr(table, "claim", counted)

    assert run(context, jobs) == {"claimed": 5, "done": 5}
    assert sizes == [2, 2, 1], "the rest gets its turn when the first have ended"


def test_rows_of_one_symbol_that_fit_into_one_call_share_it(world: World) -> None:
    ids = world.load("A", "B")
    one = Scripted("one", world.clock)
    jobs = table.enqueue(
        world.db,
        [
            row(ids["A"], window("15:00:00", "15:10:00")),
            row(ids["A"], window("15:40:00", "15:50:00")),
            row(ids["A"], window("20:00:00", "20:01:00")),
            row(ids["B"], window("15:00:00", "15:10:00")),
        ],
    )

    assert run(world.context(one), jobs) == {"claimed": 4, "done": 4}

    assert sorted((c.symbols[0], str(c.window)) for c in one.sent) == [
        ("A", str(window("15:00:00", "20:01:00"))),
        ("B", str(window("15:00:00", "15:10:00"))),
    ]


def test_a_long_row_is_cut_into_chunks_of_trading_time(world: World) -> None:
    ids = world.load("A")
    one = Scripted("one", world.clock)
    week = Window(OPEN - timedelta(days=2, hours=5), OPEN + timedelta(minutes=30))
    jobs = table.enqueue(world.db, [row(ids["A"], week, origin="operator")])

    assert run(world.context(one), jobs) == {"claimed": 1, "done": 1}

    # 3 March is a Sunday: nobody is asked. 4 March is a whole session, the 5th half an hour.
    assert [str(call.window) for call in one.sent] == [
        str(Window(OPEN - timedelta(days=1), CLOSE - timedelta(days=1))),
        str(Window(OPEN, OPEN + timedelta(minutes=30))),
    ]


def test_a_row_in_closed_time_is_done_without_asking(world: World) -> None:
    ids = world.load("A")
    one = Scripted("one", world.clock)
    jobs = table.enqueue(world.db, [row(ids["A"], window("12:00:00", "13:00:00"))])

    assert run(world.context(one), jobs) == {"claimed": 1, "done": 1}
    assert one.sent == []


def test_what_the_first_source_lacks_the_second_is_asked_for_in_the_same_run(world: World) -> None:
    ids = world.load("A")
    holes = (at("15:02:00"), at("15:05:00"))
    one, two = Scripted("one", world.clock, without(*holes)), Scripted("two", world.clock)
    jobs = table.enqueue(world.db, [row(ids["A"], window("15:00:00", "15:10:00"))])

    assert run(world.context(one, two), jobs) == {"claimed": 1, "done": 1}

    assert [str(call.window) for call in two.sent] == [str(window("15:02:00", "15:06:00"))]
    stored = world.stored("A")
    assert len(stored) == 10
    assert {stored[hole][1] for hole in holes} == {"two"}


def test_a_second_reading_asks_the_source_that_it_is_about_though_no_policy_names_it(
    world: World,
) -> None:
    ids = world.load("A")
    one, two = Scripted("one", world.clock), Scripted("two", world.clock)
    again = row(ids["A"], window("15:00:00", "15:10:00"), origin="reread", provider="two")
    jobs = table.enqueue(world.db, [again])

    assert run(world.context(one, two, bands=["one"]), jobs) == {"claimed": 1, "done": 1}

    assert one.sent == []
    assert two.asked() == ["A"]
    assert {source for _, source, *_ in world.stored("A").values()} == {"two"}


def test_what_both_sources_lack_becomes_confirmed_empty(world: World) -> None:
    ids = world.load("A")
    hole = at("15:02:00")
    one = Scripted("one", world.clock, without(hole))
    two = Scripted("two", world.clock, without(hole))
    jobs = table.enqueue(world.db, [row(ids["A"], window("15:00:00", "15:10:00"))])

    assert run(world.context(one, two), jobs) == {"claimed": 1, "done": 1}

    confirmed = gaps.confirm_empty(
        world.db, interval=Interval.M1, since=OPEN, eligible=["one", "two"]
    )
    assert confirmed == 1
    assert world.rows("SELECT start_ts, end_ts, basis FROM confirmed_empty") == [
        (hole, hole + MINUTE, "two_sources")
    ]


def test_the_only_source_is_asked_again_a_quarter_of_an_hour_later(world: World) -> None:
    ids = world.load("A")
    hole = at("15:02:00")
    one = Scripted("one", world.clock, without(hole))
    context = world.context(one)
    jobs = table.enqueue(world.db, [row(ids["A"], window("15:00:00", "15:10:00"))])

    assert run(context, jobs) == {"claimed": 1, "pending": 1}
    assert states(world) == [("pending", 1, ["one"])]
    assert run(context, jobs, push=2) == {"claimed": 0}, "too early"

    world.jump(AFTER + timedelta(minutes=16))
    assert run(context, jobs, push=3) == {"claimed": 1, "done": 1}
    assert gaps.confirm_empty(world.db, interval=Interval.M1, since=OPEN, eligible=["one"]) == 1


def test_a_second_source_that_is_down_leaves_the_row_waiting_for_it(world: World) -> None:
    ids = world.load("A")
    one = Scripted("one", world.clock, without(at("15:02:00")))
    two = Scripted("two", world.clock, refusing(ProviderUnavailableError("down")))
    context = world.context(one, two)
    jobs = table.enqueue(world.db, [row(ids["A"], window("15:00:00", "15:10:00"))])

    assert run(context, jobs) == {"claimed": 1, "pending": 1}
    assert states(world) == [("pending", 1, ["one"])]
    assert len(world.stored("A")) == 9, "what came is kept"

    two.script = every_minute
    world.rows("UPDATE backfill_jobs SET next_try = '-infinity' RETURNING 1")
    assert run(context, jobs, push=2) == {"claimed": 1, "done": 1}
    assert len(one.sent) == 1, "the first source is not asked again"
    assert len(world.stored("A")) == 10


def test_a_failure_is_tried_again_later_and_parked_after_the_last_attempt(world: World) -> None:
    ids = world.load("A")
    one = Scripted("one", world.clock, refusing(ProviderUnavailableError("down")))
    context = world.context(one, backfill_max_attempts=2)
    jobs = table.enqueue(world.db, [row(ids["A"], window("15:00:00", "15:10:00"), max_attempts=2)])

    assert run(context, jobs) == {"claimed": 1, "pending": 1}
    assert run(context, jobs, push=2) == {"claimed": 0}, "it waits"
    world.rows("UPDATE backfill_jobs SET next_try = '-infinity' RETURNING 1")
    assert run(context, jobs, push=3) == {"claimed": 1, "failed": 1}

    assert states(world) == [("failed", 2, [])]
    assert "unavailable: down" in world.rows("SELECT reason FROM backfill_jobs")[0][0]
    assert metric(context, "backfill_jobs_completed_total", tier="T0", status="failed") == 1


def test_a_window_beyond_every_look_back_fails_at_once_with_the_reason(world: World) -> None:
    ids = world.load("A")
    one = Scripted("one", world.clock, refusing(BadRequestError("never sent")))
    old = Window(OPEN - timedelta(days=60), OPEN - timedelta(days=60) + MINUTE)
    jobs = table.enqueue(world.db, [row(ids["A"], old, origin="operator")])

    assert run(world.context(one), jobs) == {"claimed": 1, "failed": 1}
    assert one.sent == []
    assert "30 days" in world.rows("SELECT reason FROM backfill_jobs")[0][0]


def test_a_poison_symbol_does_not_hold_the_others_back(world: World) -> None:
    ids = world.load("A", "B", "C")

    def script(call: Call, asked_at: datetime) -> Page:
        if call.symbols == ("B",):
            raise KeyError("unreadable")
        return every_minute(call, asked_at)

    jobs = table.enqueue(world.db, [row(i, window("15:00:00", "15:10:00")) for i in ids.values()])

    assert run(world.context(Scripted("one", world.clock, script)), jobs) == {
        "claimed": 3,
        "done": 2,
        "pending": 1,
    }


def test_bars_that_have_not_settled_are_asked_for_again_when_they_have(world: World) -> None:
    ids = world.load("A")
    world.jump(AFTER + timedelta(hours=17, minutes=-5))  # 14:35 of the next session
    now = world.clock.now()
    recent = Window(
        now.replace(second=0, microsecond=0) - 2 * MINUTE, now.replace(second=0, microsecond=0)
    )
    one = Scripted("one", world.clock, lambda call, _: Page(bars={"A": []}))
    jobs = table.enqueue(world.db, [row(ids["A"], recent)])

    assert run(world.context(one), jobs) == {"claimed": 1, "pending": 1}
    not_before = world.rows("SELECT not_before FROM backfill_jobs")[0][0]
    assert not_before is not None


def test_daily_rows_are_filled_from_daily_bars(world: World) -> None:
    ids = world.load("A")

    def script(call: Call, _asked_at: datetime) -> Page:
        days = [OPEN - timedelta(days=1), OPEN]
        return Page(bars={"A": [bar(d, 50.0, session=d.date()) for d in days]})

    span = Window(OPEN - timedelta(days=1), CLOSE)
    jobs = table.enqueue(world.db, [row(ids["A"], span, interval=Interval.D1)])

    assert run(world.context(Scripted("one", world.clock, script)), jobs) == {
        "claimed": 1,
        "done": 1,
    }
    assert len(world.stored("A", "1d")) == 2


def test_rows_left_over_by_a_stop_are_pending_again_and_spend_no_attempt(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = world.load(*[f"S{n}" for n in range(6)])
    one = Scripted("one", world.clock)
    context = world.context(one)
    jobs = table.enqueue(world.db, [row(i, window("15:00:00", "15:10:00")) for i in ids.values()])

    def script(_call: Call, _asked_at: datetime) -> Page:
        raise AssertionError("nobody is asked any more")

    one.script = script
    eligible = context.router.eligible

    def stopped(capability: Capability) -> list[str]:
        world.stop._finish_s = 0.0
        world.stop.request()
        return eligible(capability)

    monkeypatch.setattr(context.router, "eligible", stopped)

    assert run(context, jobs) == {"claimed": 6, "pending": 6}
    assert states(world) == [("pending", 0, [])] * 6


def test_an_outage_spends_no_attempt(world: World) -> None:
    ids = world.load("A")
    context = world.context(Scripted("one", world.clock), bands=["elsewhere"])
    jobs = table.enqueue(world.db, [row(ids["A"], window("15:00:00", "15:10:00"))])

    assert run(context, jobs) == {"claimed": 1, "pending": 1}
    assert states(world) == [("pending", 0, [])]
    assert "no_route" in world.rows("SELECT reason FROM backfill_jobs")[0][0]


def test_a_symbol_whose_calendar_is_not_published_fails_alone(world: World) -> None:
    ids = world.load("A")
    universe.load(world.db, [("X", Tier.T0, "MARS", "")], "test", replace=False)
    with world.db.transaction() as conn:
        stray = universe.resolve(conn, ["X"])["X"].symbol_id
    jobs = table.enqueue(
        world.db, [row(i, window("15:00:00", "15:10:00")) for i in (ids["A"], stray)]
    )

    counts = run(world.context(Scripted("one", world.clock)), jobs)

    assert counts == {"claimed": 2, "done": 1, "failed": 1}
    assert world.rows("SELECT reason FROM backfill_jobs WHERE state = 'failed'")[0][0].startswith(
        "calendar 'MARS' is not published"
    )


def test_a_row_that_begins_within_a_minute_is_asked_in_whole_minutes(world: World) -> None:
    ids = world.load("A")
    one = Scripted("one", world.clock)
    jobs = table.enqueue(world.db, [row(ids["A"], window("15:00:30", "15:04:10"))])

    assert run(world.context(one), jobs) == {"claimed": 1, "done": 1}
    assert [call.window for call in one.sent] == [window("15:00:00", "15:05:00")]


def test_a_row_of_an_interval_that_a_newer_version_collects_is_left_to_it(world: World) -> None:
    ids = world.load("A", "B")
    span = window("15:00:00", "15:10:00")
    jobs = table.enqueue(world.db, [row(ids["A"], span, interval=Interval.M5), row(ids["B"], span)])

    counts = run(world.context(Scripted("one", world.clock)), jobs)

    assert counts == {"claimed": 2, "done": 1, "pending": 1}
    [(state, attempts, reason)] = world.rows(
        "SELECT state, attempts, reason FROM backfill_jobs WHERE interval_s = 300"
    )
    assert (state, attempts) == ("pending", 0)
    assert "5m" in reason
    assert table.due(world.db, Tier.T0, 10, 8) == [], "not at once again"
