"""Coverage of long ago is put aside, and nothing that anybody asks of it changes."""

from datetime import timedelta

import pytest

from core.words import Interval
from db import cursors
from tests.storage import LONG_AFTER, MINUTE, OPEN, answer, bar, put, rows, span

pytestmark = pytest.mark.integration


def cursor(db):
    [row] = rows(
        db,
        "SELECT covered::text, covered_before::text, folded_to IS NOT NULL FROM ingestion_cursor",
    )
    return row


@pytest.fixture
def folded(db, symbol):
    """Ten minutes of long ago and ten of now, the former folded away."""
    old = answer(symbol, [bar(m) for m in range(10)])
    recent = db.clock.now().replace(second=0, microsecond=0) - timedelta(hours=3)
    shift = (recent - OPEN) / MINUTE
    new = answer(
        symbol, [bar(shift + m) for m in range(10)], asked=db.clock.now() - timedelta(minutes=1)
    )
    put(db, old)
    put(db, new)
    before = rows(db, "SELECT * FROM coverage ORDER BY start_ts")
    assert cursors.fold(db) == 1
    return before


def test_what_is_covered_stays_the_same(db, symbol, folded):
    now, aside, marked = cursor(db)
    assert now.count("[") == 1
    assert aside.count("[") == 1
    assert marked
    assert rows(db, "SELECT * FROM coverage ORDER BY start_ts") == folded
    with db.transaction() as conn:
        found = cursors.covered(conn, [symbol], Interval.M1)[symbol, "yfinance"]
    assert found[0] == span(0, 10)
    assert len(found) == 2


def test_folding_again_changes_nothing(db, folded):
    before = cursor(db)
    assert cursors.fold(db) == 0
    assert cursor(db) == before


def test_the_same_bars_of_long_ago_add_nothing(db, symbol, folded):
    again = answer(symbol, [bar(m) for m in range(10)], asked=LONG_AFTER + MINUTE)
    assert put(db, again).final == 0
    changed = answer(symbol, [bar(m, 11.0) for m in range(10)], asked=LONG_AFTER + 2 * MINUTE)
    assert put(db, changed).revised == 10


def test_an_older_answer_does_not_open_what_was_settled(db, symbol, folded):
    put(db, answer(symbol, [bar(3)], asked=OPEN + 4 * MINUTE, settled=OPEN))
    assert rows(db, "SELECT unsettled::text FROM ingestion_cursor") == [("{}",)]
