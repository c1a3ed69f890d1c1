"""Top of book and the day's figures at an instant."""

from dataclasses import dataclass

from sim.market.day import MINUTE, SymbolDay
from sim.market.draws import mix
from sim.market.universe import Instrument


@dataclass(frozen=True, slots=True)
class MarketQuote:
    """What a quote page shows of one symbol."""

    ts: int
    """Second of the last trade."""
    last: float
    bid: float
    ask: float
    bid_size: int
    ask_size: int
    open: float | None
    """Of the regular session so far; None before its first trade, as are high and low."""
    high: float | None
    low: float | None
    volume: float
    previous_close: float


def quote_at(
    one: Instrument, day: SymbolDay, previous: tuple[float, int], at: float
) -> MarketQuote:
    """The quote at ``at``.

    Args:
        one: Whose quote.
        day: The session that opened last.
        previous: The official close before that session, and its second.
        at: Market epoch seconds, at or after the session's open.
    """
    last, ts = previous
    opened = high = low = None
    volume = 0.0
    newest = _row_at(day, at)
    running = None
    if newest >= 0 and at < day.minutes[newest] + MINUTE:
        running = day.partial(newest, at) if day.grid.regular[newest] else None
        newest -= 1
    row = day.last_traded[newest].item() if newest >= 0 else -1
    if row >= 0:
        last = day.columns.close[row].item()
        ts = day.minutes[row] + day.columns.last[row].item()
        figures = day.running
        high, low, volume = (
            figures.high[row].item(),
            figures.low[row].item(),
            figures.volume[row].item(),
        )
    if running is not None:
        current = newest + 1
        last = running.close
        ts = min(int(running.reveal), day.minutes[current] + day.columns.last[current].item())
        high = running.high if high is None else max(high, running.high)
        low = running.low if low is None else min(low, running.low)
        volume += running.volume
    if high is not None and low is not None:
        opened = day.regular_open
        if at >= day.session.close + 1:
            last, ts = day.official_close, day.session.close + 1
            high, low = max(high, last), min(low, last)
            volume += day.auction_volume
    bits = mix(one.key + 5, int(at))
    half = max(0.01, round(last * one.spread * (0.25 + (bits & 255) / 510), 2))
    bid = max(0.01, round(last - half * ((bits >> 8 & 3) + 1) / 3, 2))
    ask = max(round(bid + 0.01, 2), round(last + half * ((bits >> 10 & 3) + 1) / 3, 2))
    sizes = 1 + (bits >> 12 & 15), 1 + (bits >> 16 & 15)
    return MarketQuote(ts, last, bid, ask, *sizes, opened, high, low, volume, previous[0])


def _row_at(day: SymbolDay, at: float) -> int:
    """The newest row that starts at or before ``at``, -1 before the first."""
    minutes = day.minutes
    if not minutes or at < minutes[0]:
        return -1
    # Minutes are mostly consecutive, so that the row is found without a search.
    guess = min(len(minutes) - 1, int(at - minutes[0]) // MINUTE)
    while minutes[guess] > at:
        guess -= 1
    while guess + 1 < len(minutes) and minutes[guess + 1] <= at:
        guess += 1
    return guess
