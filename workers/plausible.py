"""Whether an answer can be believed: against what was known a moment ago, and against another source. Pure.

Nothing is repaired here. A price that moved too far since the last one is a *suspicion*, which a
second source confirms or refutes; two sources that tell different prices, or of which one lacks what
the other has, *disagree*, and the price known before tells who is wrong, where it can.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

import orjson

from core.bars import Bar, Quote

JUMP: Final = 0.05
"""A move by more than this is held against a second source."""
GROSS: Final = 0.08
"""If most symbols move by more than this at once, it is the source and not the market."""
REMEMBERED: Final = timedelta(minutes=10)
"""Market time for which a price says something of the next one."""
_SPIKE = 0.20
"""Move from one bar to the next inside an answer that is a suspicion."""
_PRICES_APART, _QUOTES_APART = 0.01, 0.02
"""Difference that feeds may have: they see other trades of the same minute."""
_SAME_MOMENT = timedelta(seconds=120)
"""Quotes further apart than this are not of one moment; older than this they are stale."""
_CLEARLY = 2.0

Liar = Literal["first", "second", "unknown"]


@dataclass(frozen=True, slots=True)
class Price:
    """What a symbol was worth, by an answer that was believed."""

    ts: datetime
    value: float


@dataclass(frozen=True, slots=True)
class Difference:
    """What two sources say of the same symbol and time."""

    wrong: tuple[datetime, ...] = ()
    """Bars, or the quote, whose prices can't both be right."""
    lacking: tuple[datetime, ...] = ()
    """What the second has and the first lacks though it had to have it; or the first's quote is old."""


def move(before: Price | None, ts: datetime, value: float) -> float:
    """How far a price lies from the one known before, as a share of it; 0 where that says nothing."""
    if before is None or not timedelta(0) <= ts - before.ts <= REMEMBERED:
        return 0.0
    return abs(value / before.value - 1)


def largest_move(before: Price | None, bars: Sequence[Bar]) -> tuple[float, datetime | None]:
    """The farthest move of an answer's bars, from the price known before and from bar to bar.

    Inside an answer only moves beyond a fifth count: a bar is held against its own neighbour, which
    was believed no more than itself.
    """
    largest, where = 0.0, None
    last: Price | None = None
    for bar in bars:
        found = move(before, bar.ts, bar.close)
        step = move(last, bar.ts, bar.close)
        found = max(found, step if step > _SPIKE else 0.0)
        if found > largest:
            largest, where = found, bar.ts
        last = Price(bar.ts, bar.close)
    return largest, where


def compare_bars(
    first: Sequence[Bar], second: Sequence[Bar], settled: Sequence[datetime]
) -> Difference:
    """Hold bars of two sources against each other.

    Prices differ when each close lies outside of the other's range by more than 1 %.

    Args:
        first: Of the source in question.
        second: Of the other one.
        settled: Starts of the bars that the first can't change any more.
    """
    ours: Mapping[datetime, Bar] = {bar.ts: bar for bar in first}
    theirs: Mapping[datetime, Bar] = {bar.ts: bar for bar in second}
    return Difference(
        wrong=tuple(ts for ts, bar in ours.items() if ts in theirs and _apart(bar, theirs[ts])),
        lacking=tuple(ts for ts in settled if ts in theirs and ts not in ours),
    )


def compare_quotes(first: Quote, second: Quote) -> Difference:
    """Hold quotes of two sources against each other: prices of one moment, else age."""
    if second.ts - first.ts > _SAME_MOMENT:
        return Difference(lacking=(first.ts,))
    ours, theirs = worth(first), worth(second)
    if ours is None or theirs is None or first.ts - second.ts > _SAME_MOMENT:
        return Difference()
    return Difference(wrong=(first.ts,)) if abs(ours / theirs - 1) > _QUOTES_APART else Difference()


def liar(before: Price | None, ts: datetime, first: float, second: float) -> Liar:
    """Which of two prices can't be true, by the one known before: the one that moved clearly farther."""
    if before is None or abs(ts - before.ts) > REMEMBERED:
        return "unknown"
    ours, theirs = abs(first / before.value - 1), abs(second / before.value - 1)
    if ours > _CLEARLY * theirs + _PRICES_APART / 2:
        return "first"
    return "second" if theirs > _CLEARLY * ours + _PRICES_APART / 2 else "unknown"


def worth(quote: Quote) -> float | None:
    """One price for a quote: the last trade, else the middle."""
    if quote.last is not None:
        return quote.last
    if quote.bid is not None and quote.ask is not None:
        return (quote.bid + quote.ask) / 2
    return quote.bid if quote.ask is None else quote.ask


def quote_problem(quote: Quote) -> str | None:
    """Why the numbers can't be a quote, or None: prices above 0, bid not above ask."""
    for name, price in (("bid", quote.bid), ("ask", quote.ask), ("last", quote.last)):
        if price is not None and not 0 < price < float("inf"):
            return f"{name} {price} is not above 0"
    if quote.bid is not None and quote.ask is not None and quote.bid > quote.ask:
        return f"bid {quote.bid} is above ask {quote.ask}"
    return None


def shown(said: Bar | Quote) -> bytes:
    """The numbers as they were read, for whoever looks at what was refused."""
    return orjson.dumps(asdict(said))


def is_old(quote: Quote, asked_at: datetime, opened: datetime | None) -> bool | None:
    """Whether a quote is older than a live one should be; None while that can't be said.

    Args:
        quote: As it came.
        asked_at: Market time of the ask.
        opened: When the session that runs opened; None outside of one.
    """
    if opened is None or asked_at - opened < 2 * _SAME_MOMENT:
        return None
    return asked_at - quote.ts > _SAME_MOMENT


def _apart(ours: Bar, theirs: Bar) -> bool:
    return _outside(ours.close, theirs) and _outside(theirs.close, ours)


def _outside(close: float, bar: Bar) -> bool:
    return not bar.low * (1 - _PRICES_APART) <= close <= bar.high * (1 + _PRICES_APART)
