"""A read at the horizon can never change: what makes it so, and how a wrong form goes wrong."""

import random
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from core.clock import SystemClock
from core.errors import HorizonError, StorageError
from core.windows import Window
from core.words import Interval
from db import horizon, ranks, reading
from db.pool import Database
from tests.storage import MINUTE, OPEN, answer, at, bar, put, rows, span, symbols

pytestmark = pytest.mark.integration

COUNT = "SELECT count(*) FROM candles_all_as_of(NULL, '1m', NULL, NULL, %s)"
WRONG = """
    SELECT h.t, (SELECT count(*) FROM candles_intraday c WHERE c.as_of <= h.t)
    FROM (SELECT safe_as_of() AS t OFFSET 0) h
"""


class OpenWrite:
    """A write of one bar that has its as_of and is not committed yet."""

    def __init__(self, url: str, symbol_id: int, minute: int) -> None:
        self.conn = psycopg.connect(url)
        self.conn.execute("SELECT gapless_write_lock()")
        [(self.as_of,)] = self.conn.execute("SELECT gapless_stamp()").fetchall()
        self.conn.execute(
            "INSERT INTO candles_intraday (symbol_id, interval_s, ts, as_of, asked_at, open, high, low, close,"
            " provider_id, status) VALUES (%s, 60, %s, %s, %s, 1, 1, 1, 1, 1, 1)",
            (symbol_id, at(minute), self.as_of, self.as_of),
        )

    def commit(self) -> None:
        self.conn.commit()
        self.conn.close()


@pytest.fixture
def series(db, symbol) -> int:
    put(db, answer(symbol, [bar(0)]))
    return symbol


def test_an_open_write_holds_the_horizon_below_its_beginning(db, database_url, series):
    write = OpenWrite(database_url, series, 1)
    with db.session() as conn:
        during = reading.safe_as_of(conn)
        assert during < write.as_of
        assert write.as_of - during < timedelta(seconds=0.5)
        assert reading.safe_as_of(conn) == during, "it stands still while the write is open"
        write.commit()
        assert reading.safe_as_of(conn) > write.as_of


def test_writes_of_other_databases_do_not_matter(db, postgres_server, series):
    with psycopg.connect(postgres_server.url) as other:
        other.execute("SELECT pg_advisory_xact_lock_shared(1734438003, 0)")
        with db.session() as conn:
            age = datetime.now(UTC) - reading.safe_as_of(conn)
    assert age < timedelta(seconds=5)


def test_a_read_beyond_the_horizon_is_refused_when_the_write_does_not_end(db, database_url, series):
    write = OpenWrite(database_url, series, 1)
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("SET gapless.horizon_wait_s = '0.05'")
        with pytest.raises(psycopg.Error, match="beyond the horizon"):
            conn.execute(COUNT, (write.as_of,))
    window = span(0, 5)
    assert len(reading.candles(db, ["SPY"], Interval.M1, window)) == 1, "None reads at the horizon"
    write.commit()
    assert len(reading.candles(db, ["SPY"], Interval.M1, window, as_of=write.as_of)) == 2


def test_a_read_of_the_future_is_refused_at_once(db, series):
    later = datetime.now(UTC) + timedelta(minutes=1)
    began = SystemClock().monotonic()
    with pytest.raises(HorizonError, match="beyond the horizon"):
        reading.candles(db, ["SPY"], Interval.M1, span(0, 5), as_of=later)
    assert SystemClock().monotonic() - began < 2


def test_a_read_waits_for_a_write_that_began_before_its_instant(
    db, database_url, series, wait_until
):
    write = OpenWrite(database_url, series, 1)
    answers = []

    def read() -> None:
        with psycopg.connect(database_url, autocommit=True) as conn:
            answers.append(conn.execute(COUNT, (write.as_of,)).fetchone())

    reader = threading.Thread(target=read)
    reader.start()
    busy = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
    with psycopg.connect(database_url, autocommit=True) as gate:
        wait_until(lambda: gate.execute(busy).fetchone() == (1,))
    assert answers == []
    write.commit()
    reader.join()
    assert answers == [(2,)]


