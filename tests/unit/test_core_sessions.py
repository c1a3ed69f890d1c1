"""Sessions of real calendars, compared with dates and hours known from the exchanges' own notices."""

import json
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from functools import cache

import pytest

from core.errors import UsageError
from core.sessions import Calendar, Session, utc
from core.sessions_build import build
from core.windows import Window

MINUTE = timedelta(minutes=1)


@cache
def calendar(name: str, first: str, last: str) -> Calendar:
    # As the product does it: in a process of its own, whose library warnings are nobody's business here.
    words = [sys.executable, "-m", "core.sessions_build", name, "--start", first, "--end", last]
    payload = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    sessions = [
        Session(date.fromisoformat(label), tuple(Window(utc(a), utc(b)) for a, b in parts))
        for label, parts in payload["sessions"]
    ]
    return Calendar(name, 1, date.fromisoformat(first), date.fromisoformat(last), sessions)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_new_york_opens_an_hour_earlier_in_utc_after_the_change_to_summer_time() -> None:
    nyse = calendar("NYSE", "2025-03-01", "2025-03-31")
    assert nyse.session(date(2025, 3, 7)).open == moment("2025-03-07T14:30")
    assert nyse.session(date(2025, 3, 10)).open == moment("2025-03-10T13:30")


def test_the_day_after_thanksgiving_closes_at_one_in_the_afternoon() -> None:
    nyse = calendar("NYSE", "2025-11-20", "2025-12-01")
    assert nyse.session(date(2025, 11, 28)).close == moment("2025-11-28T18:00")
    whole_day = Window(moment("2025-11-28T00:00"), moment("2025-11-29T00:00"))
    assert len(nyse.expected(whole_day, MINUTE)) == 210


def test_a_holiday_names_the_next_session() -> None:
    nyse = calendar("NYSE", "2025-11-20", "2025-12-01")
    with pytest.raises(UsageError, match="no session on 2025-11-27; the next one is 2025-11-28"):
        nyse.session(date(2025, 11, 27))


def test_a_date_beyond_the_arrays_is_refused_with_what_is_known() -> None:
    nyse = calendar("NYSE", "2025-11-20", "2025-12-01")
    with pytest.raises(UsageError, match="known from 2025-11-20 to 2025-12-01"):
        nyse.session(date(2030, 1, 2))


def test_india_trades_from_a_quarter_past_nine_to_half_past_three() -> None:
    nse = calendar("NSE", "2019-07-08", "2019-07-12")
    session = nse.session(date(2019, 7, 10))
    assert (session.open, session.close) == (moment("2019-07-10T03:45"), moment("2019-07-10T10:00"))
    assert len(nse.expected(Window(session.open, session.close), MINUTE)) == 375


def test_a_calendar_that_never_closes_expects_every_minute() -> None:
    always = calendar("24/7", "2022-12-13", "2022-12-14")
    assert (
        len(always.expected(Window(moment("2022-12-13T00:00"), moment("2022-12-14T00:00")), MINUTE))
        == 1440
    )


def test_lunch_in_tokyo_is_not_expected() -> None:
    tokyo = calendar("JPX", "2025-03-10", "2025-03-14")
    session = tokyo.session(date(2025, 3, 11))
    assert len(session.segments) == 2
    assert len(tokyo.expected(Window(session.open, session.close), MINUTE)) == 330


def test_the_close_is_outside_the_session_and_the_open_inside() -> None:
    nyse = calendar("NYSE", "2025-03-01", "2025-03-31")
    session = nyse.session(date(2025, 3, 10))
    assert nyse.session_at(session.open) == session
    assert nyse.session_at(session.close) is None
    assert nyse.last_closed(session.close) == session
    assert nyse.next_open(session.open) == nyse.session(date(2025, 3, 11)).open


def test_the_last_bar_of_a_session_ends_at_its_close() -> None:
    nyse = calendar("NYSE", "2025-11-20", "2025-12-01")
    start = moment("2025-11-28T17:45")
    assert nyse.bar_end(start, timedelta(hours=1)) == moment("2025-11-28T18:00")


def test_an_unknown_calendar_is_named() -> None:
    with pytest.raises(UsageError, match="calendar 'MARS' is unknown"):
        build("MARS", date(2025, 1, 1), date(2025, 1, 2))
