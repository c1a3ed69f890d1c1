"""The same schema, writes and reads on TimescaleDB; an existing database is upgraded in place."""

import shutil
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from core.bars import Quote
from core.clock import SystemClock
from core.words import Interval
from db import reading
from db.expire import Retention, expire
from db.migrate import FOLDER, migrate
from db.pool import Database
from db.quotes import write_quotes
from tests.storage import (
    LONG_AFTER,
    MINUTE,
    OPEN,
    answer,
    at,
    bar,
    daily,
    put,
    revisions,
    rows,
    span,
    symbols,
)

pytestmark = pytest.mark.integration

GATED = [
    "0008_hypertables.sql",
    "0009_columnstore.sql",
    "0130_daily_hypertables.sql",
    "0131_daily_columnstore.sql",
]


@pytest.fixture
def db(timescale_url):
    with closing(Database(timescale_url, SystemClock())) as database:
        yield database


@pytest.fixture
def symbol(db):
    return symbols(db, "SPY")["SPY"]


def compress(url: str) -> int:
    """Compress every chunk of the one-minute bars; how many there are."""
    with psycopg.connect(url, autocommit=True) as owner:
        [(count,)] = owner.execute(
            "SELECT count(compress_chunk(c)) FROM show_chunks('candles_intraday') c"
        ).fetchall()
    return count


def chunks(db, table="candles_intraday"):
    return rows(
        db,
        "SELECT count(*), count(*) FILTER (WHERE is_compressed) FROM timescaledb_information.chunks"
        " WHERE hypertable_name = %s",
        table,
    )


def test_the_tables_that_grow_are_hypertables_with_a_columnstore(db):
    found = rows(
        db,
        "SELECT hypertable_name, compression_enabled FROM timescaledb_information.hypertables ORDER BY 1",
    )
    assert found == [("candles_eod", True), ("candles_intraday", True), ("quotes_l1", True)]
    policies = rows(
        db,
        "SELECT hypertable_name FROM timescaledb_information.jobs WHERE hypertable_name IS NOT NULL ORDER BY 1",
    )
    assert policies == [("candles_eod",), ("candles_intraday",), ("quotes_l1",)]
    assert rows(db, "SHOW timescaledb.enable_skipscan") == [("off",)]


def test_revisions_are_the_same_in_rows_and_in_compressed_chunks(db, timescale_url, symbol):
    put(db, answer(symbol, [bar(m) for m in range(5)]))
    before = rows(db, "SELECT max(as_of) FROM candles_intraday")[0][0]
    assert compress(timescale_url) == 1
    assert chunks(db) == [(1, 1)]
    later = answer(
        symbol, [bar(m, 11.0 if m == 3 else 10.0) for m in range(5)], asked=LONG_AFTER + MINUTE
    )
    result = put(db, later)
    assert (result.revised, result.unchanged) == (1, 4)
    assert put(db, later).revised == 0
    assert [row[:3] for row in revisions(db, symbol)][3:5] == [(3, 1, 10.0), (3, 2, 11.0)]
    then = reading.candles(db, ["SPY"], Interval.M1, span(0, 9), as_of=before)
    now = reading.candles(db, ["SPY"], Interval.M1, span(0, 9))
    assert [row["close"] for row in then] == [10.0] * 5
    assert [row["close"] for row in now] == [10.0, 10.0, 10.0, 11.0, 10.0]


def test_late_bars_of_a_new_symbol_go_into_a_compressed_chunk(db, timescale_url):
    ids = symbols(db, "BAC", "SPY")
    put(db, answer(ids["SPY"], [bar(0)]))
    compress(timescale_url)
    assert put(db, answer(ids["BAC"], [bar(0), bar(1)])).final == 2
    assert len(revisions(db, ids["BAC"])) == 2


def test_reads_look_only_at_the_chunks_of_their_window(db, timescale_url, symbol):
    for week in range(4):
        shift = timedelta(weeks=week)
        bars = [type(b)(b.ts + shift, b.open, b.high, b.low, b.close) for b in (bar(0), bar(1))]
        put(db, answer(symbol, bars, asked=LONG_AFTER + shift))
    assert chunks(db)[0][0] == 4
    with psycopg.connect(timescale_url) as owner:
        text = "\n".join(
            line
            for (line,) in owner.execute(
                "EXPLAIN SELECT * FROM gapless_best_1m(ARRAY['SPY'], %s, %s, now(), NULL)",
                (at(0), at(10)),
            )
        )
    assert len({word for word in text.split() if word.startswith("_hyper_")}) == 1, text


def test_hypertables_are_append_only_too(db, timescale_url, symbol):
    put(db, answer(symbol, [bar(0)]))
    write_quotes(db, "yfinance", [(symbol, Quote(at(0), last=1.0))])
    with psycopg.connect(timescale_url, autocommit=True) as owner:
        for statement in (
            "DELETE FROM candles_intraday",
            "UPDATE candles_intraday SET close = 1",
            "TRUNCATE candles_intraday",
            "DELETE FROM quotes_l1",
            "TRUNCATE quotes_l1",
        ):
            with pytest.raises(psycopg.Error, match="what was known stays known"):
                owner.execute(statement)
    with db.session() as conn, pytest.raises(psycopg.Error, match="permission denied"):
        conn.execute("DELETE FROM candles_intraday")


def test_retention_drops_whole_chunks(db, symbol):
    write_quotes(db, "yfinance", [(symbol, Quote(OPEN, last=1.0))])
    write_quotes(db, "yfinance", [(symbol, Quote(db.clock.now(), last=2.0))])
    put(db, answer(symbol, [bar(0)]))
    assert expire(db, Retention(payload_days=1, quote_days=7))["quotes"] == 1
    assert rows(db, "SELECT last FROM quotes_l1") == [(2.0,)]
    assert len(revisions(db, symbol)) == 1


def test_retention_drops_old_candles_of_both_kinds(db, symbol):
    put(db, answer(symbol, [bar(0)]))
    day = OPEN.date()
    put(db, answer(symbol, [daily(day)], window=span(-1440, 1440)), interval=Interval.D1)
    assert expire(db, Retention(payload_days=1, quote_days=7, candle_days=30))["candles"] == 2
    assert rows(db, "SELECT count(*) FROM candles_intraday") == [(0,)]
    assert rows(db, "SELECT count(*) FROM candles_eod") == [(0,)]


def test_a_database_with_bars_is_upgraded_when_the_extension_comes_later(
    empty_timescale_url, tmp_path: Path
):
    before = tmp_path / "before"
    before.mkdir()
    for file in FOLDER.glob("*.sql"):
        if file.name not in {*GATED, "schema.sql"}:
            shutil.copy(file, before)
    migrate(empty_timescale_url, folder=before)
    with closing(Database(empty_timescale_url, SystemClock())) as db:
        symbol = symbols(db, "SPY")["SPY"]
        put(db, answer(symbol, [bar(m) for m in range(5)]))
        known = reading.candles(db, ["SPY"], Interval.M1, span(0, 9))
    assert migrate(empty_timescale_url) == GATED
    with closing(Database(empty_timescale_url, SystemClock())) as db:
        assert reading.candles(db, ["SPY"], Interval.M1, span(0, 9)) == known
        assert chunks(db) == [(1, 0)]
        assert put(db, answer(symbol, [bar(9)])).final == 1
