"""What a reply is taken to say about one symbol."""

from datetime import UTC, date, datetime, timedelta

from core.bars import Bar
from core.sessions import Calendar, Session
from core.windows import Window
from core.words import Interval
from workers.assess import Judged, assess, whole_bars

MINUTE = timedelta(minutes=1)
SETTLE = timedelta(seconds=60)
OPEN = datetime(2024, 3, 5, 14, 30, tzinfo=UTC)
CLOSE = datetime(2024, 3, 5, 21, 0, tzinfo=UTC)
CALENDAR = Calendar(
    "XNYS",
    1,
    date(2024, 3, 1),
    date(2024, 3, 31),
    [Session(date(2024, 3, 5), (Window(OPEN, CLOSE),))],
)


def at(hour: int, minute: int, second: int = 0) -> datetime:
    return datetime(2024, 3, 5, hour, minute, second, tzinfo=UTC)


def bar(ts: datetime, session: date | None = None) -> Bar:
    return Bar(ts, 10.0, 11.0, 9.0, 10.5, 100.0, session=session)


def judge(
    window: Window,
    asked_at: datetime,
    bars: list[Bar],
    *,
    rejects: tuple[tuple[datetime, str], ...] = (),
    store_partial: bool = False,
    interval: Interval = Interval.M1,
    settle: timedelta = SETTLE,
) -> Judged:
    return assess(
        7,
        CALENDAR,
        interval,
        settle,
        window,
        asked_at,
        bars,
        rejects,
        store_partial=store_partial,
    )


def test_a_full_answer_lacks_nothing() -> None:
    window = Window(at(15, 0), at(15, 3))

    judged = judge(window, at(15, 4, 1), [bar(at(15, m)) for m in (0, 1, 2)])

    assert judged.answer.lacking == ()
    assert judged.answer.window == window
    assert judged.answer.settled_until == at(15, 3)
    assert (judged.expected, judged.received) == (3, 3)


def test_missing_minutes_are_lacking_in_runs() -> None:
    judged = judge(Window(at(15, 0), at(15, 6)), at(16, 0), [bar(at(15, 0)), bar(at(15, 3))])

    assert judged.answer.lacking == (
        Window(at(15, 1), at(15, 3)),
        Window(at(15, 4), at(15, 6)),
    )
    assert (judged.expected, judged.received) == (6, 2)


def test_a_bar_asked_for_before_its_end_is_dropped() -> None:
    judged = judge(Window(at(15, 0), at(15, 2)), at(15, 1, 30), [bar(at(15, 0)), bar(at(15, 1))])

    assert [b.ts for b in judged.answer.bars] == [at(15, 0)]
    assert judged.answer.lacking == ()


def test_a_bar_asked_for_before_its_end_is_kept_as_partial_on_demand() -> None:
    judged = judge(
        Window(at(15, 0), at(15, 2)),
        at(15, 1, 30),
        [bar(at(15, 0)), bar(at(15, 1))],
        store_partial=True,
    )

    assert [(b.ts, b.partial) for b in judged.answer.bars] == [
        (at(15, 0), False),
        (at(15, 1), True),
    ]


def test_a_bar_asked_for_exactly_at_its_end_is_closed() -> None:
    judged = judge(Window(at(15, 0), at(15, 1)), at(15, 1), [bar(at(15, 0))], store_partial=True)

    assert [b.partial for b in judged.answer.bars] == [False]


def test_minutes_still_to_come_are_neither_present_nor_lacking() -> None:
    judged = judge(Window(at(15, 0), at(15, 5)), at(15, 2, 10), [bar(at(15, 0)), bar(at(15, 1))])

    assert judged.answer.lacking == ()
    assert judged.expected == 1, "only the first minute had settled"


def test_of_a_bar_that_settled_in_part_nothing_is_certain() -> None:
    judged = judge(Window(at(15, 0), at(15, 3)), at(15, 3, 3), [bar(at(15, 0))])

    assert judged.answer.lacking == (Window(at(15, 1), at(15, 3)),)
    assert judged.answer.settled_until == at(15, 2), "15:02 ended at 15:03:00, three seconds ago"
    assert judged.answer.settled_lacking() == [Window(at(15, 1), at(15, 2))]


def test_a_session_that_has_not_settled_is_not_covered_in_part() -> None:
    window = Window(datetime(2024, 3, 5, tzinfo=UTC), datetime(2024, 3, 6, tzinfo=UTC))
    half_hour = timedelta(minutes=30)

    early = judge(window, at(21, 29), [], interval=Interval.D1, settle=half_hour)
    late = judge(window, at(21, 30), [], interval=Interval.D1, settle=half_hour)

    assert early.answer.settled_until == window.start
    assert late.answer.settled_until == CLOSE


def test_closed_time_is_not_lacking() -> None:
    judged = judge(Window(at(14, 0), at(14, 32)), at(15, 0), [])

    assert judged.answer.lacking == (Window(OPEN, OPEN + 2 * MINUTE),)


def test_a_row_that_is_no_bar_is_refused_and_lacking() -> None:
    judged = judge(
        Window(at(15, 0), at(15, 2)),
        at(15, 10),
        [bar(at(15, 0))],
        rejects=((at(15, 1), "low -1 is not above 0"),),
    )

    assert [(r.symbol_id, r.ts, r.reason) for r in judged.refusals] == [
        (7, at(15, 1), "low -1 is not above 0")
    ]
    assert judged.answer.lacking == (Window(at(15, 1), at(15, 2)),)


def test_a_bar_from_the_future_is_refused() -> None:
    judged = judge(Window(at(15, 0), at(15, 9)), at(15, 2), [bar(at(15, 5))], store_partial=True)

    assert judged.answer.bars == ()
    assert [r.ts for r in judged.refusals] == [at(15, 5)]


def test_a_daily_bar_is_closed_with_its_session() -> None:
    window = Window(OPEN, CLOSE)
    daily = bar(OPEN, date(2024, 3, 5))
    half_hour = timedelta(minutes=30)

    early = judge(window, at(20, 59), [daily], interval=Interval.D1, settle=half_hour)
    late = judge(window, at(21, 0), [daily], interval=Interval.D1, settle=half_hour)

    assert early.answer.bars == ()
    assert late.answer.bars == (daily,)
    assert late.expected == 0, "it settles half an hour later"


def test_a_missing_daily_bar_lacks_its_whole_session() -> None:
    window = Window(datetime(2024, 3, 5, tzinfo=UTC), datetime(2024, 3, 6, tzinfo=UTC))

    judged = judge(window, at(22, 0), [], interval=Interval.D1, settle=timedelta(minutes=30))

    assert judged.answer.lacking == (Window(OPEN, CLOSE),)
    assert (judged.expected, judged.received) == (1, 0)


def test_a_session_that_opens_before_the_window_belongs_to_another_ask() -> None:
    judged = judge(Window(at(15, 0), at(23, 0)), at(23, 0), [], interval=Interval.D1)

    assert judged.answer.lacking == ()


def test_a_window_is_widened_to_whole_bars() -> None:
    ragged = Window(at(15, 0, 30), at(15, 4, 10))

    assert whole_bars(ragged, Interval.M1) == Window(at(15, 0), at(15, 5))
    assert whole_bars(Window(at(15, 0), at(15, 4)), Interval.M1) == Window(at(15, 0), at(15, 4))
    assert whole_bars(ragged, Interval.D1) == ragged
