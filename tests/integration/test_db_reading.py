"""Reads give one row a bar of the winning source, and longer bars made of what was then known."""

from datetime import date, timedelta
from typing import Any

import pytest

from core.errors import UnknownSymbolError, UsageError
from core.words import Interval
from db import calendars, cursors, ranks, reading
from db.backfill import NewJob, enqueue
from db.calendars import Override
from db.candles import Failure
from db.reader import Reader
from tests.storage import (
    LONG_AFTER,
    MINUTE,
    OPEN,
    Tier,
    answer,
    at,
    bar,
    daily,
    put,
    rows,
    span,
    symbols,
)

pytestmark = pytest.mark.integration

HOUR = span(0, 60)


def read(db, interval=Interval.M1, window=HOUR, **options):
    return reading.candles(db, ["SPY"], interval, window, **options)


def minutes(found, *columns):
    return [((row["ts"] - OPEN) / MINUTE, *(row[c] for c in columns)) for row in found]


@pytest.fixture
def two_sources(db, symbol):
    """finnhub before yfinance; both have minute 1, each one of its own."""
    ranks.publish(db, "bars_1m", [["finnhub"], ["yfinance"]])
    put(db, answer(symbol, [bar(0, 10.0), bar(1, 10.0)]))
    put(db, answer(symbol, [bar(1, 20.0), bar(2, 20.0)]), source="finnhub")
    return symbol


class TestWinner:
    """One row a bar, from the best source that has it."""

    def test_the_best_source_wins_where_it_has_the_bar(self, db, two_sources):
        found = minutes(read(db), "close", "provider")
        assert found == [(0, 10.0, "yfinance"), (1, 20.0, "finnhub"), (2, 20.0, "finnhub")]
        view = rows(db, "SELECT close, provider FROM candles WHERE symbol = 'SPY' ORDER BY ts")
        assert view == [row[1:] for row in found]

    def test_the_reader_may_name_sources(self, db, two_sources):
        assert minutes(read(db, providers=["yfinance"]), "close") == [(0, 10.0), (1, 10.0)]
        assert read(db, providers=[]) == []

    def test_position_breaks_ties_inside_a_band(self, db, two_sources):
        ranks.publish(db, "bars_1m", [["yfinance", "finnhub"]])
        assert minutes(read(db), "provider")[1] == (1, "yfinance")

    def test_a_source_outside_of_the_policy_comes_last_and_is_not_hidden(self, db, two_sources):
        put(db, answer(two_sources, [bar(1, 30.0), bar(3, 30.0)]), source="csv")
        assert minutes(read(db), "provider")[1:] == [(1, "finnhub"), (2, "finnhub"), (3, "csv")]

    def test_a_withdrawn_winner_yields_to_the_next_source_else_to_no_row(self, db, two_sources):
        before = rows(db, "SELECT max(as_of) FROM candles_intraday")[0][0]
        for number in (1, 2):
            gone = answer(
                two_sources,
                [],
                window=span(1, 3),
                asked=LONG_AFTER + number * MINUTE,
                lacking=[span(1, 3)],
            )
            put(db, gone, source="finnhub")
        assert minutes(read(db), "close", "provider") == [
            (0, 10.0, "yfinance"),
            (1, 10.0, "yfinance"),
        ]
        assert len(read(db, as_of=before)) == 3
        every = minutes(read(db, every_source=True), "provider", "status", "close")
        assert (2, "finnhub", "withdrawn", None) in every

    def test_every_source_gives_a_row_of_each(self, db, two_sources):
        found = minutes(read(db, every_source=True), "provider")
        assert found == [(0, "yfinance"), (1, "finnhub"), (1, "yfinance"), (2, "finnhub")]
        assert len(rows(db, "SELECT * FROM candles_all")) == 4


def test_a_read_is_half_open_and_sorted(db, symbol):
    put(db, answer(symbol, [bar(m) for m in range(6)]))
    assert minutes(read(db, window=span(1, 4))) == [(1,), (2,), (3,)]


def test_all_symbols_and_all_time_by_null(db):
    ids = symbols(db, "BAC", "SPY")
    put(db, *(answer(i, [bar(0), bar(1)]) for i in ids.values()))
    found = rows(db, "SELECT symbol FROM candles_as_of(NULL, '1m', NULL, NULL, NULL) ORDER BY 1")
    assert found == [("BAC",), ("BAC",), ("SPY",), ("SPY",)]