def test_a_repeatable_read_must_bring_its_horizon(database_url, series):
    with psycopg.connect(database_url, autocommit=True) as conn:
        [(safe,)] = conn.execute("SELECT safe_as_of()").fetchall()
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with pytest.raises(psycopg.Error, match="snapshot is older"), conn.transaction():
            conn.execute(COUNT, (None,))
        with conn.transaction():
            assert conn.execute(COUNT, (safe,)).fetchone() == (1,)


def test_a_horizon_taken_in_the_statement_that_reads_misses_a_commit_below_it(
    database_url, series, wait_until
):
    """Why candles_as_of is a VOLATILE function: this is the form that goes wrong."""
    write = OpenWrite(database_url, series, 1)
    answers = []

    def read() -> None:
        with psycopg.connect(database_url, autocommit=True) as conn:
            slow = WRONG.replace(
                "SELECT safe_as_of()", "SELECT pg_advisory_lock(7)::text, safe_as_of()"
            )
            answers.extend(conn.execute(slow.replace("SELECT h.t", "SELECT h.t")).fetchall())

    with psycopg.connect(database_url, autocommit=True) as gate:
        gate.execute("SELECT pg_advisory_lock(7)")
        reader = threading.Thread(target=read)
        reader.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        wait_until(lambda: gate.execute(waiting).fetchone() == (1,))
        # The reader's snapshot is taken, its horizon not yet.
        write.commit()
        gate.execute("SELECT pg_advisory_unlock(7)")
        reader.join()
        [(instant, seen)] = answers
        assert instant > write.as_of
        assert (seen, gate.execute(COUNT, (instant,)).fetchone()) == (1, (2,)), "the answer changed"


def test_a_horizon_taken_inside_a_repeatable_read_misses_a_commit_below_it(database_url, series):
    """Why such a reader gets its horizon before BEGIN."""
    write = OpenWrite(database_url, series, 1)
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with conn.transaction():
            conn.execute("SELECT 1 FROM market_clock")
            write.commit()
            [(instant,)] = conn.execute("SELECT safe_as_of()").fetchall()
            seen = conn.execute(COUNT, (instant,)).fetchone()
        assert instant > write.as_of
        assert (seen, conn.execute(COUNT, (instant,)).fetchone()) == ((1,), (2,))


