"""What can be believed of prices, by hand-made cases."""

from datetime import UTC, datetime, timedelta

import pytest

from core.bars import Bar, Quote
from workers import plausible
from workers.plausible import Difference, Price

T = datetime(2024, 3, 5, 15, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def bar(n: int, close: float, spread: float = 0.1) -> Bar:
    return Bar(T + n * MINUTE, close, close + spread, close - spread, close, 100.0)


@pytest.mark.parametrize(
    ("later_s", "value", "share"),
    [(60, 105.0, 0.05), (60, 90.0, 0.10), (0, 110.0, 0.10), (601, 200.0, 0.0), (-1, 200.0, 0.0)],
)
def test_a_price_tells_of_the_next_one_for_ten_minutes(
    later_s: int, value: float, share: float
) -> None:
    moved = plausible.move(Price(T, 100.0), T + timedelta(seconds=later_s), value)
    assert moved == pytest.approx(share)


def test_an_answer_s_bars_are_held_against_the_price_before_and_one_another() -> None:
    before = Price(T, 100.0)
    assert plausible.largest_move(before, [bar(1, 101), bar(2, 102)])[0] == pytest.approx(0.02)
    assert plausible.largest_move(before, [bar(1, 110), bar(2, 110)]) == (
        pytest.approx(0.10),
        T + MINUTE,
    )
    assert plausible.largest_move(None, [bar(1, 100), bar(2, 115)])[0] == 0
    assert plausible.largest_move(None, [bar(1, 100), bar(2, 130)])[0] == pytest.approx(0.30)


def test_feeds_that_see_other_trades_of_a_minute_do_not_disagree() -> None:
    ours, theirs = [bar(0, 100.0), bar(1, 100.5)], [bar(0, 100.6), bar(1, 101.2)]
    assert plausible.compare_bars(ours, theirs, [T, T + MINUTE]) == Difference()


def test_prices_that_can_not_both_be_true_and_bars_that_one_lacks_are_differences() -> None:
    ours, theirs = [bar(0, 110.0), bar(2, 100.0)], [bar(0, 100.0), bar(1, 100.0), bar(2, 100.0)]
    found = plausible.compare_bars(ours, theirs, [T, T + MINUTE, T + 2 * MINUTE])
    assert found == Difference(wrong=(T,), lacking=(T + MINUTE,))
    unsettled = plausible.compare_bars(ours, theirs, [T])
    assert unsettled.lacking == ()


def test_quotes_of_one_moment_are_compared_by_price_and_others_by_age() -> None:
    now, old = Quote(T, last=100.0), Quote(T - timedelta(minutes=10), last=100.0)
    assert plausible.compare_quotes(now, Quote(T, bid=100.9, ask=101.1)) == Difference()
    assert plausible.compare_quotes(now, Quote(T, last=103.0)) == Difference(wrong=(T,))
    assert plausible.compare_quotes(old, now) == Difference(lacking=(old.ts,))
    assert plausible.compare_quotes(now, old) == Difference()


@pytest.mark.parametrize(
    ("first", "second", "who"),
    [(110.0, 100.1, "first"), (100.1, 110.0, "second"), (103.0, 97.0, "unknown")],
)
def test_who_moved_clearly_farther_from_the_price_before_is_wrong(
    first: float, second: float, who: str
) -> None:
    assert plausible.liar(Price(T, 100.0), T + MINUTE, first, second) == who
    assert plausible.liar(None, T, first, second) == "unknown"


@pytest.mark.parametrize(
    ("quote", "said"),
    [
        (Quote(T, bid=1.0, ask=1.1, last=1.05), None),
        (Quote(T, last=1.0), None),
        (Quote(T, bid=1.2, ask=1.1), "bid 1.2 is above ask 1.1"),
        (Quote(T, last=0.0), "last 0.0 is not above 0"),
    ],
)
def test_numbers_that_can_not_be_a_quote_are_said(quote: Quote, said: str | None) -> None:
    assert plausible.quote_problem(quote) == said


def test_a_quote_is_old_only_while_the_market_has_traded_for_a_while() -> None:
    quote = Quote(T, last=1.0)
    later = T + timedelta(minutes=30)
    assert plausible.is_old(quote, later, T) is True
    assert plausible.is_old(quote, T + timedelta(seconds=90), T - timedelta(hours=1)) is False
    assert plausible.is_old(quote, T + timedelta(seconds=90), T) is None
    assert plausible.is_old(quote, later, None) is None
