"""Writers of the same series at once leave what one writer would have left."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

import psycopg
import pytest

from core.errors import StorageError
from db import gaps
from db.candles import Failure
from db.horizon import announce, stamp
from tests.storage import LONG_AFTER, MINUTE, OPEN, Interval, answer, bar, put, rows, span, symbols

pytestmark = pytest.mark.integration

NEWEST = """
    SELECT symbol, ts, provider, status, close, volume FROM candles_all ORDER BY symbol, ts, provider
"""
VERSIONS = (
    "SELECT symbol_id, ts, provider_id, status, close FROM candles_intraday ORDER BY 1, 2, 3, as_of"
)


def pages(ids, *, restated=False):
    """A page a symbol: the same bars for whoever asks, some restated in the second round."""
    asked = LONG_AFTER + (MINUTE if restated else timedelta(0))
    return [
        answer(
            i, [bar(m, 11.0 if restated and m % 5 == 0 else 10.0) for m in range(30)], asked=asked
        )
        for i in ids
    ]


def test_the_same_pages_in_any_order_by_eight_writers_are_stored_once(db):
    ids = sorted(symbols(db, *(f"S{n}" for n in range(12))).values())

    def write(seed):
        shuffled = random.Random(seed)
        for restated in (False, True):
            mixed = pages(ids, restated=restated)
            shuffled.shuffle(mixed)
            for start in range(0, len(mixed), 4):
                put(db, *mixed[start : start + 4])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    # A first answer that comes late changes nothing where the second is stored already.
    newest = {((ts - OPEN) // MINUTE, close) for _, ts, _, _, close, _ in rows(db, NEWEST)}
    assert newest == {(minute, 10.0 if minute % 5 else 11.0) for minute in range(30)}
    found = [(s, ts, close) for s, ts, _, _, close in rows(db, VERSIONS)]
    assert len(found) == len(set(found)), "no version twice"
    assert {(s, ts) for s, ts, _ in found} == {
        (s, OPEN + m * MINUTE) for s in ids for m in range(30)
    }


def test_writers_killed_in_the_middle_lose_nothing_that_was_written_and_duplicate_nothing(
    db, database_url
):
    ids = sorted(symbols(db, *(f"S{n}" for n in range(8))).values())
    stop = threading.Event()

    def kill() -> None:
        with psycopg.connect(database_url, autocommit=True, application_name="killer") as conn:
            while not stop.wait(0.02):
                conn.execute(
                    "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity"
                    " WHERE application_name = 'gapless' AND datname = current_database()"
                    " AND state <> 'idle' ORDER BY random() LIMIT 1) p"
                )

    killer = threading.Thread(target=kill)
    killer.start()
    try:

        def write(seed):
            mixed = pages(ids)
            random.Random(seed).shuffle(mixed)
            for page in mixed:
                # As a worker does: the same page again until it is known to be written.
                while True:
                    with suppress(StorageError):
                        put(db, page)
                        break

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(4)))
    finally:
        stop.set()
        killer.join()
    assert len(rows(db, VERSIONS)) == 8 * 30


def test_a_writer_that_stands_still_holds_up_nobody_elses_symbols(db, database_url):
    ids = symbols(db, "BAC", "SPY")
    put(db, answer(ids["SPY"], [bar(0)]), answer(ids["BAC"], [bar(0)]))
    with psycopg.connect(database_url) as still:
        still.execute(
            "SELECT 1 FROM ingestion_cursor WHERE symbol_id = %s FOR UPDATE", (ids["SPY"],)
        )
        assert put(db, answer(ids["BAC"], [bar(1)])).final == 1


def test_writers_gap_passes_and_confirmations_never_deadlock(db):
    ids = sorted(symbols(db, *(f"S{n}" for n in range(10))).values())

    def write(seed):
        chooser = random.Random(seed)
        for number in range(15):
            chosen = chooser.sample(ids, 5)
            asked = LONG_AFTER + (seed * 100 + number) * MINUTE
            put(
                db,
                *(
                    answer(i, [bar(0)], window=span(0, 5), asked=asked, lacking=[span(1, 5)])
                    for i in chosen
                ),
                source=chooser.choice(["yfinance", "finnhub"]),
                failures=[Failure(i, span(5, 9), asked, "failed", "timeout", "") for i in chosen],
            )

    def judge(_):
        return sum(
            gaps.confirm_empty(
                db, interval=Interval.M1, since=OPEN, eligible=["yfinance", "finnhub"]
            )
            for _ in range(15)
        )

    with ThreadPoolExecutor(6) as pool:
        writers = [pool.submit(write, seed) for seed in range(4)]
        passes = [pool.submit(judge, n) for n in range(2)]
        for running in (*writers, *passes):
            running.result()
    judge(0)
    [(deadlocks,)] = rows(
        db, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    assert deadlocks == 0
    assert rows(
        db,
        "SELECT count(*) FROM confirmed_empty c JOIN confirmed_empty o USING (symbol_id)"
        " WHERE (c.start_ts, c.end_ts) <> (o.start_ts, o.end_ts)"
        " AND tstzrange(c.start_ts, c.end_ts) && tstzrange(o.start_ts, o.end_ts)",
    ) == [(0,)]


def test_a_stamp_is_later_than_every_commit_before_it(db):
    """Whoever waited for a lock gets a later as_of than whoever held it."""
    symbol = symbols(db, "SPY")["SPY"]
    order: list = []

    def write(number):
        def work(conn):
            announce(conn)
            conn.execute("SELECT pg_advisory_xact_lock(99)")
            as_of = stamp(conn)
            order.append(as_of)

        db.run(work)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(40)))
    assert order == sorted(order)
    assert len(set(order)) == len(order)
    assert symbol
