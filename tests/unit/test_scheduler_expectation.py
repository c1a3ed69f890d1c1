"""What the gap pass expects of a calendar."""

from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

from core.sessions import Calendar, Session
from core.windows import Window
from scheduler import expectation

DAY = date(2025, 3, 10)
OPEN, CLOSE = datetime(2025, 3, 10, 13, 30, tzinfo=UTC), datetime(2025, 3, 10, 20, tzinfo=UTC)


def at(hour: int, minute: int, second: int = 0) -> datetime:
    return datetime(2025, 3, 10, hour, minute, second, tzinfo=UTC)


def expected(not_before: datetime) -> list[Window]:
    calendar = Calendar("NYSE", 1, DAY, date(2025, 3, 11), [Session(DAY, (Window(OPEN, CLOSE),))])
    plan: Any = SimpleNamespace(calendars={"NYSE": calendar})
    return expectation.minutes(plan, at(18, 0), not_before)["NYSE"]


def test_a_minute_that_began_before_is_left_out_whole() -> None:
    assert expected(at(15, 48, 20)) == [Window(at(15, 49), at(18, 0))]


def test_a_whole_minute_is_expected_from_its_start() -> None:
    assert expected(at(15, 48)) == [Window(at(15, 48), at(18, 0))]


def test_nothing_is_expected_before_the_open() -> None:
    assert expected(at(3, 0, 1)) == [Window(OPEN, at(18, 0))]
