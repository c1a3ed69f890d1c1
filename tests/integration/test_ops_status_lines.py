"""The lines of ``ops up``: nothing is told twice, and a failure comes with its next step."""

from collections.abc import Iterator

import pytest

from core.clock import SystemClock
from db.candles import Failure
from db.pool import Database
from ops.status_lines import StatusLines
from tests.storage import answer, bar, put, span, symbols

pytestmark = pytest.mark.integration
HINT = "no internet? try the simulator"


class Ahead(SystemClock):
    """Real time that a test may move on."""

    seconds = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.seconds


@pytest.fixture
def clock() -> Ahead:
    return Ahead()


@pytest.fixture
def db(database_url: str, clock: Ahead) -> Iterator[Database]:
    database = Database(database_url, clock)
    yield database
    database.close()


def fail(db: Database, code: str) -> None:
    """SPY was asked of Yahoo in vain, just now."""
    spy = symbols(db, "SPY")["SPY"]
    failure = Failure(spy, span(0, 1), db.clock.now(), "failed", code, "curl: no route to host")
    put(db, source="yfinance", failures=[failure])


def test_what_did_not_change_is_said_once_a_minute(db: Database, clock: Ahead) -> None:
    symbols(db, "SPY", "BAC")
    lines = StatusLines(db)

    [first] = lines.next()
    assert "T0 0/2" in first
    assert "no answer yet" in first
    assert list(lines.next()) == []

    symbols(db, "SPY", "BAC", "T")
    [changed] = lines.next()
    assert "T0 0/3" in changed

    clock.seconds += 60
    assert len(list(lines.next())) == 1


def test_while_nobody_answered_the_failure_and_its_mend_are_said_again(
    db: Database, clock: Ahead
) -> None:
    fail(db, "unavailable")
    lines = StatusLines(db, hint=HINT)

    said = list(lines.next())[1:]
    assert "yfinance fails (unavailable): curl: no route to host; it is asked again" in said[0]
    assert said[1].strip() == HINT
    assert list(lines.next()) == []

    clock.seconds += 60
    assert list(lines.next())[1:] == said


def test_once_somebody_answers_a_failure_is_said_when_it_begins(db: Database, clock: Ahead) -> None:
    spy = symbols(db, "SPY")["SPY"]
    put(db, answer(spy, [bar(0)]))
    fail(db, "timeout")
    lines = StatusLines(db, hint=HINT)

    said = list(lines.next())[1:]
    assert len(said) == 1
    assert HINT not in said[0]

    clock.seconds += 60
    assert len(list(lines.next())) == 1


def test_a_symbol_that_no_source_knows_is_not_said_to_be_asked_again(db: Database) -> None:
    fail(db, "not_found")

    said = list(StatusLines(db).next())[1]

    assert "asked again" not in said
    assert "ops backfill list --state failed" in said