def test_unknown_names_and_intervals_are_refused(db, symbol):
    with pytest.raises(UnknownSymbolError, match="NOPE"):
        reading.candles(db, ["NOPE", "SPY"], Interval.M1, HOUR)
    with pytest.raises(Exception, match="interval '2m' is unknown; expected 1m, 5m"):
        rows(db, "SELECT * FROM candles_as_of(NULL, '2m', NULL, NULL, NULL)")


class TestDerived:
    """5m, 15m and 1h from the one-minute bars that were known."""

    @pytest.fixture
    def quarter(self, db, symbol):
        bars = [
            bar(m, 10.0 + m, volume=float(m + 1), vwap=10.0 + m, trade_count=2) for m in range(15)
        ]
        self.known = put(db, answer(symbol, bars)).as_of
        return symbol

    def test_a_longer_bar_is_first_highest_lowest_last_and_sum(self, db, quarter):
        found = read(db, Interval.M5)
        assert minutes(found, "open", "high", "low", "close", "volume", "trade_count") == [
            (0, 10.0, 15.0, 9.0, 14.0, 15.0, 10),
            (5, 15.0, 20.0, 14.0, 19.0, 40.0, 10),
            (10, 20.0, 25.0, 19.0, 24.0, 65.0, 10),
        ]
        # Volumes 1 to 5 weigh prices 10 to 14.
        assert found[0]["vwap"] == pytest.approx(190 / 15)
        assert {row["status"] for row in found} == {"final"}
        assert {row["interval"] for row in found} == {"5m"}
        assert minutes(read(db, Interval.M15), "close", "volume") == [(0, 24.0, 120.0)]

    def test_hours_begin_on_the_hour(self, db, quarter):
        window = span(-60, 60)
        assert minutes(read(db, Interval.H1, window), "close") == [(-30, 24.0)]

    def test_a_restated_minute_changes_its_longer_bar_from_then_on_only(self, db, quarter):
        later = LONG_AFTER + MINUTE
        restated = put(db, answer(quarter, [bar(4, 50.0, volume=100.0)], asked=later)).as_of
        [before] = read(db, Interval.M5, span(0, 5), as_of=self.known)
        [after] = read(db, Interval.M5, span(0, 5), as_of=restated)
        assert (before["close"], before["volume"], before["status"]) == (14.0, 15.0, "final")
        assert (after["close"], after["volume"], after["status"]) == (50.0, 110.0, "revised")
        assert (before["as_of"], after["as_of"]) == (self.known, restated)

    def test_an_unknown_volume_makes_the_sum_unknown(self, db, symbol):
        put(db, answer(symbol, [bar(0, volume=1.0), bar(1, volume=None)]))
        assert minutes(read(db, Interval.M5), "volume") == [(0, None)]

    def test_bars_of_several_sources_name_them(self, db, two_sources):
        assert minutes(read(db, Interval.M5), "provider") == [(0, "finnhub+yfinance")]
        every = minutes(read(db, Interval.M5, every_source=True), "provider", "close")
        assert every == [(0, "finnhub", 20.0), (0, "yfinance", 10.0)]

    def test_a_window_takes_whole_bars_that_begin_in_it(self, db, quarter):
        assert minutes(read(db, Interval.M5, span(1, 11)), "close") == [(5, 19.0), (10, 24.0)]


def test_daily_bars_come_from_their_own_table_and_policy(db, symbol):
    ranks.publish(db, "bars_eod", [["yfinance"], ["finnhub"]])
    days = [daily(date(2026, 3, 2)), daily(date(2026, 3, 3), 11.0)]
    window = span(0, 3 * 24 * 60)
    for source, shift in (("yfinance", 0), ("finnhub", 5)):
        given = [
            type(d)(d.ts, d.open, d.high + shift, d.low, d.close, session=d.session) for d in days
        ]
        put(db, answer(symbol, given, window=window), source=source, interval=Interval.D1)
    found = read(db, Interval.D1, window)
    assert [(row["ts"], row["high"], row["provider"]) for row in found] == [
        (days[0].ts, 11.0, "yfinance"),
        (days[1].ts, 12.0, "yfinance"),
    ]
    assert len(read(db, Interval.D1, window, every_source=True)) == 4
    assert read(db, Interval.D1, span(1, 24 * 60)) == []


