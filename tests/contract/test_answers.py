"""What every provider's bars are: inside the window, aware, aligned, ascending, unique, and true."""

from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest

from core.errors import SymbolNotFoundError
from core.words import Capability
from providers.base import Request
from tests.contract.conftest import NEW_YORK, SYMBOLS, VENDORS, Case, World, between

HOUR = between("2024-03-07T14:30", "2024-03-07T15:30")
YESTERDAY = between("2024-03-06T14:30", "2024-03-06T21:00")


def numbers(bars):
    return [(b.ts, b.open, b.high, b.low, b.close, b.volume) for b in bars]


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_minute_bars_are_the_truth_in_number_and_place(
    case: Case, world: World, symbol: str
) -> None:
    assert numbers(case.bars(Capability.BARS_1M, symbol, HOUR)) == world.truth(symbol, HOUR)


def test_bars_of_a_whole_session_come_without_its_closing_row(case: Case, world: World) -> None:
    wide = between("2024-03-06T14:00", "2024-03-06T21:30")

    bars = case.bars(Capability.BARS_1M, "BUSY", wide)

    assert numbers(bars) == world.truth("BUSY", YESTERDAY)
    assert bars[-1].ts == datetime(2024, 3, 6, 20, 59, tzinfo=UTC)


def test_bars_are_aware_aligned_ascending_unique_and_not_yet_judged(case: Case) -> None:
    bars = case.bars(Capability.BARS_1M, "DULL", YESTERDAY)

    assert all(bar.ts.utcoffset() == timedelta(0) for bar in bars)
    assert all(bar.ts.second == bar.ts.microsecond == 0 for bar in bars)
    assert all(earlier.ts < later.ts for earlier, later in pairwise(bars))
    assert all(bar.problem() is None and not bar.partial for bar in bars)


def test_a_window_is_half_open_and_neighbours_share_no_bar(case: Case) -> None:
    first = between("2024-03-07T14:30", "2024-03-07T14:45")
    second = between("2024-03-07T14:45", "2024-03-07T15:00")

    bars = [
        bar for window in (first, second) for bar in case.bars(Capability.BARS_1M, "BUSY", window)
    ]

    assert [bar.ts for bar in bars] == [first.start + timedelta(minutes=n) for n in range(30)]


def test_the_first_minute_of_a_window_has_its_volume(case: Case, world: World) -> None:
    for start in ("2024-03-07T14:30", "2024-03-07T14:52"):
        window = between(start, start[:-2] + "59")
        first = case.bars(Capability.BARS_1M, "BUSY", window)[0]
        assert first.volume == world.truth("BUSY", window)[0][5] > 0


def test_minutes_without_trades_are_absent_never_filled(case: Case, world: World) -> None:
    traded = {row[0] for row in world.truth("DULL", YESTERDAY)}

    bars = case.bars(Capability.BARS_1M, "DULL", YESTERDAY)

    assert {bar.ts for bar in bars} == traded
    assert 0 < len(bars) < 390


@pytest.mark.parametrize(
    ("start", "end"),
    [("2024-03-07T02:00", "2024-03-07T03:00"), ("2024-03-02T14:30", "2024-03-03T21:00")],
    ids=["at night", "on a weekend"],
)
def test_an_empty_window_is_answered_with_no_bars(case: Case, start: str, end: str) -> None:
    pages = case.page(Capability.BARS_1M, "BUSY", between(start, end))

    assert [bar for page in pages for bar in page.bars["BUSY"]] == []
    assert not any(page.problems or page.rejects for page in pages)


def test_the_running_minute_shows_at_most_as_its_own_last_bar(case: Case, world: World) -> None:
    window = between("2024-03-07T15:50", "2024-03-07T16:30")

    bars = case.bars(Capability.BARS_1M, "BUSY", window)

    starts = [bar.ts for bar in bars]
    assert starts[:10] == [window.start + timedelta(minutes=n) for n in range(10)]
    assert starts == [window.start + timedelta(minutes=n) for n in range(len(starts))]
    assert starts[-1] <= world.clock.now()


def test_daily_bars_carry_their_session_and_its_open(case: Case, world: World) -> None:
    window = between("2024-03-04T00:00", "2024-03-07T00:00")

    bars = case.bars(Capability.BARS_EOD, "CALM", window)

    assert [bar.session for bar in bars] == [date(2024, 3, d) for d in (4, 5, 6)]
    assert [bar.ts for bar in bars] == [NEW_YORK.session(b.session).open for b in bars]
    assert numbers(bars) == world.truth("CALM", window, "1d")


def test_the_daily_bar_of_one_session_is_found_by_its_hours(case: Case) -> None:
    (bar,) = case.bars(Capability.BARS_EOD, "BUSY", YESTERDAY)

    assert bar.session == date(2024, 3, 6)


def test_a_weekend_has_no_daily_bar(case: Case) -> None:
    weekend = between("2024-03-02T00:00", "2024-03-04T00:00")

    assert case.bars(Capability.BARS_EOD, "BUSY", weekend) == []


def test_a_reply_parses_the_same_for_ever(case: Case) -> None:
    (call,) = case.provider.plan(Request(Capability.BARS_1M, ("DULL",), HOUR))
    raw = case.provider.send(call, 5.0)

    first = case.provider.parse(call, raw, NEW_YORK)

    assert case.provider.parse(call, raw, NEW_YORK) == first


def test_an_unknown_symbol_is_not_found_or_has_no_bars(case: Case) -> None:
    found: list[object] = []
    with suppress(SymbolNotFoundError):
        (page,) = case.page(Capability.BARS_1M, "NOPE", HOUR)
        found = list(page.bars["NOPE"])

    assert found == []


def test_every_symbol_of_a_quote_call_is_answered_or_explained(wired: Case, world: World) -> None:
    quotes, problems = {}, {}
    for call in wired.provider.plan(Request(Capability.QUOTES_L1, (*SYMBOLS, "NOPE"), None)):
        page = wired.provider.parse(call, wired.sent_when_ready(call), None)
        assert page.quotes.keys() | page.problems.keys() == set(call.symbols)
        quotes |= page.quotes
        problems |= page.problems

    assert set(quotes) == set(SYMBOLS)
    assert {symbol: type(error) for symbol, error in problems.items()} == {
        "NOPE": SymbolNotFoundError
    }
    assert all((q.last or q.bid) > 0 for q in quotes.values())
    assert all(q.ts.utcoffset() == timedelta(0) for q in quotes.values())
    age = timedelta(days=1) if VENDORS[wired.name].dated_quotes else timedelta(minutes=1)
    assert world.clock.now() - age < quotes["BUSY"].ts <= world.clock.now()


def test_quotes_are_what_the_market_said_at_that_instant(wired: Case, world: World) -> None:
    (call,) = wired.provider.plan(Request(Capability.QUOTES_L1, ("BUSY",), None))
    quote = wired.provider.parse(call, wired.sent_when_ready(call), None).quotes["BUSY"]

    (line,) = [line for line in world.served(wired.source) if "quotes" in line][-1:]
    symbol, ts, bid, ask, last = line["quotes"][0]
    assert (symbol, datetime.fromtimestamp(ts, UTC), last) == ("BUSY", quote.ts, quote.last)
    assert (bid, ask) == (quote.bid, quote.ask)
