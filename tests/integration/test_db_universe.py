"""Symbols, names, tiers and calendars are versions: what changes later changes no past answer."""

from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import Any

import pytest

from core.errors import UnknownSymbolError, UsageError
from core.sessions_build import build
from core.windows import Window
from core.words import Interval, Tier
from db import calendars, ranks, reading, switches, universe
from db.calendars import Override
from tests.storage import LONG_AFTER, MINUTE, OPEN, answer, at, bar, put, rows, span

pytestmark = pytest.mark.integration

ROWS = [("AAPL", Tier.T0, "NYSE", "NASDAQ"), ("TCS", Tier.T2, "NSE", "NSE")]
MIDDLE = at(5)


def members(db, **options):
    with db.transaction() as conn:
        return {m.symbol: m for m in universe.members(conn, **options)}


def resolve(db, *names, when=None):
    with db.transaction() as conn:
        return {n: m.symbol_id for n, m in universe.resolve(conn, names, when).items()}


class TestLoad:
    """A load is a version that holds only what changed."""

    def test_the_first_load_adds_everything_and_the_same_again_nothing(self, db):
        report = universe.load(db, ROWS, "file.csv", note="first")
        assert (report.version, report.active, report.added) == (1, 2, 2)
        again = universe.load(db, ROWS, "file.csv")
        assert (again.version, again.added, again.changed, again.retired) == (1, 0, 0, 0)
        assert rows(db, "SELECT version, origin, note FROM universe_versions") == [
            (1, "file.csv", "first")
        ]

    def test_a_load_changes_adds_and_retires_and_ids_stay(self, db):
        universe.load(db, ROWS, "one")
        before = resolve(db, "AAPL", "TCS")
        new = [("AAPL", Tier.T1, "NYSE", "NASDAQ"), ("BAC", Tier.T2, "NYSE", "NYSE")]
        report = universe.load(db, new, "two")
        assert (report.version, report.active) == (2, 2)
        assert (report.added, report.changed, report.retired) == (1, 1, 1)
        assert set(members(db)) == {"AAPL", "BAC"}
        assert set(members(db, active=False)) == {"TCS"}
        assert members(db)["AAPL"].tier is Tier.T1
        universe.load(db, ROWS, "three")
        assert resolve(db, "AAPL", "TCS") == before
        with db.transaction() as conn:
            assert universe.version(conn) == 3

    def test_adding_keeps_the_others(self, db):
        universe.load(db, ROWS, "one")
        universe.load(db, [("BAC", Tier.T0, "NYSE", "")], "two", replace=False)
        assert set(members(db)) == {"AAPL", "BAC", "TCS"}
        assert set(members(db, tier=Tier.T0)) == {"AAPL", "BAC"}

    def test_the_same_row_twice_is_reported_and_two_different_ones_are_refused(self, db):
        report = universe.load(db, [*ROWS, ROWS[0]], "one")
        assert (report.duplicates, report.added) == (("AAPL",), 2)
        clash = [*ROWS, ("AAPL", Tier.T1, "NYSE", "NASDAQ")]
        with pytest.raises(UsageError, match=r"AAPL .*T0.*T1"):
            universe.load(db, clash, "two")

    def test_empty_names_are_refused(self, db):
        with pytest.raises(UsageError, match="empty"):
            universe.load(db, [(" AAPL", Tier.T0, "NYSE", "")], "one")

    def test_loads_that_race_make_one_symbol_of_a_name(self, db):
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda n: universe.load(db, ROWS, f"load {n}"), range(6)))
        assert rows(db, "SELECT count(*) FROM symbols") == [(2,)]
        assert rows(db, "SELECT count(*) FROM universe_versions") == [(1,)]

    def test_retier_moves_known_symbols_only(self, db):
        universe.load(db, ROWS, "one")
        assert universe.retier(db, ["TCS", "AAPL"], Tier.T0).changed == 1
        assert members(db)["TCS"].tier is Tier.T0
        with pytest.raises(UnknownSymbolError, match="NOPE"):
            universe.retier(db, ["NOPE"], Tier.T0)