def test_coverage_says_what_is_known_of_each_stretch(db, symbol):
    given = answer(
        symbol, [bar(0)], window=span(0, 5), asked=at(5), settled=at(4), lacking=[span(2, 3)]
    )
    put(db, given, failures=[Failure(symbol, span(7, 9), at(9), "failed", "timeout", "slow")])
    who: Any = {"who": "ann", "reason": "news"}
    calendars.override(db, Override("halt", symbol_id=symbol, hours=(span(20, 30),), **who))
    enqueue(db, [NewJob(symbol, Interval.M1, span(40, 45), Tier.T0, "gap")])
    found = rows(
        db,
        "SELECT start_ts, end_ts, state, provider, reason FROM coverage WHERE symbol = 'SPY' ORDER BY 1, 2",
    )
    assert [((a - OPEN) / MINUTE, (b - OPEN) / MINUTE, *rest) for a, b, *rest in found] == [
        (0, 4, "covered", "yfinance", None),
        (2, 3, "lacked", "yfinance", None),
        (4, 5, "unsettled", "yfinance", None),
        (7, 9, "failed", "yfinance", "timeout: slow"),
        (20, 30, "halted", None, "news"),
        (40, 45, "gap", None, "pending"),
    ]


def test_cursors_tell_who_answered_what_and_when(db):
    ids = symbols(db, "BAC", "SPY")
    spy, bac = ids["SPY"], ids["BAC"]
    put(db, answer(spy, [bar(0), bar(5)], window=span(0, 10)))
    put(db, answer(spy, [], window=span(20, 30), asked=LONG_AFTER + MINUTE), source="finnhub")
    with db.transaction() as conn:
        assert cursors.covered(conn, [spy, bac], Interval.M1) == {
            (spy, "yfinance"): [span(0, 10)],
            (spy, "finnhub"): [span(20, 30)],
        }
        assert cursors.covered(conn, [spy], Interval.M1, span(5, 25)) == {
            (spy, "yfinance"): [span(5, 10)],
            (spy, "finnhub"): [span(20, 25)],
        }
        assert cursors.last_answered(conn, Interval.M1) == {spy: LONG_AFTER + timedelta(minutes=1)}
        assert cursors.last_answered(conn, Interval.D1, [spy]) == {}
        assert cursors.suppliers(conn, [spy, bac], HOUR) == {spy: ["yfinance"]}
        assert cursors.suppliers(conn, [spy], span(6, 9)) == {}


class TestLatest:
    """The newest bar of each symbol, as known then."""

    LONG = timedelta(days=36_500)

    def latest(self, db, interval=Interval.M1, **options):
        found = Reader(db).latest(None, str(interval), look_back=self.LONG, **options)
        return [(row["symbol"], row["close"], row["provider"]) for row in found.arrow.to_pylist()]

    def test_it_is_the_winner_s_newest_that_is_not_withdrawn(self, db, two_sources):
        other = symbols(db, "BAC")["BAC"]
        put(db, answer(other, [bar(7, 70.0)]))
        assert self.latest(db) == [("BAC", 70.0, "yfinance"), ("SPY", 20.0, "finnhub")]
        assert self.latest(db, providers=["yfinance"])[1] == ("SPY", 10.0, "yfinance")

    def test_it_is_what_was_known_then(self, db, symbol):
        first = put(db, answer(symbol, [bar(0, 10.0)])).as_of
        put(db, answer(symbol, [bar(0, 11.0), bar(1, 12.0)], asked=LONG_AFTER + MINUTE))
        assert self.latest(db, as_of=first) == [("SPY", 10.0, "yfinance")]
        assert self.latest(db) == [("SPY", 12.0, "yfinance")]

    def test_days_come_from_the_end_of_day_bars(self, db, symbol):
        put(db, answer(symbol, [bar(0, 10.0)]))
        days = [daily(date(2024, 3, day), float(day)) for day in (5, 6)]
        put(db, answer(symbol, days), interval=Interval.D1)
        assert self.latest(db, Interval.D1) == [("SPY", 6.0, "yfinance")]

    def test_what_is_too_old_is_left_out(self, db, symbol):
        put(db, answer(symbol, [bar(0, 10.0)]))
        assert len(Reader(db).latest()) == 0

    def test_a_derived_interval_is_refused(self, db):
        with pytest.raises(UsageError, match="expected 1m or 1d"):
            Reader(db).latest(None, "1h")
