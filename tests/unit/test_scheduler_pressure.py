"""Who yields when queues are behind, and until when a job is worth anything."""

from datetime import UTC, date, datetime, timedelta

import pytest

from core.sessions import Calendar, Session
from core.settings import Settings
from core.windows import Window
from core.words import Tier
from db.universe import Member
from scheduler.cadence import Slot
from scheduler.plan import Plan
from scheduler.pressure import Pressure, allowance, stale_after
from workers.queues import Kind

NOON = datetime(2024, 12, 2, 17, 0, tzinfo=UTC)
HOURS = Window(datetime(2024, 12, 2, 14, 30, tzinfo=UTC), datetime(2024, 12, 2, 21, tzinfo=UTC))
NYSE = Calendar(
    "NYSE", 1, date(2024, 12, 1), date(2024, 12, 9), [Session(date(2024, 12, 2), (HOURS,))]
)


@pytest.fixture
def plan() -> Plan:
    """T0: one bar job a minute and one quote job each 60 s; T1: four of each in 300 s."""
    members = [Member(i, f"A{i}", Tier.T0, "NYSE", "") for i in range(1, 11)]
    members += [Member(i, f"B{i}", Tier.T1, "NYSE", "") for i in range(100, 170)]
    members += [Member(i, f"C{i}", Tier.T2, "NYSE", "") for i in range(1000, 1200)]
    cadences = Settings(
        cadence_t0={"bars_1m": 60, "quotes_l1": 60},  # type: ignore[arg-type]
        cadence_t1={"bars_1m": 300, "quotes_l1": 300},  # type: ignore[arg-type]
    )
    return Plan(members, {"NYSE": NYSE}, cadences)


def slot(kind: Kind, tier: Tier) -> Slot:
    return Slot(kind, tier, NOON, 0, NOON)


def who_yields(plan: Plan, speed: float = 1.0, **depths: int) -> set[tuple[str, str]]:
    pressure = Pressure(plan, {f"collect:{tier}": n for tier, n in depths.items()}, speed)
    return {
        (str(kind), str(tier))
        for kind in Kind
        for tier in Tier
        if (kind, tier) in plan.rhythms or kind is Kind.BARS_EOD
        if pressure.yields(slot(kind, tier))
    }


def test_two_cadences_of_work_are_no_backlog(plan):
    assert allowance(plan, Tier.T0, 1.0) == 4
    assert allowance(plan, Tier.T1, 1.0) == 16
    assert who_yields(plan, T0=4) == {("bars_eod", "T0")}


def test_quotes_and_daily_work_of_every_lower_tier_yield_first(plan):
    assert who_yields(plan, T0=5) == {
        ("quotes_l1", "T0"),
        ("quotes_l1", "T1"),
        ("bars_eod", "T0"),
        ("bars_eod", "T1"),
        ("bars_eod", "T2"),
    }


def test_then_the_bars_of_lower_tiers_and_the_own_ones_last(plan):
    assert ("bars_1m", "T1") in who_yields(plan, T0=7)
    assert ("bars_1m", "T0") not in who_yields(plan, T0=8)
    assert ("bars_1m", "T0") in who_yields(plan, T0=9)


def test_a_lower_tier_that_is_behind_costs_a_higher_one_nothing(plan):
    assert not {tier for _, tier in who_yields(plan, T1=100, T2=100)} & {"T0"}


def test_in_a_fast_replay_a_few_real_seconds_of_work_are_no_backlog(plan):
    # 3 real seconds at 160x are 8 minutes: 8 bar jobs and 8 quote jobs of T0.
    assert allowance(plan, Tier.T0, 160.0) == 16
    assert ("quotes_l1", "T0") not in who_yields(plan, 160.0, T0=16)


def test_daily_work_waits_while_two_jobs_wait_and_what_was_pushed_counts(plan):
    pressure = Pressure(plan, {"collect:T2": 1}, 1.0)
    eod = slot(Kind.BARS_EOD, Tier.T2)
    assert not pressure.yields(eod)
    pressure.took(eod, 1)
    assert pressure.yields(eod)


@pytest.mark.parametrize(
    ("kind", "speed", "seconds"),
    [
        (Kind.BARS_1M, 1.0, 60),
        (Kind.QUOTES_L1, 1.0, 60),
        # 60 s last 0.375 s at 160x; bars get 3 real seconds, quotes 1.5.
        (Kind.BARS_1M, 160.0, 480),
        (Kind.QUOTES_L1, 160.0, 240),
        (Kind.BARS_EOD, 160.0, 86_400),
    ],
)
def test_a_job_is_worth_something_for_a_cadence_or_a_few_real_seconds(plan, kind, speed, seconds):
    assert stale_after(slot(kind, Tier.T0), plan, speed) == NOON + timedelta(seconds=seconds)
