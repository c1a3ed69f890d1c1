"""The figures of a run: each bar once, each missing bar once, and a bar that changed."""

from datetime import timedelta

import pytest

from core.words import Interval, Tier
from db import backfill, counts
from db.backfill import Finish, NewJob
from db.pool import Database
from tests.storage import OPEN, answer, at, bar, daily, put, span, symbols

pytestmark = pytest.mark.integration
WINDOW = span(0, 390)


def look(db: Database) -> counts.Stored:
    with db.transaction() as conn:
        return counts.stored(conn, WINDOW)


def gap(db: Database, symbol_id: int, start: float, end: float, state: str = "pending") -> None:
    """A gap pass asked for minutes; ``state`` is what became of the row."""
    [job_id] = backfill.enqueue(
        db, [NewJob(symbol_id, Interval.M1, span(start, end), Tier.T0, "gap")]
    )
    if state == "pending":
        return
    backfill.claim(db, [job_id], "w", 30.0, 8)
    with db.transaction() as conn:
        backfill.finish(conn, Finish(job_id, "w", state))


def test_a_bar_counts_once_whatever_its_sources_and_revisions(db, symbol) -> None:
    put(db, answer(symbol, [bar(0), bar(1)]))
    put(db, answer(symbol, [bar(1)]), source="finnhub")
    put(db, answer(symbol, [bar(1, 11.0)]), source="finnhub")
    put(db, answer(symbol, [bar(-5), bar(390)]))
    put(db, answer(symbol, [daily(OPEN.date())]), interval=Interval.D1)

    found = look(db)

    assert (found.bars, found.revised) == (3, 1)


def test_a_missing_bar_counts_once_and_is_explained_when_no_row_asks_for_it(db) -> None:
    ids = symbols(db, "SPY", "BAC")
    gap(db, ids["SPY"], -10, 5, "done")
    gap(db, ids["SPY"], 3.5, 8, "done")
    gap(db, ids["SPY"], 4, 6)
    gap(db, ids["BAC"], 380, 400, "failed")
    gap(db, ids["BAC"], 500, 510)

    found = look(db)

    assert found.found_missing == 8 + 10
    assert found.explained == 6
    with db.transaction() as conn:
        assert counts.open_gaps(conn) == 2


def test_a_missing_day_is_a_missing_bar(db, symbol) -> None:
    [job_id] = backfill.enqueue(db, [NewJob(symbol, Interval.D1, span(0, 390), Tier.T0, "gap")])
    assert (look(db).found_missing, look(db).explained) == (1, 0)
    backfill.claim(db, [job_id], "w", 30.0, 8)
    with db.transaction() as conn:
        backfill.finish(conn, Finish(job_id, "w", "done"))
    assert (look(db).found_missing, look(db).explained) == (1, 1)


def test_a_bar_that_changed_is_found_with_both_its_values(db, wait_until) -> None:
    ids = symbols(db, "SPY", "BAC")
    with db.transaction() as conn:
        assert counts.revised_bar(conn, WINDOW, "SPY") is None
    put(db, answer(ids["BAC"], [bar(0)]), answer(ids["SPY"], [bar(2, 10.0)]))
    # Known apart by a whole second, so that an instant between them can be typed.
    begun = db.clock.now()
    wait_until(lambda: db.clock.now() - begun > timedelta(seconds=1.1))
    put(db, answer(ids["BAC"], [bar(0, 12.0)]), answer(ids["SPY"], [bar(2, 11.0, volume=120.0)]))

    with db.transaction() as conn:
        found = counts.revised_bar(conn, WINDOW, "SPY")

    assert found is not None
    assert (found.symbol, found.ts) == ("SPY", at(2))
    assert (found.then, found.now) == ((10.0, 100.0), (11.0, 120.0))
    assert found.as_of.microsecond == 0
