"""Slots: every symbol once a cycle, in session hours only, evenly spread, the same everywhere."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.sessions import Calendar, Session
from core.settings import Settings
from core.windows import Window
from core.words import Tier
from db.universe import Member
from scheduler.cadence import MINUTE, Slot, bars_rhythm, phase_count, quotes_rhythm
from scheduler.plan import Plan
from workers.queues import Kind


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def hours(label: str, *segments: tuple[str, str]) -> Session:
    return Session(date.fromisoformat(label), tuple(Window(at(a), at(b)) for a, b in segments))


# 2024-11-29 is the half day after Thanksgiving: 09:30-13:00 New York, 14:30-18:00 UTC.
# Daylight saving ended on 2024-11-03: the open moved from 13:30 to 14:30 UTC.
NYSE = Calendar(
    "NYSE",
    1,
    date(2024, 10, 28),
    date(2024, 12, 31),
    [
        hours("2024-11-01", ("2024-11-01T13:30", "2024-11-01T20:00")),
        hours("2024-11-04", ("2024-11-04T14:30", "2024-11-04T21:00")),
        hours("2024-11-27", ("2024-11-27T14:30", "2024-11-27T21:00")),
        hours("2024-11-29", ("2024-11-29T14:30", "2024-11-29T18:00")),
        hours("2024-12-02", ("2024-12-02T14:30", "2024-12-02T21:00")),
    ],
)
# 09:15-15:30 in Mumbai is 03:45-10:00 UTC.
NSE = Calendar(
    "NSE",
    1,
    date(2024, 10, 28),
    date(2024, 12, 31),
    [hours("2024-11-29", ("2024-11-29T03:45", "2024-11-29T10:00"))],
)
# 09:30-12:00 and 13:00-16:00 in Hong Kong.
HKEX = Calendar(
    "XHKG",
    1,
    date(2024, 10, 28),
    date(2024, 12, 31),
    [
        hours(
            "2024-11-29",
            ("2024-11-29T01:30", "2024-11-29T04:00"),
            ("2024-11-29T05:00", "2024-11-29T08:00"),
        )
    ],
)
ALWAYS = Calendar(
    "24/7",
    1,
    date(2024, 11, 28),
    date(2024, 11, 30),
    [
        hours("2024-11-28", ("2024-11-28T00:00", "2024-11-29T00:00")),
        hours("2024-11-29", ("2024-11-29T00:00", "2024-11-30T00:00")),
        hours("2024-11-30", ("2024-11-30T00:00", "2024-12-01T00:00")),
    ],
)
CALENDARS = {c.name: c for c in (NYSE, NSE, HKEX, ALWAYS)}


def members(tier: Tier, count: int, calendar: str = "NYSE", first: int = 1) -> list[Member]:
    return [Member(i, f"S{i}", tier, calendar, calendar) for i in range(first, first + count)]


def plan(*groups: list[Member], **overrides: object) -> Plan:
    return Plan([m for group in groups for m in group], CALENDARS, Settings(**overrides))  # type: ignore[arg-type]


def day(text: str) -> Window:
    return Window(at(text), at(text) + timedelta(days=1))


def of(slots: list[Slot], kind: Kind) -> list[Slot]:
    return [slot for slot in slots if slot.kind is kind]


def test_t0_bars_are_asked_two_seconds_after_each_minute_and_once_more_after_the_close():
    bars = of(plan(members(Tier.T0, 3)).live(day("2024-12-02T00:00")), Kind.BARS_1M)
    # 390 minutes close from 14:31 to 21:00; one more slot asks the last of them again.
    assert len(bars) == 391
    assert bars[0].due == at("2024-12-02T14:31:02")
    assert bars[-2].due == at("2024-12-02T21:00:02")
    assert bars[-1].due == at("2024-12-02T21:01:02")


@pytest.mark.parametrize(
    ("session", "first", "last", "count"),
    [
        ("2024-11-29", "2024-11-29T14:31:02", "2024-11-29T18:01:02", 211),
        ("2024-11-01", "2024-11-01T13:31:02", "2024-11-01T20:01:02", 391),
        ("2024-11-04", "2024-11-04T14:31:02", "2024-11-04T21:01:02", 391),
    ],
    ids=["half day", "before daylight saving ended", "after daylight saving ended"],
)
def test_slots_follow_the_sessions_own_hours(session, first, last, count):
    bars = of(plan(members(Tier.T0, 1)).live(day(f"{session}T00:00")), Kind.BARS_1M)
    assert (bars[0].due, bars[-1].due, len(bars)) == (at(first), at(last), count)


def test_mumbai_trades_on_its_own_hours_beside_new_york():
    both = plan(members(Tier.T0, 2), members(Tier.T0, 2, "NSE", first=10))
    bars = of(both.live(day("2024-11-29T00:00")), Kind.BARS_1M)
    # 375 minutes in Mumbai, 210 on New York's half day, each with one settle re-ask.
    assert len(bars) == 376 + 211
    morning = both.asks(bars[0], {})
    assert [(ask.symbols, ask.window) for ask in morning] == [
        (("S10", "S11"), Window(at("2024-11-29T03:45"), at("2024-11-29T03:46")))
    ]


def test_a_market_that_never_closes_is_asked_every_minute_of_the_day():
    bars = of(plan(members(Tier.T0, 1, "24/7")).live(day("2024-11-29T00:00")), Kind.BARS_1M)
    assert len(bars) == 1440


def test_the_window_of_a_bar_ask_never_reaches_across_the_open():
    p = plan(members(Tier.T0, 1))
    first, second, third = p.live(Window(at("2024-12-02T14:31"), at("2024-12-02T14:34")))[:1] + [
        slot
        for slot in p.live(Window(at("2024-12-02T14:32"), at("2024-12-02T14:34")))
        if slot.kind is Kind.BARS_1M
    ]
    assert first.kind is Kind.QUOTES_L1
    assert p.asks(second, {})[0].window == Window(at("2024-12-02T14:30"), at("2024-12-02T14:32"))
    assert p.asks(third, {})[0].window == Window(at("2024-12-02T14:31"), at("2024-12-02T14:33"))


def test_quotes_are_asked_in_trading_hours_only_and_not_over_lunch():
    quotes = of(plan(members(Tier.T0, 1, "XHKG")).live(day("2024-11-29T00:00")), Kind.QUOTES_L1)
    # Every 5 s of 2.5 + 3 trading hours.
    assert len(quotes) == 5.5 * 720
    assert not [s for s in quotes if at("2024-11-29T04:00") <= s.due < at("2024-11-29T05:00")]
    assert quotes[0].due == at("2024-11-29T01:30")
    assert quotes[-1].due == at("2024-11-29T07:59:55")


@given(
    cadence=st.sampled_from([30.0, 60.0, 90.0, 300.0, 420.0, 900.0]),
    count=st.integers(1, 700),
    tier=st.sampled_from([Tier.T0, Tier.T1]),
    settle=st.sampled_from([0, 30, 60, 90]),
)
@settings(max_examples=40, deadline=None)
def test_every_bar_is_asked_after_it_settled_and_soon_after_it_closed(cadence, count, tier, settle):
    rhythm = bars_rhythm(tier, cadence, count, 100, timedelta(seconds=settle))
    slots = list(rhythm.slots(day("2024-11-29T00:00")))
    closing = NYSE.session(date(2024, 11, 29))
    for phase in {0, rhythm.phases // 2, rhythm.phases - 1}:
        asked = [
            (slot.due, window)
            for slot in slots
            if slot.phase == phase and (window := rhythm.asks(slot, NYSE)) is not None
        ]
        assert asked == [(due, w) for due, w in asked if w.start >= closing.open and w.end <= due]
        for index in range(210):
            start = closing.open + index * MINUTE
            end = start + MINUTE
            asks = [due for due, window in asked if window.contains(start)]
            settled = [
                due for due in asks if due - rhythm.offset >= end + timedelta(seconds=settle)
            ]
            assert settled, f"{start} is never asked after it settled"
            assert min(asks) <= end + rhythm.period + rhythm.offset


@given(
    count=st.integers(1, 4000),
    cadence=st.sampled_from([5.0, 7.5, 15.0, 60.0, 300.0]),
    batch=st.sampled_from([1, 20, 100]),
)
@settings(max_examples=40, deadline=None)
def test_each_symbol_is_in_exactly_one_batch_of_a_cycle_and_the_load_is_even(count, cadence, batch):
    group = members(Tier.T1, count)
    p = plan(group, cadence_t1={"quotes_l1": cadence, "bars_1m": 300}, live_batch_size=batch)
    start = at("2024-12-02T15:00")
    cycle = of(p.live(Window(start, start + timedelta(seconds=cadence))), Kind.QUOTES_L1)
    asked = Counter(s for slot in cycle for ask in p.asks(slot, {}) for s in ask.symbols)
    assert asked == Counter(member.symbol for member in group)
    loads = [sum(len(ask.symbols) for ask in p.asks(slot, {})) for slot in cycle]
    assert max(loads) - min(loads) <= 1
    assert all(len(ask.symbols) <= batch for slot in cycle for ask in p.asks(slot, {}))
    gaps = [b.due - a.due for a, b in pairwise(cycle)]
    assert not gaps or max(gaps) - min(gaps) <= timedelta(microseconds=1)


@given(
    cuts=st.lists(st.integers(0, 1800_000_000), max_size=6),
    count=st.integers(1, 500),
)
@settings(max_examples=25, deadline=None)
def test_slots_of_adjoining_windows_are_the_slots_of_the_whole(cuts, count):
    p = plan(members(Tier.T0, count), members(Tier.T1, count, first=1000))
    start = at("2024-12-02T14:20")
    edges = [start + timedelta(microseconds=c) for c in sorted({0, *cuts, 1800_000_000})]
    pieces = [s for a, b in pairwise(edges) for s in p.live(Window(a, b))]
    assert sorted(pieces, key=repr) == sorted(p.live(Window(edges[0], edges[-1])), key=repr)


@given(now=st.integers(0, 86_400_000_000), cadence=st.sampled_from([1.0, 5.0, 7.0, 60.0, 300.0]))
@settings(max_examples=100, deadline=None)
def test_the_next_due_instant_is_the_next_slot_of_the_grid(now, cadence):
    rhythm = quotes_rhythm(Tier.T1, cadence, 777, 100)
    after = at("2024-12-02T00:00") + timedelta(microseconds=now)
    due = rhythm.next_due(after)
    following = Window(after + timedelta(microseconds=1), due + timedelta(microseconds=1))
    assert [slot.due for slot in rhythm.slots(following)] == [due]


def test_a_plan_from_the_same_rows_is_the_same_whatever_their_order():
    group = members(Tier.T1, 333) + members(Tier.T0, 40, first=1000)
    one, two = plan(group), plan(list(reversed(group)))
    window = Window(at("2024-12-02T15:00"), at("2024-12-02T15:05"))
    assert one.live(window) == two.live(window)
    assert [one.asks(s, {}) for s in one.live(window)] == [
        two.asks(s, {}) for s in two.live(window)
    ]


def test_a_symbol_that_joins_moves_hardly_anybody_to_another_phase():
    before, after = plan(members(Tier.T1, 3000)), plan(members(Tier.T1, 3001))
    window = Window(at("2024-12-02T15:00"), at("2024-12-02T15:05"))

    def phases(p: Plan) -> dict[str, int]:
        return {
            symbol: slot.phase
            for slot in of(p.live(window), Kind.BARS_1M)
            for ask in p.asks(slot, {})
            for symbol in ask.symbols
        }

    was, now = phases(before), phases(after)
    # 30 phases before, 31 after: the cuts move, at worst every second symbol to the next phase.
    assert before.rhythms[Kind.BARS_1M, Tier.T1].phases == 30
    same = plan(members(Tier.T1, 2990))
    assert sum(was[s] != p for s, p in phases(same).items()) <= 30
    assert set(now) == {*was, "S3001"}


def test_those_who_wait_longest_come_first_and_batches_stay_as_they_are():
    p = plan(members(Tier.T0, 250), live_batch_size=100)
    slot = of(p.live(Window(at("2024-12-02T15:00"), at("2024-12-02T15:01"))), Kind.BARS_1M)[0]
    plain = {ask.part: set(ask.symbols) for ask in p.asks(slot, {})}
    answered = {i: at("2024-12-02T14:59") for i in range(1, 251)}
    starved = sorted(plain[2])[:3]
    for symbol in starved:
        answered[int(symbol[1:])] = at("2024-12-02T14:50")
    asks = p.asks(slot, answered)
    assert asks[0].part == 2
    assert set(asks[0].symbols[:3]) == set(starved)
    assert {ask.part: set(ask.symbols) for ask in asks} == plain


def test_the_end_of_day_sweep_begins_half_an_hour_after_the_close_and_asks_each_symbol_once():
    p = plan(
        members(Tier.T0, 30), members(Tier.T1, 70, first=100), members(Tier.T2, 200, first=1000)
    )
    daily = p.daily(day("2024-11-29T12:00"))
    sweep = of(daily, Kind.BARS_EOD)
    assert min(slot.due for slot in sweep) == at("2024-11-29T18:30")
    assert max(slot.due for slot in sweep) < at("2024-11-29T18:40")
    asked = Counter(s for slot in sweep for ask in p.asks(slot, {}) for s in ask.symbols)
    assert asked == Counter(member.symbol for member in p.members)
    assert {ask.window for slot in sweep for ask in p.asks(slot, {})} == {
        Window(at("2024-11-29T14:30"), at("2024-11-29T18:00"))
    }
    assert {slot.tier for slot in of(daily, Kind.REREAD)} == {Tier.T0, Tier.T1}


def test_a_session_is_read_again_from_each_source_that_supplied_it():
    p = plan(members(Tier.T0, 3))
    (slot,) = of(p.daily(day("2024-11-29T12:00")), Kind.REREAD)
    asks = p.asks(slot, {}, {1: ["yfinance"], 2: ["finnhub", "yfinance"]})
    assert sorted((ask.provider, ask.symbols) for ask in asks) == [
        ("finnhub", ("S2",)),
        ("yfinance", ("S1", "S2")),
    ]
    assert p.asks(slot, {}, {}) == []


def test_t2_is_swept_as_often_as_asked_before_the_next_open():
    p = plan(members(Tier.T2, 10), cadence_t2={"eod": 2})
    sweeps = p.daily_of(at("2024-11-29T18:00"))
    # From 18:30 on Friday to 14:30 on Monday are 68 hours; the second sweep is half way.
    assert [slot.due for slot in sweeps] == [at("2024-11-29T18:30"), at("2024-12-01T04:30")]
    assert len({slot.phase for slot in sweeps}) == 2
    assert p.daily(Window(at("2024-12-01T04:00"), at("2024-12-01T05:00"))) == sweeps[1:]


def test_no_calendar_no_slots():
    p = plan(members(Tier.T0, 3, "XLON"))
    assert p.live(day("2024-11-29T00:00")) == []
    assert p.daily(day("2024-11-29T00:00")) == []


def test_phases_are_as_many_as_batches_and_no_smaller_than_a_job_is_worth():
    assert phase_count(3000, timedelta(seconds=300), 100) == 30
    assert phase_count(70, timedelta(seconds=300), 100) == 4
    assert phase_count(30, timedelta(seconds=60), 100) == 2
    assert phase_count(1200, timedelta(seconds=5), 100) == 12
    assert phase_count(9000, timedelta(seconds=5), 100) == 20
    assert phase_count(1, timedelta(seconds=1), 100) == 1
