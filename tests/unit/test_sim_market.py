"""The seeded market: deterministic, honest about what is known when, shaped like a market."""

from dataclasses import replace
from datetime import UTC, date, datetime
from functools import cache
from itertools import pairwise

import pytest

from core.errors import SettingsError
from core.words import Tier
from sim.config import HaltSpec, MarketConfig, SplitSpec, SymbolSpec
from sim.market.day import PARTIAL, BarVersion
from sim.market.model import Market, build_market, instant
from sim.market.universe import Instrument

SESSION = date(2024, 3, 5)
BUSY, DULL = SymbolSpec("BUSY", Tier.T0, "XNYS"), SymbolSpec("DULL", Tier.T2, "XNYS")
PLAIN = MarketConfig(seed=7, session=SESSION, universe=(BUSY, DULL))


@cache
def market(day: date = SESSION) -> Market:
    return build_market(replace(PLAIN, session=day), 0.0)


def one(name: str, of: Market) -> Instrument:
    found = of.universe.get(name)
    assert found is not None
    return found


def moment(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


OPEN, CLOSE = moment("2024-03-05T14:30"), moment("2024-03-05T21:00")


@pytest.mark.parametrize(
    ("day", "opens", "closes", "minutes"),
    [
        (date(2024, 3, 8), "14:30", "21:00", 390),
        (date(2024, 3, 11), "13:30", "20:00", 390),
        (date(2024, 7, 3), "13:30", "17:00", 210),
    ],
    ids=["winter time", "summer time", "half day"],
)
def test_new_york_trades_its_real_hours(day: date, opens: str, closes: str, minutes: int) -> None:
    of = market(day)
    rows = of.day(one("BUSY", of), of.session).minutes
    assert (of.session.open, of.session.close) == (
        moment(f"{day}T{opens}"),
        moment(f"{day}T{closes}"),
    )
    assert (rows[0], rows[-1], len(rows)) == (of.session.open, of.session.close - 60, minutes)


def test_a_holiday_is_refused_as_the_session_of_a_run() -> None:
    with pytest.raises(SettingsError, match="2024-03-29 is no session of XNYS"):
        build_market(replace(PLAIN, session=date(2024, 3, 29)), 0.0)


def test_tokyo_has_no_rows_in_its_lunch_break() -> None:
    config = MarketConfig(session=SESSION, universe=(SymbolSpec("T", Tier.T0, "XTKS"),))
    of = build_market(config, 0.0)
    rows = of.day(of.universe.instruments[0], of.session).minutes
    assert len(rows) == 300
    assert moment("2024-03-05T02:29") in rows
    assert moment("2024-03-05T02:30") not in rows


def test_one_seed_gives_one_market_and_another_seed_another() -> None:
    again, other = build_market(PLAIN, 0.0), build_market(replace(PLAIN, seed=8), 0.0)
    here = [market().versions("BUSY", minute) for minute in range(OPEN, CLOSE, 60)]
    assert [again.versions("BUSY", minute) for minute in range(OPEN, CLOSE, 60)] == here
    assert [other.versions("BUSY", minute) for minute in range(OPEN, CLOSE, 60)] != here


def test_a_symbol_trades_the_same_whoever_else_is_listed() -> None:
    alone = build_market(replace(PLAIN, universe=(DULL,)), 0.0)
    assert alone.versions("DULL", OPEN + 600) == market().versions("DULL", OPEN + 600)
    assert alone.day(alone.universe.instruments[0], alone.session).daily == (
        market().day(one("DULL", market()), market().session).daily
    )


def traded(of: Market, tier: Tier) -> float:
    minutes = found = 0
    for instrument in of.universe.instruments:
        if instrument.tier is tier:
            rows = of.day(instrument, of.session)
            minutes += len(rows.minutes)
            found += sum(bool(rows.versions(row)) for row in range(len(rows.minutes)))
    return found / minutes


def test_lively_symbols_trade_every_minute_and_dull_ones_do_not() -> None:
    of = build_market(MarketConfig(seed=3, session=SESSION), 0.0)
    assert traded(of, Tier.T0) > 0.999
    assert 0.95 < traded(of, Tier.T1) < 0.999
    assert 0.2 < traded(of, Tier.T2) < 0.8


def all_versions(of: Market, name: str) -> list[tuple[int, list[BarVersion]]]:
    return [(minute, of.versions(name, minute)) for minute in range(OPEN, CLOSE, 60)]


@pytest.mark.parametrize("name", ["BUSY", "DULL"])
def test_every_version_is_a_possible_bar_and_differs_from_the_one_before(name: str) -> None:
    for minute, versions in all_versions(market(), name):
        for number, version in enumerate(versions):
            assert version.number == number
            assert version.low <= min(version.open, version.close)
            assert version.high >= max(version.open, version.close)
            assert version.low > 0
            assert version.volume >= 1
        assert not versions or versions[0].reveal == minute + 60
        for before, after in pairwise(versions):
            assert after.reveal > before.reveal
            assert after[2:] != before[2:]


def test_ordinary_changes_come_within_the_settle_time_and_restatements_after_it() -> None:
    config = replace(
        PLAIN, settle_s=40, settle_share=0.5, restate_share=0.3, restate_delay_s=(300, 900)
    )
    delays = [
        version.reveal - minute - 60
        for minute, versions in all_versions(build_market(config, 0.0), "BUSY")
        for version in versions[1:]
    ]
    settling = [delay for delay in delays if delay <= 40]
    restated = [delay for delay in delays if delay > 40]
    # Of 390 minutes about 195 settle and 117 are restated, a tenth of these twice.
    assert 150 < len(settling) < 240
    assert 90 < len(restated) < 170
    assert min(restated) >= 60 + 300
    assert max(restated) <= 60 + 900 + 1


def test_without_shares_a_closed_bar_never_changes() -> None:
    config = replace(PLAIN, settle_share=0.0, restate_share=0.0)
    assert {len(versions) for _, versions in all_versions(build_market(config, 0.0), "BUSY")} == {1}


def test_a_version_is_known_from_its_reveal_on_and_not_before() -> None:
    minute, versions = next(pair for pair in all_versions(market(), "BUSY") if len(pair[1]) > 1)
    first, second = versions[:2]
    assert market().bar("BUSY", minute, first.reveal) == first
    assert market().bar("BUSY", minute, second.reveal - 0.001) == first
    assert market().bar("BUSY", minute, second.reveal) == second


@pytest.mark.parametrize("minute", [OPEN, OPEN + 7 * 60, CLOSE - 60])
def test_a_running_minute_only_grows_until_it_is_the_first_version(minute: int) -> None:
    first = market().versions("BUSY", minute)[0]
    seen = [market().bar("BUSY", minute, minute + second) for second in range(60)]
    grown = [bar for bar in seen if bar is not None]
    assert all(bar.number == PARTIAL for bar in grown)
    for before, after in pairwise(grown):
        assert after.volume >= before.volume
        assert after.high >= before.high
        assert after.low <= before.low
    assert all(first.low <= bar.low <= bar.close <= bar.high <= first.high for bar in grown)
    assert grown[-1][2:] == first[2:]
    assert market().bar("BUSY", minute, minute - 1) is None


def test_what_never_trades_and_what_is_not_listed_is_none() -> None:
    empty = next(minute for minute, versions in all_versions(market(), "DULL") if not versions)
    assert market().bar("DULL", empty, CLOSE) is None
    assert market().bar("NOBODY", OPEN, CLOSE) is None
    assert market().bar("BUSY", CLOSE, CLOSE + 100) is None
    assert market().versions("BUSY", OPEN + 1) == []


def test_rows_of_a_window_say_the_same_as_bar_by_bar() -> None:
    at = OPEN + 3 * 3600 + 31.5
    day = market().day(one("DULL", market()), market().session)
    rows = day.rows(OPEN, CLOSE, at)
    shown = {
        minute: (
            rows.version[n],
            rows.open[n],
            rows.high[n],
            rows.low[n],
            rows.close[n],
            rows.volume[n],
        )
        for n, minute in enumerate(rows.minutes)
        if rows.version[n] != -1
    }
    known = {minute: market().bar("DULL", minute, at) for minute in range(OPEN, CLOSE, 60)}
    assert shown == {
        minute: (bar.number, *bar[2:]) for minute, bar in known.items() if bar is not None
    }
    assert all(minute <= at for minute in shown)


def test_the_daily_bar_is_the_minutes_and_the_closing_auction() -> None:
    day = market().day(one("BUSY", market()), market().session)
    last = [versions[-1] for _, versions in all_versions(market(), "BUSY") if versions]
    final = day.daily[-1]
    assert final.open == last[0].open
    assert final.high == max(*(bar.high for bar in last), day.official_close)
    assert final.low == min(*(bar.low for bar in last), day.official_close)
    assert final.close == day.official_close
    assert final.volume == sum(bar.volume for bar in last) + day.auction_volume
    assert day.daily[0].reveal == CLOSE


def test_a_daily_bar_changes_when_a_minute_is_restated_after_the_close() -> None:
    late = {
        version.reveal
        for _, versions in all_versions(market(), "BUSY")
        for version in versions
        if version.reveal > CLOSE
    }
    day = market().day(one("BUSY", market()), market().session)
    assert late
    assert {version.reveal for version in day.daily[1:]} == late


def test_a_close_lies_near_the_next_open() -> None:
    sessions = one("BUSY", market()).sessions
    tomorrow = sessions.on(date(2024, 3, 6))
    assert tomorrow is not None
    instrument = one("BUSY", market())
    close = market().day(instrument, market().session).official_close
    assert market().previous_close(instrument, tomorrow) == close
    opened = market().day(instrument, tomorrow).regular_open
    assert opened == pytest.approx(close, rel=0.02)


def test_a_halt_has_no_trades_and_is_marked() -> None:
    of = build_market(replace(PLAIN, halts=(HaltSpec("BUSY", "15:00", 10),)), 0.0)
    start = moment("2024-03-05T15:00")
    assert all(not of.versions("BUSY", start + 60 * n) for n in range(10))
    assert of.versions("BUSY", start - 60)
    assert of.versions("BUSY", start + 600)
    assert of.day(one("BUSY", of), of.session).halted == {start + 60 * n for n in range(10)}


def test_a_split_divides_prices_from_its_session_on() -> None:
    split = replace(PLAIN, splits=(SplitSpec("BUSY", date(2024, 3, 6), 4.0),))
    of, before = build_market(split, 0.0), market()
    instrument = one("BUSY", of)
    tomorrow = instrument.sessions.on(date(2024, 3, 6))
    assert tomorrow is not None
    assert of.versions("BUSY", OPEN) == before.versions("BUSY", OPEN)
    assert of.day(instrument, tomorrow).official_close == pytest.approx(
        before.day(one("BUSY", before), tomorrow).official_close / 4, abs=0.01
    )


def test_a_split_of_a_stranger_is_refused() -> None:
    with pytest.raises(SettingsError, match="NOBODY"):
        build_market(replace(PLAIN, splits=(SplitSpec("NOBODY", SESSION, 2.0),)), 0.0)


def test_a_quote_repeats_the_last_trade_between_bid_and_ask() -> None:
    instrument = one("BUSY", market())
    for second in range(0, 3600, 7):
        at = OPEN + second + 0.5
        quote = market().quote(instrument, at)
        assert quote is not None
        assert quote.bid < quote.ask
        assert quote.ts <= at
        bar = market().bar("BUSY", int(at // 60) * 60, at)
        if bar is not None:
            assert quote.last == bar.close


def test_before_the_first_trade_the_quote_is_of_yesterday() -> None:
    names = [f"DULL{n}" for n in range(20)]
    config = replace(PLAIN, universe=tuple(SymbolSpec(name, Tier.T2, "XNYS") for name in names))
    of = build_market(config, 0.0)
    late = next(name for name in names if not of.versions(name, OPEN))
    quote = of.quote(one(late, of), OPEN + 59)
    assert quote is not None
    assert quote.last == quote.previous_close
    assert quote.ts == moment("2024-03-04T21:00") + 1
    assert (quote.open, quote.high, quote.low, quote.volume) == (None, None, None, 0.0)


def test_after_the_close_the_quote_is_the_official_close() -> None:
    instrument = one("BUSY", market())
    quote = market().quote(instrument, CLOSE + 3600)
    assert quote is not None
    assert (quote.last, quote.ts) == (
        market().day(instrument, market().session).official_close,
        CLOSE + 1,
    )


def test_thousands_of_invented_symbols_have_names_of_their_own() -> None:
    counts = {"T0": 1200, "T1": 3000, "T2": 8000}
    universe = build_market(MarketConfig(session=SESSION, symbols=counts), 0.0).universe.instruments
    assert len({instrument.symbol for instrument in universe}) == 12_200


@pytest.mark.parametrize("seed", [1, 7])
def test_names_that_people_try_first_lead_every_invented_universe(seed: int) -> None:
    counts = {"T0": 2, "T1": 5, "T2": 6000}
    config = MarketConfig(session=SESSION, seed=seed, symbols=counts)
    universe = build_market(config, 0.0).universe.instruments
    assert [one.symbol for one in universe[:3]] == ["AAPL", "MSFT", "NVDA"]
    assert {one.symbol for one in universe if one.tier is Tier.T0} == {"AAPL", "MSFT"}
    assert len({one.symbol for one in universe}) == 6007


def test_invented_symbols_spread_over_exchanges_by_weight() -> None:
    config = MarketConfig(
        session=SESSION, symbols={"T0": 0, "T1": 0, "T2": 400}, exchanges={"XNYS": 3.0, "24/7": 1.0}
    )
    universe = build_market(config, 0.0).universe.instruments
    assert 60 < sum(instrument.exchange == "24/7" for instrument in universe) < 140


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("15:00", "2024-03-05T15:00:00"),
        ("14:30:30", "2024-03-05T14:30:30"),
        ("2024-03-06T10:00:00+01:00", "2024-03-06T09:00:00"),
    ],
)
def test_a_time_of_day_belongs_to_the_session(text: str, expected: str) -> None:
    assert instant(text, market().session) == moment(expected)


def test_a_time_of_day_finds_the_session_that_began_on_the_day_before_in_utc() -> None:
    # Sydney's session of 6 March runs from 23:00 UTC of the 5th to 05:00.
    config = MarketConfig(session=date(2024, 3, 6), universe=(SymbolSpec("S", Tier.T0, "XASX"),))
    session = build_market(config, 0.0).session
    assert instant("23:30", session) == moment("2024-03-05T23:30")
    assert instant("01:30", session) == moment("2024-03-06T01:30")
