"""Gaps are what is expected and not explained; empty minutes are confirmed by those who could know."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from core.windows import Window
from core.words import Interval, Tier
from db import calendars, gaps, universe
from db.calendars import Override
from tests.storage import LONG_AFTER, MINUTE, OPEN, answer, at, bar, daily, put, rows, span, symbols

pytestmark = pytest.mark.integration

DAY = span(0, 10)
LATER = LONG_AFTER + timedelta(minutes=20)


def find(db, *, until=LONG_AFTER, hours=(DAY,), sources=("yfinance", "finnhub"), tiers=tuple(Tier)):
    found = gaps.find(
        db,
        interval=Interval.M1,
        expected={"NYSE": hours},
        deadline=dict.fromkeys(tiers, until),
        sources=sources,
    )
    return [
        (gap.symbol_id, (gap.window.start - OPEN) / MINUTE, (gap.window.end - OPEN) / MINUTE)
        for gap in found
    ]


def confirm(db, *eligible, interval=Interval.M1):
    return gaps.confirm_empty(db, interval=interval, since=OPEN, eligible=eligible)


def empties(db):
    found = rows(
        db, "SELECT start_ts, end_ts, providers, basis FROM confirmed_empty ORDER BY start_ts"
    )
    return [
        ((a - OPEN) / MINUTE, (b - OPEN) / MINUTE, names, basis) for a, b, names, basis in found
    ]


def bars(*minutes):
    return [bar(minute) for minute in minutes]


def test_nothing_asked_is_one_gap_a_symbol(db):
    ids = symbols(db, "BAC", "SPY")
    assert find(db) == [(ids["BAC"], 0, 10), (ids["SPY"], 0, 10)]


def test_what_one_source_answered_is_no_gap(db, symbol):
    put(db, answer(symbol, bars(*range(3)), window=span(0, 3)))
    put(db, answer(symbol, bars(*range(5, 10)), window=span(5, 10)), source="finnhub")
    assert find(db) == [(symbol, 3, 5)]


def test_only_sources_of_the_policy_explain_but_any_stored_bar_does(db, symbol):
    put(db, answer(symbol, bars(0, 1), window=span(0, 3)), source="finnhub")
    put(db, answer(symbol, bars(4), window=span(4, 5), settled=OPEN), source="csv")
    assert find(db, sources=("yfinance",)) == [(symbol, 2, 4), (symbol, 5, 10)]


def test_an_absence_is_a_gap_until_it_is_confirmed(db, symbol):
    put(db, answer(symbol, bars(*range(7)), window=DAY, lacking=[span(7, 10)]))
    assert find(db) == [(symbol, 7, 10)]
    ask: Any = {"window": DAY, "lacking": [span(8, 10)], "asked": LATER}
    put(db, answer(symbol, bars(*range(8)), **ask), source="finnhub")
    assert find(db) == [(symbol, 8, 10)]
    assert confirm(db, "yfinance", "finnhub") == 1
    assert find(db) == []


def test_a_bar_that_is_stored_and_not_covered_yet_is_present(db, symbol):
    put(db, answer(symbol, bars(*range(10)), window=DAY, settled=OPEN))
    assert find(db) == []


def test_a_partial_or_withdrawn_bar_is_not_present(db, symbol):
    put(db, answer(symbol, [bar(0, partial=True)], window=span(0, 1), asked=at(0.5), settled=OPEN))
    put(db, answer(symbol, bars(*range(1, 10)), window=span(1, 10)))
    for number in (1, 2):
        late = LONG_AFTER + number * MINUTE
        put(db, answer(symbol, [], window=span(5, 6), asked=late, lacking=[span(5, 6)]))
    assert find(db) == [(symbol, 0, 1), (symbol, 5, 6)]


def test_only_whole_bars_before_the_deadline_of_their_tier_are_judged(db):
    ids = symbols(db, "SPY", tier=Tier.T0)
    universe.load(db, [("BAC", Tier.T1, "NYSE", "")], "test", replace=False)
    found = gaps.find(
        db,
        interval=Interval.M1,
        expected={"NYSE": [DAY]},
        deadline={Tier.T0: at(4.5)},
        sources=["yfinance"],
    )
    assert [(gap.symbol_id, gap.tier, gap.window) for gap in found] == [
        (ids["SPY"], Tier.T0, span(0, 4))
    ]


def test_closed_time_other_calendars_and_retired_symbols_have_no_gaps(db):
    ids = symbols(db, "SPY", "OLD")
    universe.load(db, [("SPY", Tier.T0, "NYSE", ""), ("TCS", Tier.T0, "NSE", "")], "test")
    assert find(db, hours=[span(0, 2), span(5, 6)]) == [(ids["SPY"], 0, 2), (ids["SPY"], 5, 6)]


def test_halts_of_a_symbol_and_of_a_calendar_are_no_gaps_until_they_are_cancelled(db):
    ids = symbols(db, "BAC", "SPY")
    calendars.publish(db, payload())
    who: Any = {"who": "ann", "reason": "news pending"}
    one = Override("halt", symbol_id=ids["SPY"], hours=(span(2, 4),), **who)
    halt = calendars.override(db, one)
    calendars.override(db, Override("halt", calendar="NYSE", hours=(span(8, 10),), **who))
    assert find(db) == [(ids["BAC"], 0, 8), (ids["SPY"], 0, 2), (ids["SPY"], 4, 8)]
    calendars.override(db, Override("cancel", cancels=halt, **who))
    assert find(db) == [(ids["BAC"], 0, 8), (ids["SPY"], 0, 8)]


def payload():
    opened = int(OPEN.timestamp())
    return {
        "calendar": "NYSE",
        "known_from": "2026-01-01",
        "known_until": "2026-12-31",
        "sessions": [["2026-03-02", [[opened, opened + 390 * 60]]]],
    }


class TestConfirmedEmpty:
    """Two eligible sources after settle, or the only eligible one twice, a quarter of an hour apart."""

    def lack(self, db, symbol, source, asked=LONG_AFTER, lacking=(3, 6), **more):
        window = span(0, 10)
        given = bars(*(m for m in range(10) if not lacking[0] <= m < lacking[1]))
        return put(
            db,
            answer(symbol, given, window=window, asked=asked, lacking=[span(*lacking)], **more),
            source=source,
        )

    def test_two_eligible_sources_confirm_what_both_lacked(self, db, symbol):
        self.lack(db, symbol, "yfinance", lacking=(3, 6))
        self.lack(db, symbol, "finnhub", lacking=(4, 8))
        # The first has bars for 6 and 7, the second for 3.
        assert confirm(db, "yfinance", "finnhub") == 1
        assert empties(db) == [(4, 6, ["finnhub", "yfinance"], "two_sources")]
        assert confirm(db, "yfinance", "finnhub") == 0

    def test_one_of_two_eligible_sources_is_not_enough(self, db, symbol):
        for number in range(3):
            self.lack(db, symbol, "yfinance", LONG_AFTER + number * timedelta(hours=1))
        assert confirm(db, "yfinance", "finnhub") == 0

    def test_a_source_that_is_not_eligible_does_not_count(self, db, symbol):
        self.lack(db, symbol, "yfinance")
        self.lack(db, symbol, "csv")
        assert confirm(db, "yfinance", "finnhub") == 0

    def test_an_answer_before_settle_does_not_count(self, db, symbol):
        self.lack(db, symbol, "yfinance")
        self.lack(db, symbol, "finnhub", settled=at(3))
        assert confirm(db, "yfinance", "finnhub") == 0

    @pytest.mark.parametrize(("minutes", "confirmed"), [(14, 0), (15, 1)])
    def test_the_only_source_must_say_so_twice_a_quarter_of_an_hour_apart(
        self, db, symbol, minutes, confirmed
    ):
        self.lack(db, symbol, "yfinance")
        self.lack(db, symbol, "yfinance", LONG_AFTER + minutes * MINUTE)
        assert confirm(db, "yfinance") == confirmed
        assert [row[3] for row in empties(db)] == ["only_source_twice"] * confirmed

    def test_a_minute_that_the_only_source_had_the_second_time_is_not_empty(self, db, symbol):
        self.lack(db, symbol, "yfinance", lacking=(3, 6))
        self.lack(db, symbol, "yfinance", LATER, lacking=(4, 6))
        confirm(db, "yfinance")
        assert [row[:2] for row in empties(db)] == [(4, 6)]

    def test_a_minute_with_a_bar_of_anybody_is_never_empty(self, db, symbol):
        put(db, answer(symbol, bars(4), settled=OPEN), source="csv")
        self.lack(db, symbol, "yfinance")
        self.lack(db, symbol, "finnhub")
        assert confirm(db, "yfinance", "finnhub") == 2
        assert [row[:2] for row in empties(db)] == [(3, 4), (5, 6)]

    def test_a_confirmed_minute_that_lacks_once_more_is_confirmed_once(self, db, symbol):
        self.lack(db, symbol, "yfinance")
        self.lack(db, symbol, "finnhub")
        confirm(db, "yfinance", "finnhub")
        self.lack(db, symbol, "finnhub", LATER)
        assert confirm(db, "yfinance", "finnhub") == 0
        assert rows(db, "SELECT bool_and(isempty(lacked)) FROM ingestion_cursor") == [(True,)]
        assert find(db) == []

    def test_a_series_that_is_being_written_waits_for_the_next_pass(self, db, symbol):
        self.lack(db, symbol, "yfinance")
        self.lack(db, symbol, "finnhub")
        with db.transaction() as conn:
            conn.execute("SELECT 1 FROM ingestion_cursor FOR UPDATE")
            assert confirm(db, "yfinance", "finnhub") == 0
        assert confirm(db, "yfinance", "finnhub") == 1

    def test_sessions_without_a_daily_bar_are_confirmed_as_well(self, db, symbol):
        window = Window(OPEN, OPEN + timedelta(hours=6.5))
        for source in ("yfinance", "finnhub"):
            given = answer(symbol, [], window=window, lacking=[window])
            put(db, given, source=source, interval=Interval.D1)
        assert confirm(db, "yfinance", "finnhub", interval=Interval.D1) == 1


class TestDaily:
    """A daily gap is a session that ended without a bar."""

    sessions = tuple(
        Window(datetime(2026, 3, day, 14, 30, tzinfo=UTC), datetime(2026, 3, day, 21, tzinfo=UTC))
        for day in (2, 3, 4)
    )

    def find(self, db, until: datetime):
        found = gaps.find(
            db,
            interval=Interval.D1,
            expected={"NYSE": self.sessions},
            deadline=dict.fromkeys(Tier, until),
            sources=["yfinance"],
        )
        return [gap.window for gap in found]

    def test_sessions_that_ended_before_the_deadline_are_judged(self, db, symbol):
        assert self.find(db, self.sessions[1].end) == list(self.sessions[:2])

    def test_a_bar_an_answer_or_a_halt_of_the_whole_session_explains(self, db, symbol):
        monday = daily(date(2026, 3, 2))
        window = self.sessions[0]
        put(
            db,
            answer(symbol, [monday], window=window, settled=window.start),
            source="csv",
            interval=Interval.D1,
        )
        asked = self.sessions[2].end
        put(db, answer(symbol, [], window=self.sessions[1], asked=asked), interval=Interval.D1)
        assert self.find(db, self.sessions[2].end) == [self.sessions[2]]
        halt = Override("halt", "ann", "suspended", symbol_id=symbol, hours=(self.sessions[2],))
        calendars.override(db, halt)
        assert self.find(db, self.sessions[2].end) == []

    def test_a_session_that_lacks_is_a_gap(self, db, symbol):
        window = self.sessions[0]
        put(db, answer(symbol, [], window=window, lacking=[window]), interval=Interval.D1)
        assert self.find(db, window.end) == [window]


def test_nothing_expected_finds_nothing(db, symbol):
    assert find(db, hours=()) == []
    assert find(db, tiers=()) == []
