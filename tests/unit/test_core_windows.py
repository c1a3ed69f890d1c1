"""Window arithmetic against plain sets of minutes."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.windows import Window, floor_to, merge, runs, subtract

EPOCH = datetime(2025, 3, 10, 13, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def at(minute: int) -> datetime:
    return EPOCH + minute * MINUTE


def minutes(windows: list[Window]) -> set[int]:
    return {m for m in range(-5, 80) for w in windows if w.contains(at(m))}


spans = st.tuples(st.integers(0, 60), st.integers(1, 15)).map(
    lambda p: Window(at(p[0]), at(p[0] + p[1]))
)


@given(st.lists(spans))
def test_merge_keeps_every_minute_and_makes_windows_disjoint(windows: list[Window]) -> None:
    merged = merge(windows)
    assert minutes(merged) == minutes(windows)
    assert all(left.end < right.start for left, right in pairwise(merged))


@given(st.lists(spans), st.lists(spans))
def test_subtract_leaves_exactly_the_minutes_that_no_hole_holds(
    whole: list[Window], holes: list[Window]
) -> None:
    assert minutes(subtract(whole, holes)) == minutes(whole) - minutes(holes)


@given(st.sets(st.integers(0, 60)))
def test_runs_join_neighbouring_minutes_only(starts: set[int]) -> None:
    windows = runs([at(m) for m in starts], MINUTE)
    assert minutes(windows) == starts
    assert len(windows) == sum(1 for m in starts if m - 1 not in starts)


@given(spans, st.integers(1, 20))
def test_chunks_tile_the_window_and_none_is_too_long(window: Window, span: int) -> None:
    pieces = list(window.chunks(span * MINUTE))
    assert pieces[0].start == window.start
    assert pieces[-1].end == window.end
    assert all(left.end == right.start for left, right in pairwise(pieces))
    assert all(piece.length <= span * MINUTE for piece in pieces)


def test_a_window_that_ends_before_it_starts_is_refused_with_both_ends_named() -> None:
    with pytest.raises(
        ValueError, match=r"ends at 2025-03-10T13:29.*not after its start 2025-03-10T13:30"
    ):
        Window(at(0), at(-1))


def test_a_window_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        Window(at(0).replace(tzinfo=None), at(1).replace(tzinfo=None))


def test_floor_to_cuts_to_the_last_whole_step() -> None:
    assert floor_to(EPOCH + timedelta(seconds=59), MINUTE) == EPOCH
    assert floor_to(EPOCH, MINUTE) == EPOCH
