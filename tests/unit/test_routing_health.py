"""Health: four terms, their weights, how they fade; by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing import health
from routing.circuit import State
from routing.health import Health

unit = st.floats(0, 1)


@given(st.sampled_from(list(State)), unit, unit, unit)
def test_the_score_lies_between_0_and_1(state: State, a: float, b: float, c: float) -> None:
    assert 0 <= Health(health.breaker_term(state), a, b, c).score <= 1


def test_the_weights_are_the_user_s() -> None:
    terms = [Health(1, 0, 0, 0), Health(0, 1, 0, 0), Health(0, 0, 1, 0), Health(0, 0, 0, 1)]
    assert [term.score for term in terms] == [0.45, 0.25, 0.20, 0.10]


def test_a_source_without_samples_is_in_full_health() -> None:
    assert Health().score == pytest.approx(1.0)


def test_an_open_breaker_alone_makes_a_source_ineligible() -> None:
    assert not Health(breaker=health.breaker_term(State.OPEN)).eligible


def test_a_half_open_breaker_counts_half() -> None:
    half = Health(breaker=health.breaker_term(State.HALF_OPEN))
    assert half.score == pytest.approx(0.775)
    assert half.eligible


@pytest.mark.parametrize(
    ("latency_s", "sample"),
    # ln(3 / 0.5) / ln(20) = 0.598, ln(3) / ln(20) = 0.367
    [(0.0, 1.0), (0.15, 1.0), (0.5, 0.598), (1.0, 0.367), (3.0, 0.0), (9.0, 0.0)],
)
def test_latency_is_judged_against_the_time_limit(latency_s: float, sample: float) -> None:
    assert health.latency_sample(latency_s, 3.0) == pytest.approx(sample, abs=1e-3)


def test_a_term_goes_half_of_the_way_back_to_1_in_thirty_seconds() -> None:
    assert health.relax(0.0, 30) == pytest.approx(0.5)
    assert health.relax(0.2, 60) == pytest.approx(0.8)
    assert health.relax(0.4, -5) == pytest.approx(0.4)


@given(unit, unit, st.integers(1, 10_000))
def test_samples_pull_a_term_towards_their_mean(term: float, mean: float, count: int) -> None:
    blended = health.blend(term, mean, count)
    assert min(term, mean) - 1e-9 <= blended <= max(term, mean) + 1e-9


def test_ten_times_slower_than_usual_is_a_failure_and_twice_is_not() -> None:
    assert health.is_slow(0.6, 3.0, 0.06)
    assert not health.is_slow(0.12, 3.0, 0.06)
    assert not health.is_slow(0.2, 3.0, 0.01), "a quarter second is never slow"
    assert not health.is_slow(0.6, 3.0, None), "nobody knows what is usual"
    assert health.is_slow(2.5, 3.0, None), "nearly the time limit"


def test_an_empty_answer_is_a_failure_only_where_answers_are_usually_complete() -> None:
    assert health.is_hollow(3, 0, 0.97)
    assert not health.is_hollow(3, 1, 0.97)
    assert not health.is_hollow(3, 0, 0.4), "rarely traded symbols"
    assert not health.is_hollow(3, 0, None)
    assert not health.is_hollow(0, 0, 0.97)
    assert not health.is_hollow(1, 0, 0.97), "one minute may pass without a trade"


@pytest.mark.parametrize(("expected", "received", "sample"), [(4, 2, 0.5), (4, 4, 1), (4, 9, 1)])
def test_completeness_is_the_share_that_came(expected: int, received: int, sample: float) -> None:
    assert health.completeness_sample(expected, received) == sample


def test_what_no_source_has_is_missing_for_none() -> None:
    assert health.completeness_sample(10, 6, 0.6) == 1
    assert health.completeness_sample(10, 3, 0.6) == pytest.approx(0.5)
    assert health.completeness_sample(10, 1, 0.0) == 1, "where hardly anything trades"
