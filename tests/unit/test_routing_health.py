"""The health score: its four terms and their weights, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.health import Sums, judge

numbers = st.floats(0, 1e6)


@given(
    st.sampled_from(["closed", "ramp", "half_open", "open"]),
    st.builds(Sums, numbers, numbers, numbers, numbers, numbers, numbers),
)
def test_every_term_and_the_score_stay_between_0_and_1(state: str, sums: Sums) -> None:
    health = judge(state, sums)
    terms = (health.breaker, health.latency, health.errors, health.completeness, health.score)
    assert all(0 <= term <= 1 + 1e-9 for term in terms)


def test_a_source_without_samples_is_in_full_health() -> None:
    assert judge("closed", Sums()).score == pytest.approx(1.0)


def test_an_open_breaker_alone_makes_a_source_ineligible() -> None:
    health = judge("open", Sums())
    assert health.score == pytest.approx(0.55)
    assert not health.eligible


def test_a_half_open_breaker_counts_half() -> None:
    assert judge("half_open", Sums()).score == pytest.approx(0.775)


def test_answers_of_three_seconds_cost_the_whole_latency_term_when_there_are_many() -> None:
    slow = Sums(calls=1e6, timed=1e6, latency_ms=3e9)
    assert judge("closed", slow).score == pytest.approx(0.75, abs=1e-3)


def test_all_calls_failing_cost_the_whole_error_term() -> None:
    assert judge("closed", Sums(calls=1e6, failures=1e6)).score == pytest.approx(0.80, abs=1e-3)


def test_half_of_the_bars_missing_costs_half_of_the_completeness_term() -> None:
    sums = Sums(expected=1e6, received=5e5)
    assert judge("closed", sums).score == pytest.approx(0.95, abs=1e-3)
