"""The market as one source shows it at one instant, and the record of what it showed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sim.faults import Fault
from sim.market.day import MINUTE, PARTIAL, UNTRADED, BarVersion, Rows
from sim.market.draws import uniform
from sim.market.model import Market
from sim.market.quotes import MarketQuote
from sim.market.sessions import Session
from sim.market.universe import Instrument

ALTERED = -3
"""In place of a version's index: a fault changed the values."""
ADJUSTED = -4
"""... a split changed the values."""
FIRST = -5
"""... the reply's first row, its volume shown as 0."""
LIVE = -6
"""... a row that only repeats the last trade."""
CLOSE = -7
"""... a row that only repeats the official close."""

_INLINE = {
    PARTIAL: "partial",
    ALTERED: "fault",
    ADJUSTED: "adjusted",
    FIRST: "first",
    LIVE: "live",
    CLOSE: "close",
}


@dataclass(slots=True)
class Record:
    """What one reply showed, for the log."""

    window: tuple[int, int] | None = None
    served: list[Any] = field(default_factory=list[Any])
    inline: list[Any] = field(default_factory=list[Any])
    quotes: list[Any] = field(default_factory=list[Any])

    def bars(self, symbol: str, rows: Rows) -> None:
        """Note rows as sent: by version index where they are the truth, with their values where not."""
        versions = rows.version
        if min(versions, default=0) >= 0:
            if versions:
                self.served.append([symbol, rows.minutes, versions])
            return
        exact = [place for place, version in enumerate(versions) if version >= 0]
        if exact:
            shown = [rows.minutes[place] for place in exact], [versions[place] for place in exact]
            self.served.append([symbol, *shown])
        for place, version in enumerate(versions):
            if version < UNTRADED:
                self.inline.append(
                    [
                        symbol,
                        rows.minutes[place],
                        rows.open[place],
                        rows.high[place],
                        rows.low[place],
                        rows.close[place],
                        rows.volume[place],
                        _INLINE[version],
                    ]
                )


