"""Bars and quotes as the pipeline passes them on: vendor's numbers, our labels."""

import math
from dataclasses import dataclass
from datetime import date, datetime


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar as one source gave it. Prices in the instrument's currency, as float8."""

    ts: datetime
    """Start of the bar, UTC. For a daily bar the session's open."""
    open: float
    high: float
    low: float
    close: float
    volume: float | None = None
    """Units traded; None when the source did not say, which is not zero."""
    vwap: float | None = None
    """Volume-weighted average price of the bar, None when the source gives none."""
    trade_count: int | None = None
    """Trades in the bar, None when the source gives none."""
    session: date | None = None
    """Session date; set for daily bars only, which are keyed by it."""
    partial: bool = False
    """True when the request was sent before bar_end, so that the bar could still grow."""

    def problem(self) -> str | None:
        """Why the numbers can't be a bar, or None: finite prices above 0, low <= open, close <= high."""
        prices = (self.open, self.high, self.low, self.close)
        if not all(math.isfinite(price) for price in prices):
            return f"prices {prices} are not all finite"
        if self.low <= 0:
            return f"low {self.low} is not above 0"
        if not (self.low <= min(self.open, self.close) and self.high >= max(self.open, self.close)):
            return f"open, high, low, close {prices} are out of order"
        if self.volume is not None and not (math.isfinite(self.volume) and self.volume >= 0):
            return f"volume {self.volume} is not a number at or above 0"
        return None


@dataclass(frozen=True, slots=True)
class Quote:
    """Best bid and ask and the last trade of one symbol at one instant; what is unknown is None."""

    ts: datetime
    """When it was true in the market by the source's word, UTC."""
    bid: float | None = None
    ask: float | None = None
    bid_size: float | None = None
    ask_size: float | None = None
    last: float | None = None
    last_size: float | None = None