@pytest.mark.stress
def test_no_read_at_the_horizon_changes_while_others_write(database_url):
    """Writers that dawdle between their as_of and their commit, readers that never wait for them."""
    with closing(Database(database_url, SystemClock(), max_size=8)) as db:
        ids = symbols(db, *(f"S{n}" for n in range(8)))
        deadline = db.clock.monotonic() + 6
        failures: list[BaseException] = []
        seen: list[tuple[datetime, int]] = []

        def guarded(work):
            def run() -> None:
                try:
                    while db.clock.monotonic() < deadline:
                        work()
                except BaseException as error:  # noqa: BLE001 - reported by the test
                    failures.append(error)

            return threading.Thread(target=run)

        def write_batch() -> None:
            chosen = random.sample(sorted(ids.values()), 3)
            asked = OPEN + timedelta(days=1, microseconds=random.randrange(10**9))
            put(
                db,
                *(
                    answer(
                        s,
                        [bar(m, random.choice([10.0, 11.0, 12.0])) for m in range(20)],
                        asked=asked,
                    )
                    for s in chosen
                ),
                source=random.choice(["yfinance", "finnhub"]),
            )

        def dawdle() -> None:
            write = OpenWrite(
                database_url, 10**6 + threading.get_ident() % 1000, random.randrange(10**6)
            )
            db.clock.sleep(random.uniform(0, 0.02))
            write.commit()

        def read() -> None:
            with db.session() as conn:
                instant = reading.safe_as_of(conn)
                [(count,)] = conn.execute(
                    "SELECT count(*) FROM candles_intraday WHERE as_of <= %s", (instant,)
                )
                seen.append((instant, count))
            with db.session() as conn:
                [(instant, count)] = conn.execute(
                    "SELECT max(as_of), count(*) FROM candles_all_as_of(NULL, '1m', NULL, NULL, NULL)"
                )

        threads = [guarded(write_batch) for _ in range(3)]
        threads += [guarded(dawdle) for _ in range(2)]
        threads += [guarded(read) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        with db.session() as conn:
            changed = [
                instant
                for instant, count in seen
                if conn.execute(
                    "SELECT count(*) FROM candles_intraday WHERE as_of <= %s", (instant,)
                ).fetchone()
                != (count,)
            ]
    assert len(seen) > 50
    assert changed == []


def test_a_change_of_ranks_changes_no_past_answer(db, series):
    put(db, answer(series, [bar(0, 20.0)]), source="finnhub")
    ranks.publish(db, "bars_1m", [["finnhub"], ["yfinance"]])
    with db.session() as conn:
        before = reading.safe_as_of(conn)
    assert ranks.publish(db, "bars_1m", [["finnhub"], ["yfinance"]]) is False
    assert ranks.publish(db, "bars_1m", [["yfinance", "finnhub"]]) is True
    window = span(0, 1)
    now = reading.candles(db, ["SPY"], Interval.M1, window)
    then = reading.candles(db, ["SPY"], Interval.M1, window, as_of=before)
    assert [row["provider"] for row in (*now, *then)] == ["yfinance", "finnhub"]


def test_a_write_waits_for_a_clock_that_is_a_little_behind_the_floor(db, series):
    with db.transaction() as conn:
        conn.execute("UPDATE market_clock SET floor_ts = clock_timestamp() + interval '0.4 s'")
    [(floor,)] = rows(db, "SELECT floor_ts FROM market_clock")
    result = put(db, answer(series, [bar(1)]))
    assert result.as_of >= floor


def test_a_clock_far_behind_the_floor_fails_the_write_and_writes_nothing(db, series, monkeypatch):
    monkeypatch.setattr(horizon, "CLOCK_WAIT_S", 0.2)
    with db.transaction() as conn:
        conn.execute("UPDATE market_clock SET floor_ts = clock_timestamp() + interval '1 hour'")
    with pytest.raises(StorageError, match="behind this database's floor"):
        put(db, answer(series, [bar(1)]))
    assert rows(db, "SELECT count(*) FROM candles_intraday") == [(1,)]


def test_writes_raise_the_floor(db, series):
    [(floor, now)] = rows(db, "SELECT floor_ts, gapless_now() FROM market_clock")
    assert timedelta(0) <= now - floor < timedelta(seconds=30)


def test_a_stuck_write_is_ended_and_holds_nobody_up(db, database_url, series, wait_until):
    write = OpenWrite(database_url, series, 1)
    assert horizon.end_stuck_writes(db, older_than_s=60) == []
    wait_until(
        lambda: horizon.end_stuck_writes(db, older_than_s=1) == [write.conn.info.backend_pid]
    )
    put(db, answer(series, [bar(2)]))
    with pytest.raises(psycopg.OperationalError):
        write.conn.execute("SELECT 1")
    write.conn.close()
    assert rows(db, "SELECT count(*) FROM candles_intraday") == [(2,)]


def test_every_revision_of_a_series_has_an_as_of_of_its_own_in_order(db, series):
    stamps = [
        put(
            db, answer(series, [bar(0, 10.0 + n)], asked=OPEN + timedelta(days=1) + n * MINUTE)
        ).as_of
        for n in range(1, 20)
    ]
    assert stamps == sorted(set(stamps))


def test_the_reader_wants_known_names_and_a_window(db, series):
    with pytest.raises(Exception, match="NOPE was never in the universe"):
        reading.candles(db, ["SPY", "NOPE"], Interval.M1, Window(at(0), at(1)))
