"""Researchers read bars, quotes and coverage as frames, exactly as they were known."""

import subprocess
import sys
from datetime import UTC, date, datetime
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from core.bars import Quote
from core.errors import HorizonError, StorageError, UnknownSymbolError, UsageError
from core.words import Interval
from db import calendars, ranks, reading, universe
from db.calendars import Override
from db.candles import Failure
from db.copy_arrow import stream
from db.quotes import write_quotes
from db.reader import Reader, connect
from tests.storage import LONG_AFTER, MINUTE, OPEN, answer, at, bar, daily, put, span, symbols

pytestmark = pytest.mark.integration


@pytest.fixture
def reader(database_url, db):
    with connect(database_url) as found:
        yield found


def dicts(frame):
    return frame.arrow.to_pylist()


class TestFrames:
    """Arrow inside, pandas and polars on demand, times aware and UTC."""

    def test_times_are_utc_and_what_is_unknown_is_null(self, db, symbol, reader):
        put(db, answer(symbol, [bar(0, 10.5, vwap=10.25, trade_count=7), bar(1, volume=None)]))
        found = reader.candles("SPY", "1m")
        assert [
            (r["ts"], r["open"], r["volume"], r["vwap"], r["trade_count"]) for r in dicts(found)
        ] == [
            (at(0), 10.5, 100.0, 10.25, 7),
            (at(1), 10.0, None, None, None),
        ]
        assert found.arrow.schema.field("ts").type == pa.timestamp("us", tz="UTC")

    def test_pandas_has_an_aware_utc_index(self, db, symbol, reader):
        put(db, answer(symbol, [bar(0), bar(1)]))
        frame = reader.candles("SPY").pandas()
        assert isinstance(frame.index, pd.DatetimeIndex)
        assert str(frame.index.tz) == "UTC"
        assert list(frame.index) == [pd.Timestamp(at(0)), pd.Timestamp(at(1))]
        assert list(frame["close"]) == [10.0, 10.0]

    def test_polars_and_whoever_reads_arrow_take_it_as_it_is(self, db, symbol, reader):
        put(db, answer(symbol, [bar(0), bar(1)]))
        found = reader.candles("SPY")
        assert found.polars().schema["ts"] == pl.Datetime("us", "UTC")
        assert found.polars().equals(pl.DataFrame(found))
        assert pa.table(found).equals(found.arrow)

    def test_an_empty_answer_has_its_columns(self, symbol, reader):
        assert len(reader.candles("SPY")) == 0
        assert reader.candles("SPY").pandas().columns[:2].tolist() == ["symbol", "interval"]
        assert reader.quotes("SPY").polars().is_empty()

    def test_it_says_what_the_rows_of_the_cursor_say(self, db, reader):
        ids = symbols(db, "BAC", "SPY", "ZZ")
        ranks.publish(db, "bars_1m", [["finnhub"], ["yfinance"]])
        put(db, *(answer(i, [bar(m, 10 + i + m) for m in range(7)]) for i in ids.values()))
        put(db, answer(ids["SPY"], [bar(2, 99.0, volume=None)]), source="finnhub")
        for interval in Interval:
            for every in (False, True):
                expected = reading.candles(db, list(ids), interval, span(0, 60), every_source=every)
                found = reader.candles(list(ids), interval, at(0), at(60), all_sources=every)
                assert dicts(found) == expected

    def test_texts_of_every_length_and_nulls_survive_the_decoder(self, db):
        wanted = [
            (n, None if n % 3 == 0 else "é" * (n % 5), None if n % 2 else n / 7) for n in range(50)
        ]
        query = (
            "SELECT n::int4, CASE WHEN n %% 3 <> 0 THEN repeat('é', n %% 5) END,"
            " CASE WHEN n %% 2 = 0 THEN n / 7::float8 END, DATE '2026-03-01' + n"
            " FROM generate_series(0, 49) n WHERE n < %(end)s ORDER BY n"
        )
        columns = {"n": "int4", "t": "text", "x": "float8", "d": "date"}
        with db.transaction() as conn:
            batches = list(stream(conn, query, {"end": 50}, columns, batch_rows=7))
        assert [b.num_rows for b in batches] == [7] * 7 + [1]
        found = [tuple(r.values()) for b in batches for r in b.to_pylist()]
        assert [r[:3] for r in found] == wanted
        assert found[0][3] == date(2026, 3, 1)


class TestHorizon:
    """A frame says what knowledge it is of, and is the same for ever when read at it again."""

    def test_the_same_read_at_its_as_of_gives_the_same_answer(self, db, symbol, reader):
        put(db, answer(symbol, [bar(0), bar(1)]))
        before = reader.candles("SPY", "5m")
        put(db, answer(symbol, [bar(1, 20.0), bar(2)], asked=LONG_AFTER + MINUTE))
        again = reader.candles("SPY", "5m", as_of=before.as_of)
        assert again.arrow.equals(before.arrow)
        assert reader.candles("SPY", "5m").arrow["close"].to_pylist() == [10.0]
        assert reader.candles("SPY", "5m").arrow["volume"].to_pylist() == [300.0]

    def test_a_read_beyond_the_horizon_is_refused(self, symbol, reader):
        with pytest.raises(HorizonError, match="beyond the horizon"):
            reader.candles("SPY", as_of="2999-01-01T00:00:00Z")

    def test_safe_as_of_may_be_read_at_at_once(self, db, symbol, reader):
        put(db, answer(symbol, [bar(0)]))
        assert len(reader.candles("SPY", as_of=reader.safe_as_of())) == 1

    def test_a_stream_gives_batches_at_one_horizon(self, db, symbol, reader):
        put(db, answer(symbol, [bar(0), bar(1)]))
        with reader.stream_candles("SPY") as found:
            late = put(db, answer(symbol, [bar(2)], asked=LONG_AFTER + MINUTE)).as_of
            assert late > found.as_of
            assert sum(batch.num_rows for batch in found.batches) == 2


