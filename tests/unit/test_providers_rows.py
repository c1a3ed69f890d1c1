"""From rows to bars: what is kept, what is dropped, what is reported."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadRequestError
from core.sessions import Calendar, Session
from core.windows import Window
from providers.rows import daily_bars, minute_bars

DAY = date(2024, 3, 6)
OPEN, CLOSE = datetime(2024, 3, 6, 14, 30, tzinfo=UTC), datetime(2024, 3, 6, 21, tzinfo=UTC)
LUNCH = (
    Window(OPEN, OPEN + timedelta(hours=2)),
    Window(OPEN + timedelta(hours=3), CLOSE),
)
PLAIN = Calendar("X", 1, date(2024, 3, 4), date(2024, 3, 8), [Session(DAY, (Window(OPEN, CLOSE),))])
BROKEN = Calendar("Y", 1, date(2024, 3, 4), date(2024, 3, 8), [Session(DAY, LUNCH)])
WIDE = Window(datetime(2024, 3, 6, tzinfo=UTC), datetime(2024, 3, 7, tzinfo=UTC))


def epoch(minutes: float) -> int:
    """Seconds of the instant so many minutes after the open."""
    return int(OPEN.timestamp() + 60 * minutes)


def row(minutes: float, price: object = 10.0, volume: object = 5):
    return epoch(minutes), price, price, price, price, volume


def starts(bars) -> list[float]:
    return [(bar.ts - OPEN).total_seconds() / 60 for bar in bars]


def test_rows_of_regular_hours_become_bars() -> None:
    bars, rejects = minute_bars("A", [(epoch(0), 10, 12, 9.5, 11, 300)], WIDE, PLAIN)

    assert rejects == []
    assert [(b.ts, b.open, b.high, b.low, b.close, b.volume) for b in bars] == [
        (OPEN, 10.0, 12.0, 9.5, 11.0, 300.0)
    ]
    assert bars[0].session is None


def test_average_price_and_trades_are_kept_where_a_vendor_has_them() -> None:
    long = [(*row(0), 10.5, 7), (*row(1), None, None), (*row(2), "x", 2.5)]

    bars, rejects = minute_bars("A", long, WIDE, PLAIN)

    assert [(b.vwap, b.trade_count) for b in bars] == [(10.5, 7), (None, None), (None, None)]
    assert rejects == []


@pytest.mark.parametrize(
    ("minutes", "kept"),
    [(-1, False), (0, True), (389, True), (390, False), (391, False), (0.5, False)],
    ids=["before", "first", "last", "closing row", "after hours", "live tick"],
)
def test_only_aligned_rows_of_trading_hours_are_kept(minutes: float, kept: bool) -> None:
    bars, rejects = minute_bars("A", [row(minutes)], WIDE, PLAIN)

    assert (len(bars), rejects) == (int(kept), [])


def test_a_lunch_break_is_no_trading_time() -> None:
    bars, _ = minute_bars("A", [row(119), row(120), row(179), row(180)], WIDE, BROKEN)

    assert starts(bars) == [119, 180]


def test_the_window_is_half_open() -> None:
    window = Window(OPEN + timedelta(minutes=1), OPEN + timedelta(minutes=3))

    bars, _ = minute_bars("A", [row(n) for n in range(5)], window, PLAIN)

    assert starts(bars) == [1, 2]


@pytest.mark.parametrize(
    "window",
    [
        Window(datetime(2024, 2, 1, tzinfo=UTC), datetime(2024, 2, 2, tzinfo=UTC)),
        Window(datetime(2024, 4, 1, tzinfo=UTC), datetime(2024, 4, 2, tzinfo=UTC)),
    ],
    ids=["before", "after"],
)
def test_beyond_the_dates_that_a_calendar_knows_nothing_is_dropped(window: Window) -> None:
    at = int(window.start.timestamp()) + 600

    bars, _ = minute_bars("A", [(at, 1, 1, 1, 1, 1)], window, PLAIN)

    assert len(bars) == 1


def test_without_a_calendar_all_hours_are_kept() -> None:
    assert len(minute_bars("A", [row(-300), row(0)], WIDE, None)[0]) == 2


def test_a_row_of_nulls_is_an_absent_bar_whatever_its_volume() -> None:
    assert minute_bars("A", [row(0, None, None), row(1, None, 0)], WIDE, PLAIN) == ([], [])


def test_an_unknown_volume_is_not_zero() -> None:
    bars, _ = minute_bars("A", [row(0, volume=None), row(1, volume=0)], WIDE, PLAIN)

    assert [bar.volume for bar in bars] == [None, 0.0]


def test_of_two_rows_for_one_minute_the_later_wins() -> None:
    bars, _ = minute_bars("A", [row(1, 9.0), row(0), row(1, 8.0)], WIDE, PLAIN)

    assert [(minute, bar.close) for minute, bar in zip(starts(bars), bars, strict=True)] == [
        (0, 10.0),
        (1, 8.0),
    ]


def test_a_null_row_does_not_hide_the_bar_that_came_with_it() -> None:
    bars, _ = minute_bars("A", [row(1, 9.0), row(1, None)], WIDE, PLAIN)

    assert [bar.close for bar in bars] == [9.0]


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ((10, 9, 11, 10, 5), "out of order"),
        ((10, 11, 0, 10, 5), "low 0.0 is not above 0"),
        ((10, 11, -1, 10, 5), "low -1.0 is not above 0"),
        ((10, 11, float("nan"), 10, 5), "not all finite"),
        ((10, float("inf"), 9, 10, 5), "not all finite"),
        ((None, 11, 9, 10, 5), "open is None; expected a number"),
        ((10, "11", 9, 10, 5), "high is '11'; expected a number"),
        ((10, 11, True, 10, 5), "low is True; expected a number"),
        ((10, 11, 9, 10, -5), "volume -5.0 is not a number at or above 0"),
        ((10, 11, 9, 10, "many"), "volume is 'many'; expected a number or null"),
        ((10, 11, 9, 10, float("nan")), "volume nan"),
    ],
)
def test_a_row_that_can_not_be_a_bar_is_reported_not_repaired(cells, reason: str) -> None:
    bars, rejects = minute_bars("A", [(epoch(0), *cells)], WIDE, PLAIN, {epoch(0): "a.csv line 2"})

    assert bars == []
    ((symbol, ts, why),) = rejects
    assert (symbol, ts) == ("A", OPEN)
    assert reason in why
    assert why.startswith("a.csv line 2: ")


cell = st.one_of(
    st.none(), st.floats(), st.integers(), st.text(max_size=2), st.booleans(), st.floats(1, 2)
)


@given(
    st.lists(st.tuples(st.integers(epoch(-30), epoch(420)), cell, cell, cell, cell, cell)),
    st.integers(-20, 400),
    st.integers(1, 60),
)
def test_whatever_comes_bars_are_in_the_window_aligned_ascending_and_possible(
    rows, first: int, length: int
) -> None:
    start = OPEN + timedelta(minutes=first)
    window = Window(start, start + timedelta(minutes=length))

    bars, rejects = minute_bars("A", rows, window, PLAIN)

    assert all(a.ts < b.ts for a, b in pairwise(bars))
    assert all(window.contains(bar.ts) and OPEN <= bar.ts < CLOSE for bar in bars)
    assert all(bar.ts.timestamp() % 60 == 0 and bar.problem() is None for bar in bars)
    assert all(window.contains(ts) for _, ts, _ in rejects)


def test_a_daily_bar_is_labelled_by_its_sessions_open() -> None:
    bars, _ = daily_bars("A", [(DAY, 1, 2, 1, 2, 7)], WIDE, PLAIN)

    assert [(bar.ts, bar.session, bar.close) for bar in bars] == [(OPEN, DAY, 2.0)]


def test_a_daily_bar_belongs_to_the_window_that_holds_its_open() -> None:
    rows = [(DAY, 1, 2, 1, 2, 7)]

    assert len(daily_bars("A", rows, Window(OPEN, CLOSE), PLAIN)[0]) == 1
    later = Window(OPEN + timedelta(minutes=1), CLOSE)
    assert daily_bars("A", rows, later, PLAIN) == ([], [])


def test_a_daily_row_of_a_closed_day_is_reported_unless_it_is_null() -> None:
    closed = date(2024, 3, 7)
    window = Window(datetime(2024, 3, 4, tzinfo=UTC), datetime(2024, 3, 9, tzinfo=UTC))

    bars, rejects = daily_bars(
        "A", [(closed, 1, 2, 1, 2, 7), (date(2024, 3, 5), None, None, None, None, 0)], window, PLAIN
    )

    assert bars == []
    ((_, ts, reason),) = rejects
    assert ts == datetime(2024, 3, 7, tzinfo=UTC)
    assert "no session on 2024-03-07" in reason


def test_of_a_daily_pair_with_nulls_the_numbers_win() -> None:
    rows = [(DAY, 1, 2, 1, 2, 7), (DAY, None, None, None, None, None)]

    assert len(daily_bars("A", rows, WIDE, PLAIN)[0]) == 1


def test_daily_bars_can_not_be_labelled_without_a_calendar() -> None:
    with pytest.raises(BadRequestError, match="without the exchange's calendar"):
        daily_bars("A", [], WIDE, None)
