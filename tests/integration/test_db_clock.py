"""A replay's time is the same in SQL and in Python, and a database keeps one clock."""

from contextlib import closing
from datetime import UTC, datetime

import psycopg
import pytest

from core.clock import ReplayClock, Segment, SystemClock, real_timestamp
from core.errors import ClockMismatchError
from db.clock import ClockKeeper, announce_segment, connect_clock, set_replay
from db.migrate import clock_mode
from db.pool import Database
from tests.storage import OPEN, answer, bar, put, rows, symbols

pytestmark = pytest.mark.integration


@pytest.fixture
def start() -> Segment:
    """A replay that begins at Monday's open, 100 times as fast."""
    return Segment(real_timestamp(), OPEN.timestamp(), 100.0)


@pytest.fixture
def replay(database_url, start):
    with psycopg.connect(database_url, autocommit=True) as conn:
        set_replay(conn, "monday", [start])
    with closing(Database(database_url, connect_clock(database_url))) as db:
        yield db


def test_sql_and_python_agree_on_the_time(replay):
    assert isinstance(replay.clock, ReplayClock)
    before = replay.clock.now()
    [(now,)] = rows(replay, "SELECT gapless_now()")
    assert before <= now <= replay.clock.now()


def test_a_change_of_speed_reaches_sql_at_once_and_python_with_the_next_look(replay, wait_until):
    keeper = ClockKeeper()
    keeper.refresh(replay)
    real = real_timestamp() + 0.1
    market = replay.clock.segments()[0]
    bend = market.market_start + (real - market.real_start) * market.speed
    with replay.transaction() as conn:
        announce_segment(conn, Segment(real, bend, 1.0))
    assert len(replay.clock.segments()) == 1
    wait_until(lambda: keeper.refresh(replay) or len(replay.clock.segments()) == 2, seconds=3)
    wait_until(lambda: replay.clock.speed == 1.0)
    before = replay.clock.now()
    [(now,)] = rows(replay, "SELECT gapless_now()")
    assert before <= now <= replay.clock.now()
    assert bend < now.timestamp() < bend + 30


def test_a_write_in_a_replay_is_stamped_in_market_time(replay):
    symbol = symbols(replay, "SPY")["SPY"]
    as_of = put(replay, answer(symbol, [bar(0)])).as_of
    assert OPEN <= as_of <= replay.clock.now()


def test_a_process_with_another_clock_does_not_start(replay, database_url, start):
    with pytest.raises(ClockMismatchError, match="belongs to replay 'monday'"):
        Database(database_url, SystemClock())
    other = Segment(start.real_start + 5, start.market_start, 100.0)
    with pytest.raises(ClockMismatchError, match="runs another one"):
        Database(database_url, ReplayClock([other]))


def test_a_replay_does_not_start_on_a_database_that_keeps_the_systems_time(db, database_url, start):
    with pytest.raises(ClockMismatchError, match="keeps the system's time"):
        Database(database_url, ReplayClock([start]))
    symbols(db, "SPY")
    with db.transaction() as conn, pytest.raises(ClockMismatchError, match="fresh database"):
        set_replay(conn, "late", [start])
    assert clock_mode(database_url) == "system"


def test_a_replay_is_marked_once(database_url, start):
    with psycopg.connect(database_url, autocommit=True) as conn:
        set_replay(conn, "monday", [start])
        set_replay(conn, "monday", [start])
        with pytest.raises(ClockMismatchError, match="belongs to replay 'monday'"):
            set_replay(conn, "tuesday", [start])
    assert clock_mode(database_url) == "replay:monday"
    clock = connect_clock(database_url)
    assert clock.speed == 100.0
    assert len(clock.segments()) == 1


def test_a_marked_database_without_a_segment_says_who_must_act(database_url):
    with psycopg.connect(database_url, autocommit=True) as conn:
        set_replay(conn, "monday", [])
        with pytest.raises(psycopg.Error, match="nobody has said how its time runs"):
            conn.execute("SELECT gapless_now()")
    with pytest.raises(ClockMismatchError, match="without a segment"):
        connect_clock(database_url)


def test_a_database_of_the_system_gives_the_systems_clock(database_url):
    clock = connect_clock(database_url)
    assert isinstance(clock, SystemClock)
    assert abs((clock.now() - datetime.now(UTC)).total_seconds()) < 1
