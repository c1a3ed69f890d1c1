"""From gaps to rows: everything missing is asked for, nothing twice, nothing more than needed."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from core.windows import Window, merge, runs, subtract
from core.words import Interval, Tier
from db.gaps import Gap
from db.judging import Held
from scheduler.gap_rows import Judgement, Rows, rows_for

OPEN = datetime(2024, 12, 2, 14, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NOW = OPEN + timedelta(hours=6)


def span(start: int, end: int) -> Window:
    return Window(OPEN + start * MINUTE, OPEN + end * MINUTE)


def gap(start: int, end: int, symbol_id: int = 1) -> Gap:
    return Gap(symbol_id, Interval.M1, span(start, end), Tier.T0)


def held(job_id: int, start: int, end: int, *, waits: bool = False, elastic: bool = True) -> Held:
    return Held(job_id, 1, span(start, end), NOW + MINUTE if waits else None, elastic)


def judge(
    gaps: list[Gap],
    rows: list[Held] | None = None,
    said: list[Window] | None = None,
    *,
    chunk: int = 1440,
    sources: int = 1,
    since: int | None = None,
) -> Rows:
    expected = {} if since is None else {1: OPEN + since * MINUTE}
    judgement = Judgement(NOW, chunk * MINUTE, 8, sources, expected)
    return rows_for(gaps, rows or [], {1: said or []}, judgement)


def minutes(windows: list[Window]) -> set[datetime]:
    return {w.start + i * MINUTE for w in windows for i in range(w.length // MINUTE)}


runs_of_minutes = st.sets(st.integers(0, 200), max_size=60).map(
    lambda found: runs((OPEN + m * MINUTE for m in found), MINUTE)
)


@given(
    missing=runs_of_minutes,
    in_hand=runs_of_minutes,
    said=runs_of_minutes,
    elastic=st.booleans(),
    waits=st.booleans(),
    chunk=st.sampled_from([7, 60, 1440]),
)
@settings(max_examples=200, deadline=None)
def test_what_is_missing_and_not_in_hand_is_in_exactly_one_row(
    missing, in_hand, said, elastic, waits, chunk
):
    gaps = [Gap(1, Interval.M1, window, Tier.T0) for window in missing]
    rows_in_hand = [
        Held(i, 1, window, NOW + MINUTE if waits else None, elastic)
        for i, window in enumerate(in_hand)
    ]
    rows = judge(gaps, rows_in_hand, said, chunk=chunk)
    fresh = subtract(missing, in_hand)
    asked = merge([*(job.window for job in rows.new), *rows.wider.values()])
    assert minutes(fresh) <= minutes(asked)
    assert rows.found == len(minutes(fresh))
    assert all(job.window.length <= chunk * MINUTE for job in rows.new)
    # What no source has answered is asked for at once, and nothing beside it.
    unsaid = subtract(fresh, said)
    at_once = [job.window for job in rows.new if job.not_before is None]
    assert minutes(at_once) <= minutes(unsaid)
    assert len(minutes(at_once)) == sum(window.length // MINUTE for window in at_once)


def test_a_run_is_one_row():
    rows = judge([gap(0, 20), gap(25, 26)])
    assert [job.window for job in rows.new] == [span(0, 20), span(25, 26)]
    assert rows.found == 21


def test_a_run_that_goes_on_stretches_the_row_that_waits_for_it():
    rows = judge([gap(0, 21)], [held(7, 0, 20)])
    assert rows.wider == {7: span(0, 21)}
    assert rows.new == []
    assert rows.found == 1


def test_a_row_that_runs_or_that_somebody_asked_for_is_not_stretched():
    rows = judge([gap(0, 21)], [held(7, 0, 20, elastic=False)])
    assert rows.wider == {}
    assert [job.window for job in rows.new] == [span(20, 21)]


def test_a_row_that_has_to_wait_takes_in_no_minute_that_nobody_answered():
    rows = judge([gap(0, 21)], [held(7, 0, 20, waits=True)])
    assert rows.wider == {}
    assert [(job.window, job.not_before) for job in rows.new] == [(span(20, 21), None)]


def test_a_row_grows_to_two_hours_at_most():
    assert judge([gap(0, 121)], [held(7, 0, 120)]).wider == {}


def test_doubts_wait_together_and_holes_go_at_once():
    rows = judge([gap(3, 4), gap(10, 12), gap(50, 51)], said=[span(0, 30)])
    assert [(job.window, job.not_before) for job in rows.new] == [
        (span(3, 12), NOW + timedelta(minutes=15)),
        (span(50, 51), None),
    ]


def test_doubts_wait_less_where_another_source_can_be_asked():
    (job,) = judge([gap(3, 4)], said=[span(0, 30)], sources=2).new
    assert job.not_before == NOW + timedelta(minutes=5)


def test_a_doubt_joins_the_row_that_waits_nearby():
    rows = judge([gap(3, 4), gap(20, 21)], [held(7, 3, 4, waits=True)], said=[span(0, 30)])
    assert rows.wider == {7: span(3, 21)}
    assert rows.new == []
    assert rows.found == 1


def test_nothing_is_expected_before_the_symbol_was_listed():
    rows = judge([gap(0, 20)], since=15)
    assert [job.window for job in rows.new] == [span(15, 20)]
    assert judge([gap(0, 20)], since=20).new == []


def test_a_daily_bar_is_asked_for_whole_however_short_the_chunks():
    session = Gap(1, Interval.D1, span(0, 390), Tier.T2)
    rows = judge([session], chunk=60)
    assert [job.window for job in rows.new] == [span(0, 390)]
    assert rows.found == 1
