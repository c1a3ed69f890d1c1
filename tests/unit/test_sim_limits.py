"""Limits are rolling windows by arrival, faults are a timeline."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.config import LimitSpec
from sim.faults import FaultPlan, FaultSpec
from sim.limits import Limiter

ALL = frozenset({"bars_1m", "bars_eod", "quotes_l1", "meta"})


def limiter(
    *limits: tuple[int, float], scope: str = "key", capabilities: frozenset[str] = ALL
) -> Limiter:
    return Limiter([LimitSpec(units, seconds, scope, capabilities) for units, seconds in limits])


def arrive(
    limits: Limiter, at: float, *, key: str = "k", address: str = "a", capability: str = "bars_1m"
) -> bool:
    return limits.arrive(capability, key, address, at) is None


def test_the_window_rolls_and_does_not_start_afresh_each_minute() -> None:
    limits = limiter((2, 60))
    assert arrive(limits, 50)
    assert arrive(limits, 59)
    assert not arrive(limits, 61)
    assert not arrive(limits, 109.99)
    assert arrive(limits, 110)
    assert not arrive(limits, 118.99)
    assert arrive(limits, 119)


def test_a_refused_request_fills_no_window() -> None:
    limits = limiter((1, 10))
    assert arrive(limits, 0)
    assert not any(arrive(limits, at) for at in (1, 5, 9))
    assert arrive(limits, 10)


def test_a_request_that_one_window_refuses_does_not_fill_the_other() -> None:
    limits = limiter((1, 1), (2, 100))
    assert arrive(limits, 0)
    assert not arrive(limits, 0.5)
    assert arrive(limits, 1)


def test_a_violation_names_the_window_that_stays_full_longest() -> None:
    limits = limiter((1, 1), (1, 60))
    assert arrive(limits, 0)
    violation = limits.arrive("bars_1m", "k", "a", 0.5)
    assert violation is not None
    assert (violation.units, violation.seconds, violation.reset) == (1, 60, 60)


@pytest.mark.parametrize(("scope", "others"), [("key", True), ("ip", False), ("source", False)])
def test_the_scope_says_who_shares_a_window(scope: str, others: bool) -> None:
    limits = limiter((1, 60), scope=scope)
    assert arrive(limits, 0, key="first")
    assert arrive(limits, 1, key="second") is others


def test_a_limit_counts_only_its_capabilities() -> None:
    limits = limiter((1, 60), capabilities=frozenset({"quotes_l1"}))
    assert all(arrive(limits, at) for at in range(5))
    assert arrive(limits, 6, capability="quotes_l1")
    assert not arrive(limits, 7, capability="quotes_l1")


def test_headroom_is_of_the_tightest_window() -> None:
    limits = limiter((5, 60), (3, 1))
    arrive(limits, 0)
    room = limits.headroom("k", "a", 0)
    assert room is not None
    assert (room.limit, room.remaining, room.reset) == (3, 2, 1)
    assert limiter().headroom("k", "a", 0) is None


@given(
    units=st.integers(1, 5),
    seconds=st.floats(0.5, 30),
    steps=st.lists(st.floats(0, 10), min_size=1, max_size=80),
)
def test_no_window_ever_lets_more_through_than_its_units(
    units: int, seconds: float, steps: list[float]
) -> None:
    limits, at, passed = limiter((units, seconds)), 0.0, list[float]()
    for step in steps:
        at += step
        if arrive(limits, at):
            passed.append(at)
    for last in passed:
        assert sum(last - seconds < earlier <= last for earlier in passed) <= units


def spec(**words: object) -> FaultSpec:
    plain: dict[str, object] = {
        "source": "yahoo", "capability": "*", "kind": "5xx", "start": "now",
        "minutes": 10.0, "share": 1.0, "name": None, "extra": {},
    }  # fmt: skip
    return FaultSpec(**(plain | words))  # pyright: ignore[reportArgumentType]


def test_a_fault_is_in_force_from_its_start_until_before_its_end() -> None:
    plan = FaultPlan(1)
    plan.add(spec(), 100.0)
    assert [bool(plan.active("yahoo", "bars_1m", at, "r")) for at in (99.9, 100, 699.9, 700)] == [
        False, True, True, False,
    ]  # fmt: skip


def test_a_fault_meets_its_source_and_capability_only() -> None:
    plan = FaultPlan(1)
    plan.add(spec(capability="quotes_l1"), 0.0)
    plan.add(spec(source="*", capability="bars_eod"), 0.0)
    assert not plan.active("yahoo", "bars_1m", 1, "r")
    assert plan.active("yahoo", "quotes_l1", 1, "r")
    assert not plan.active("finnhub", "quotes_l1", 1, "r")
    assert plan.active("finnhub", "bars_eod", 1, "r")


def test_a_share_decides_by_request_and_instant_the_same_way_each_time() -> None:
    plan, again = FaultPlan(1), FaultPlan(1)
    for each in (plan, again):
        each.add(spec(share=0.25), 0.0)
    hits = [bool(plan.active("yahoo", "bars_1m", at / 10, "r")) for at in range(4000)]
    assert hits == [bool(again.active("yahoo", "bars_1m", at / 10, "r")) for at in range(4000)]
    assert 0.2 < sum(hits) / len(hits) < 0.3


def test_a_refusal_tells_its_edges() -> None:
    plan = FaultPlan(1)
    plan.add(spec(kind="refuse", source="*"), 600.0)
    assert [plan.refused("finnhub", at) for at in (599, 600, 1199, 1200)] == [
        False,
        True,
        True,
        False,
    ]
    assert plan.next_edge("finnhub", 0) == 600
    assert plan.next_edge("finnhub", 600) == 1200
    assert plan.next_edge("finnhub", 1200) is None


def test_faults_are_cleared_by_name_or_all() -> None:
    plan = FaultPlan(1)
    first = plan.add(spec(), 0.0)
    plan.add(spec(name="mine"), 0.0)
    plan.clear([first.id, "unknown"])
    assert [fault.id for fault in plan.all()] == ["mine"]
    plan.clear()
    assert plan.all() == ()