class Feed:
    """Read by the wires; every reply has its own."""

    def __init__(
        self, market: Market, now: float, delay_s: float, faults: Sequence[Fault] = ()
    ) -> None:
        self.market = market
        self.now = now
        """Market instant of the reply."""
        self.at = _shown_instant(now, faults) - delay_s
        """Market instant whose state is shown: ``now`` without the feed's delay and staleness."""
        self.record = Record()
        self._drops = [fault for fault in faults if fault.kind == "drop_bars"]
        self._wrongs = [fault for fault in faults if fault.kind == "wrong_prices"]

    def minutes(self, one: Instrument, start: float, end: float) -> Rows:
        """Rows that start in ``[start, end)`` as this source shows them, untraded minutes as NaN."""
        found: Rows | None = None
        for day in self.market.days(one, start, min(end, self.at)):
            rows = day.rows(start, end, self.at)
            if found is None:
                found = rows
            else:
                _extend(found, rows)
        rows = found or Rows([], [], [], [], [], [], [])
        return self._tampered(one, rows) if self._drops or self._wrongs else rows

    def sessions(self, one: Instrument, sessions: Iterable[Session]) -> Rows:
        """The daily bars of sessions that have closed, stamped with their opens."""
        rows = Rows([], [], [], [], [], [], [])
        for session in sessions:
            known = [
                version
                for version in self.market.day(one, session).daily
                if version.reveal <= self.at
            ]
            if known:
                append(rows, session.open, known[-1], known[-1].number)
        return self._tampered(one, rows) if self._drops or self._wrongs else rows

    def running_minute(self, one: Instrument) -> tuple[int, BarVersion] | None:
        """The minute in progress and its partial bar; None when it has not traded, or nothing trades."""
        minute = int(self.at // MINUTE) * MINUTE
        session = one.sessions.started(self.at)
        if session is None or not session.regular(self.at):
            return None
        day = self.market.day(one, session)
        row = day.row_of(minute)
        partial = None if row is None else day.partial(row, self.at)
        return None if partial is None else (minute, partial)

    def last_trade_second(self, one: Instrument, minute: int) -> int:
        """Second of the minute's last trade, known or still to come."""
        session = one.sessions.started(minute)
        day = None if session is None else self.market.day(one, session)
        row = None if day is None else day.row_of(minute)
        return minute if day is None or row is None else minute + day.columns.last[row].item()

    def split_ratio(self, one: Instrument, session: Session) -> float:
        """New shares of the instant shown for one share of ``session``."""
        if not self.market.splits_of(one.symbol):
            return 1.0
        shown = one.sessions.started(self.at)
        if shown is None or shown.open <= session.open:
            return 1.0
        return self.market.split_factor(one.symbol, shown) / self.market.split_factor(
            one.symbol, session
        )

    def quote(self, one: Instrument) -> MarketQuote | None:
        """The quote as this source shows it."""
        quote = self.market.quote(one, self.at)
        for fault in self._wrongs:
            if quote is None:
                break
            if uniform(fault.key ^ one.key, quote.ts) < fault.extra["fraction"]:
                quote = _wrong_quote(quote, fault)
        return quote

    def _tampered(self, one: Instrument, rows: Rows) -> Rows:
        kept = Rows([], [], [], [], [], [], [])
        for place, minute in enumerate(rows.minutes):
            version = rows.version[place]
            if any(
                uniform(fault.key ^ one.key, minute) < fault.extra["fraction"]
                for fault in self._drops
            ):
                continue
            values = (rows.open[place], rows.high[place], rows.low[place], rows.close[place])
            if version != UNTRADED:
                for fault in self._wrongs:
                    if uniform(fault.key ^ one.key, minute) < fault.extra["fraction"]:
                        values, version = _wrong(values, fault), ALTERED
            append(kept, minute, BarVersion(0, 0.0, *values, rows.volume[place]), version)
        return kept


def append(rows: Rows, minute: int, bar: BarVersion, version: int) -> None:
    """Add one row at the end."""
    rows.minutes.append(minute)
    rows.open.append(bar.open)
    rows.high.append(bar.high)
    rows.low.append(bar.low)
    rows.close.append(bar.close)
    rows.volume.append(bar.volume)
    rows.version.append(version)


def pick(rows: Rows, places: Sequence[int]) -> Rows:
    """The rows at these places, in this order."""
    return Rows(
        [rows.minutes[place] for place in places],
        [rows.open[place] for place in places],
        [rows.high[place] for place in places],
        [rows.low[place] for place in places],
        [rows.close[place] for place in places],
        [rows.volume[place] for place in places],
        [rows.version[place] for place in places],
    )


def _extend(rows: Rows, more: Rows) -> None:
    rows.minutes += more.minutes
    rows.open += more.open
    rows.high += more.high
    rows.low += more.low
    rows.close += more.close
    rows.volume += more.volume
    rows.version += more.version


def _wrong(
    values: tuple[float, float, float, float], fault: Fault
) -> tuple[float, float, float, float]:
    opened, high, low, closed = values
    match fault.extra["mode"]:
        case "zero":
            return 0.0, 0.0, 0.0, 0.0
        case "disorder":
            # Also a flat bar must come out impossible.
            return opened, low, high + 0.01, closed
        case _:
            factor = fault.extra["factor"]
            return opened * factor, high * factor, low * factor, closed * factor


def _wrong_quote(quote: MarketQuote, fault: Fault) -> MarketQuote:
    match fault.extra["mode"]:
        case "zero":
            return replace(quote, last=0.0, bid=0.0, ask=0.0)
        case "disorder":
            return replace(quote, bid=quote.ask, ask=quote.bid)
        case _:
            factor: float = fault.extra["factor"]
            return replace(
                quote,
                last=round(quote.last * factor, 4),
                bid=round(quote.bid * factor, 4),
                ask=round(quote.ask * factor, 4),
            )


def _shown_instant(now: float, faults: Sequence[Fault]) -> float:
    for fault in faults:
        if fault.kind == "stale":
            age = fault.extra["age_s"]
            return fault.start if age is None else now - age
    return now