class TestRefusals:
    """What can't be answered is refused with the mend."""

    def test_words_that_mean_nothing(self, symbol, reader):
        with pytest.raises(UnknownSymbolError, match="NOPE was never in the universe"):
            reader.candles(["SPY", "NOPE"])
        with pytest.raises(UsageError, match="without a zone"):
            reader.candles("SPY", start="2026-03-02T14:30:00")
        with pytest.raises(UsageError, match="without a zone"):
            reader.candles("SPY", start=datetime(2026, 3, 2))  # noqa: DTZ001
        with pytest.raises(UsageError, match="interval '2m' is unknown"):
            reader.candles("SPY", "2m")
        with pytest.raises(UsageError, match="5m is not collected"):
            reader.coverage("SPY", "5m")

    def test_a_reader_cannot_write(self, database_url):
        with connect(database_url) as found, pytest.raises(StorageError):
            put(found._db, answer(1, [bar(0)]))


def test_quotes_as_they_were_known(db, symbol, reader):
    write_quotes(db, "yfinance", [(symbol, Quote(OPEN, bid=9.5, ask=10.5))])
    before = reader.quotes("SPY")
    write_quotes(db, "yfinance", [(symbol, Quote(at(1), last=11.0))])
    assert [(r["ts"], r["bid"], r["ask"], r["last"]) for r in dicts(before)] == [
        (OPEN, 9.5, 10.5, None)
    ]
    assert len(reader.quotes("SPY")) == 2
    assert reader.quotes("SPY", as_of=before.as_of).arrow.equals(before.arrow)
    assert len(reader.quotes("SPY", start=at(1), end=at(2), providers=["yfinance"])) == 1
    assert len(reader.quotes(None, providers=["finnhub"])) == 0


def stretches(frame):
    return [
        ((r["start_ts"] - OPEN) / MINUTE, (r["end_ts"] - OPEN) / MINUTE, r["state"], r["provider"])
        for r in dicts(frame)
    ]


def test_coverage_as_it_was_known(db, symbol, reader):
    nothing = reader.safe_as_of()
    put(
        db,
        answer(symbol, [bar(0), bar(1), bar(3)], window=span(0, 6), settled=at(5), asked=at(6),
               lacking=[span(2, 3), span(4, 6)]),
        failures=[Failure(symbol, span(7, 9), at(9), "failed", "timeout", "slow")],
    )  # fmt: skip
    first = reader.coverage("SPY", "1m", at(0), at(60))
    who: Any = {"who": "ann", "reason": "news"}
    calendars.override(db, Override("halt", symbol_id=symbol, hours=(span(20, 30),), **who))
    put(db, answer(symbol, [bar(2)], asked=at(30)))
    assert stretches(first) == [
        (0, 2, "present", "yfinance"),
        (2, 3, "lacked", "yfinance"),
        (3, 4, "present", "yfinance"),
        (4, 5, "lacked", "yfinance"),
        (5, 6, "unsettled", "yfinance"),
        (7, 9, "failed", "yfinance"),
    ]
    assert stretches(reader.coverage("SPY", "1m", at(0), at(60))) == [
        (0, 4, "present", "yfinance"),
        (4, 5, "lacked", "yfinance"),
        (5, 6, "unsettled", "yfinance"),
        (7, 9, "failed", "yfinance"),
        (20, 30, "halted", None),
    ]
    assert reader.coverage("SPY", "1m", at(0), at(60), as_of=first.as_of).arrow.equals(first.arrow)
    assert stretches(reader.coverage("SPY", as_of=nothing)) == []
    assert reader.coverage("SPY").pandas().index.name == "start_ts"


def test_coverage_of_daily_bars_and_of_a_symbol_under_two_names(db, symbol, reader):
    day = daily(date(2026, 3, 2))
    put(db, answer(symbol, [day], window=span(0, 1440)), interval=Interval.D1)
    put(db, answer(symbol, [bar(m) for m in range(4)]))
    universe.rename(db, "SPY", "SPX", at(2))
    assert stretches(reader.coverage("SPY", "1d")) == [(0, 1440, "present", "yfinance")]
    assert stretches(reader.coverage("SPX")) == [(2, 4, "present", "yfinance")]
    assert len(reader.candles("SPY")) == 2


def test_it_works_on_timescale(timescale_url):
    from core.clock import SystemClock  # noqa: PLC0415
    from db.pool import Database  # noqa: PLC0415

    database = Database(timescale_url, SystemClock(), max_size=2)
    with connect(timescale_url) as found:
        symbol_id = symbols(database, "SPY")["SPY"]
        put(database, answer(symbol_id, [bar(0), bar(1)]))
        assert len(found.candles("SPY")) == 2
        assert stretches(found.coverage("SPY")) == [(0, 2, "present", "yfinance")]
    database.close()


def test_reading_needs_neither_pandas_nor_polars():
    code = (
        "import sys, db.reader; print(sorted({'pandas', 'polars', 'yfinance'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_reader_is_made_of_any_database_handle(db, symbol):
    assert Reader(db).safe_as_of().tzinfo == UTC
