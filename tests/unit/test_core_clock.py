"""The replay clock: every process that has the same segments tells the same time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import ReplayClock, Segment, SystemClock, market_at, real_at, real_timestamp

REAL, MARKET = 1_700_000_000.0, 1_741_600_000.0


def test_market_time_runs_at_the_speed_of_the_segment_in_force() -> None:
    segments = (Segment(REAL, MARKET, 1.0), Segment(REAL + 10, MARKET + 10, 100.0))
    assert market_at(segments, REAL + 5) == MARKET + 5
    assert market_at(segments, REAL + 12) == MARKET + 10 + 200


@given(
    st.lists(st.tuples(st.floats(0.5, 100), st.floats(0.5, 300)), min_size=1, max_size=5),
    st.floats(0, 600),
)
def test_real_at_is_the_inverse_of_market_at(
    parts: list[tuple[float, float]], after: float
) -> None:
    segments = [Segment(REAL, MARKET, parts[0][1])]
    for length, speed in parts[1:]:
        start = segments[-1].real_start + length
        segments.append(Segment(start, market_at(segments, start), speed))
    real = REAL + after
    assert real_at(segments, market_at(segments, real)) == pytest.approx(real, abs=1e-3)


@given(st.lists(st.tuples(st.floats(0.5, 100), st.floats(0.5, 300)), min_size=1, max_size=5))
def test_market_time_never_goes_back(parts: list[tuple[float, float]]) -> None:
    segments = [Segment(REAL, MARKET, parts[0][1])]
    for length, speed in parts[1:]:
        start = segments[-1].real_start + length
        segments.append(Segment(start, market_at(segments, start), speed))
    times = [market_at(segments, REAL + step / 2) for step in range(1000)]
    assert times == sorted(times)


def test_real_seconds_spans_a_change_of_speed() -> None:
    now = real_timestamp()
    clock = ReplayClock([Segment(now, MARKET, 1.0), Segment(now + 10, MARKET + 10, 100.0)])
    assert clock.real_seconds(110) == pytest.approx(11.0, abs=0.1)


def test_a_speed_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="speed is 0"):
        Segment(REAL, MARKET, 0)


def test_a_replay_without_segments_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one segment"):
        ReplayClock([])


def test_the_system_clock_has_no_segments_and_runs_at_one() -> None:
    clock = SystemClock()
    assert clock.segments() == ()
    assert clock.speed == 1.0
    assert clock.now().tzinfo is not None