class TestNames:
    """A name is a symbol's from one instant to another."""

    @pytest.fixture
    def meta(self, db):
        universe.load(db, [("FB", Tier.T0, "NYSE", "")], "one")
        symbol_id = resolve(db, "FB")["FB"]
        put(db, answer(symbol_id, [bar(m) for m in range(10)]))
        universe.rename(db, "FB", "META", MIDDLE)
        return symbol_id

    def minutes(self, db, name, **options):
        found = reading.candles(db, [name], Interval.M1, span(0, 60), **options)
        return [(row["ts"] - OPEN) // MINUTE for row in found]

    def test_a_read_resolves_a_name_at_each_bars_own_time(self, db, meta):
        assert self.minutes(db, "FB") == [0, 1, 2, 3, 4]
        assert self.minutes(db, "META") == [5, 6, 7, 8, 9]
        view = rows(db, "SELECT symbol, count(*) FROM candles GROUP BY 1 ORDER BY 1")
        assert view == [("FB", 5), ("META", 5)]

    def test_a_rename_changes_no_past_answer(self, db):
        universe.load(db, [("FB", Tier.T0, "NYSE", "")], "one")
        put(db, answer(resolve(db, "FB")["FB"], [bar(m) for m in range(10)]))
        [(before,)] = rows(db, "SELECT max(as_of) FROM candles_intraday")
        universe.rename(db, "FB", "META", MIDDLE)
        assert len(self.minutes(db, "FB", as_of=before)) == 10
        assert self.minutes(db, "META", as_of=before) == []

    def test_the_same_rename_again_changes_nothing(self, db, meta):
        before = rows(db, "SELECT count(*) FROM symbol_names")
        universe.rename(db, "FB", "META", MIDDLE)
        assert rows(db, "SELECT count(*) FROM symbol_names") == before
        assert resolve(db, "META", "FB") == {"META": meta}
        assert resolve(db, "META", "FB", when=OPEN) == {"FB": meta}

    def test_a_freed_name_can_be_somebody_elses(self, db, meta):
        universe.load(db, [("META", Tier.T0, "NYSE", ""), ("FB", Tier.T2, "NYSE", "")], "two")
        new = resolve(db, "FB")["FB"]
        assert new != meta
        put(db, answer(new, [bar(7, 99.0)]))
        found = reading.candles(db, ["FB"], Interval.M1, span(0, 60))
        assert [row["close"] for row in found] == [10.0] * 5 + [99.0]

    def test_a_name_that_is_taken_or_unknown_is_refused(self, db, meta):
        universe.load(db, [("BAC", Tier.T0, "NYSE", "")], "two", replace=False)
        with pytest.raises(UsageError, match="the name BAC belongs to symbol"):
            universe.rename(db, "META", "BAC", LONG_AFTER)
        with pytest.raises(UnknownSymbolError, match="NOPE has no holder"):
            universe.rename(db, "NOPE", "YES", LONG_AFTER)

    def test_a_rename_counts_as_a_new_version(self, db, meta):
        with db.transaction() as conn:
            assert universe.version(conn) == 2


class TestCalendars:
    """Sessions as published, and what nobody could know when they were."""

    @pytest.fixture
    def nyse(self, db):
        payload = build("NYSE", date(2026, 3, 1), date(2026, 3, 31))
        assert calendars.publish(db, payload) == 1
        return payload

    def load(self, db):
        with db.transaction() as conn:
            return calendars.load(conn)["NYSE"]

    def test_a_calendar_comes_back_as_it_was_built(self, db, nyse):
        calendar = self.load(db)
        assert len(calendar.sessions) == len(nyse["sessions"]) == 22
        monday = calendar.session(date(2026, 3, 2))
        assert (monday.open, monday.close) == (OPEN, OPEN + timedelta(hours=6.5))
        assert (calendar.known_from, calendar.known_until) == (date(2026, 3, 1), date(2026, 3, 31))

    def test_lunch_breaks_and_round_the_clock_survive(self, db):
        for name in ("HKEX", "24/7"):
            payload = build(name, date(2026, 3, 2), date(2026, 3, 6))
            calendars.publish(db, payload)
        with db.transaction() as conn:
            found = calendars.load(conn, ["HKEX", "24/7", "NOPE"])
        assert set(found) == {"HKEX", "24/7"}
        assert len(found["HKEX"].session(date(2026, 3, 2)).segments) == 2
        assert len(found["24/7"].sessions) == 5

    def test_the_same_arrays_again_are_no_new_version_and_others_are(self, db, nyse):
        assert calendars.publish(db, nyse) == 1
        longer = build("NYSE", date(2026, 3, 1), date(2026, 4, 30))
        assert calendars.publish(db, longer) == 2
        assert self.load(db).known_until == date(2026, 4, 30)

    def test_overrides_close_shorten_and_add_sessions_and_halt_trading(self, db, nyse):
        monday, tuesday = date(2026, 3, 2), date(2026, 3, 3)
        who: Any = {"calendar": "NYSE", "who": "ann", "reason": "storm"}
        with db.transaction() as conn:
            before = calendars.versions(conn)
        calendars.override(db, Override("closed", session=monday, **who))
        early = Window(OPEN + timedelta(days=1), OPEN + timedelta(days=1, hours=3))
        calendars.override(db, Override("hours", session=tuesday, hours=(early,), **who))
        saturday = Window(OPEN + timedelta(days=5), OPEN + timedelta(days=5, hours=1))
        calendars.override(
            db, Override("hours", session=date(2026, 3, 7), hours=(saturday,), **who)
        )
        pause = Window(OPEN + timedelta(days=2, hours=1), OPEN + timedelta(days=2, hours=2))
        halt = calendars.override(db, Override("halt", hours=(pause,), **who))
        found = self.load(db)
        assert found.session_at(OPEN) is None
        assert found.session(tuesday).segments == (early,)
        assert found.session(date(2026, 3, 7)).segments == (saturday,)
        assert len(found.session(date(2026, 3, 4)).segments) == 2
        calendars.override(db, Override("cancel", "bob", "over", cancels=halt))
        assert len(self.load(db).session(date(2026, 3, 4)).segments) == 1
        with db.transaction() as conn:
            assert calendars.versions(conn)["NYSE"] == before["NYSE"] + 5

    def test_an_override_of_what_does_not_exist_is_refused(self, db):
        with pytest.raises(UsageError, match="calendar 'XX' is not published"):
            calendars.override(
                db, Override("closed", "ann", "storm", calendar="XX", session=date(2026, 3, 2))
            )
        with pytest.raises(UsageError, match="override 7 does not exist"):
            calendars.override(db, Override("cancel", "ann", "oops", cancels=7))


def test_the_rank_in_force_is_read_back(db):
    assert ranks.publish(db, "bars_1m", [["finnhub", "alpaca.iex"], ["yfinance"]])
    with db.transaction() as conn:
        assert ranks.current(conn, "bars_1m") == [
            (0, "finnhub"),
            (0, "alpaca.iex"),
            (1, "yfinance"),
        ]
        assert ranks.current(conn, "quotes_l1") == []


def test_a_source_is_off_until_its_time_or_until_it_is_switched_on(db):
    def off():
        with db.transaction() as conn:
            return {name: s.reason for name, s in switches.disabled(conn).items()}

    who: Any = {"who": "ann", "reason": "bad prices"}
    switches.switch(db, "finnhub", enabled=False, **who)
    switches.switch(db, "yfinance", enabled=False, until=db.clock.now() + MINUTE, **who)
    switches.switch(db, "csv", enabled=False, until=db.clock.now() - MINUTE, **who)
    assert off() == {"finnhub": "bad prices", "yfinance": "bad prices"}
    switches.switch(db, "finnhub", enabled=True, who="bob", reason="mended")
    assert off() == {"yfinance": "bad prices"}
