"""Binance's klines: twelve columns by opening time, untraded minutes filled with the last price."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Any

import orjson

from sim.feed import Feed, append, pick
from sim.market.day import MINUTE, PARTIAL, UNTRADED, BarVersion, Rows
from sim.market.sessions import Session
from sim.market.universe import Instrument
from sim.wire.base import Reply

_MOST_ROWS, _USUAL_ROWS = 1000, 500
_DAY = 86_400
_BUILDS_A_STEP = 4
_INTERVALS = {"1m": MINUTE, "1d": _DAY}
_REAL_INTERVALS = (
    "1s",
    "3m",
    "5m",
    "15m",
    "30m",
    "1h",
    "2h",
    "4h",
    "6h",
    "8h",
    "12h",
    "3d",
    "1w",
    "1M",
)


class BadAsk(Exception):  # noqa: N818 - the vendor's word to a bad question, not a failure of ours
    """What Binance says to a question that it can't answer."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Klines:
    """A question for klines of one symbol; epoch milliseconds, both ends included."""

    daily: bool
    start: int | None
    end: int | None
    limit: int
    microseconds: bool

    @classmethod
    def read(cls, query: Mapping[str, str], *, microseconds: bool) -> "Klines":
        """Read the query.

        Raises:
            BadAsk: with Binance's code and words.
        """
        interval = query.get("interval", "")
        if not interval:
            raise BadAsk(
                -1102, "Mandatory parameter 'interval' was not sent, was empty/null, or malformed."
            )
        if interval not in _INTERVALS:
            known = " is not simulated; expected 1m or 1d" if interval in _REAL_INTERVALS else "."
            raise BadAsk(-1120, f"Invalid interval{known}")
        limit = _whole(query, "limit")
        if limit is not None and limit < 1:
            raise BadAsk(-1130, "Data sent for parameter 'limit' is not valid.")
        start, end = _stamp(query, "startTime"), _stamp(query, "endTime")
        # More than the most is no error: it is the most.
        most = min(_USUAL_ROWS if limit is None else limit, _MOST_ROWS)
        return cls(interval == "1d", start, end, most, microseconds)

    def build(self, one: Instrument, feed: Feed) -> Iterator[None]:
        """Make the days that a daily answer needs, a few at a time."""
        if self.daily:
            for number, session in enumerate(self._sessions(one, feed)):
                _ = feed.market.day(one, session).daily
                if number % _BUILDS_A_STEP == 0:
                    yield

    def answer(self, one: Instrument, feed: Feed) -> Reply:
        """With a start the oldest from there, else the newest; the last may be the running one."""
        rows, stamps = self._days(one, feed) if self.daily else self._minutes(one, feed)
        feed.record.bars(one.symbol, rows)
        length = _DAY if self.daily else MINUTE
        klines = [self._kline(rows, place, stamp, length) for place, stamp in enumerate(stamps)]
        return Reply(200, orjson.dumps(klines))

    def _kline(self, rows: Rows, place: int, stamp: int, length: int) -> list[Any]:
        unit = 1_000_000 if self.microseconds else 1000
        volume, close = rows.volume[place], rows.close[place]
        untraded = rows.version[place] == UNTRADED
        opened = close if untraded else rows.open[place]
        high, low = (close, close) if untraded else (rows.high[place], rows.low[place])
        worth = 0.0 if untraded else volume * (high + low + close) / 3
        trades = 0 if untraded else max(1, int(volume**0.5))
        return [
            stamp * unit,
            _text(opened),
            _text(high),
            _text(low),
            _text(close),
            _text(0.0 if untraded else volume),
            (stamp + length) * unit - 1,
            f"{worth:.8f}",
            trades,
            f"{volume / 2 if not untraded else 0.0:.8f}",
            f"{worth / 2:.8f}",
            "0",
        ]

    def _minutes(self, one: Instrument, feed: Feed) -> tuple[Rows, list[int]]:
        """Regular minutes; an untraded one repeats the last price with no volume."""
        first, last = self._range(feed, MINUTE)
        feed.record.window = first, last
        rows = feed.minutes(one, first, last)
        regular = _pick_regular(one, rows)
        close = None
        if regular and rows.version[regular[0]] == UNTRADED:
            close = _last_close(one, feed, first)
        kept = Rows([], [], [], [], [], [], [])
        for place in regular:
            version = rows.version[place]
            if version == UNTRADED:
                if close is not None:
                    flat = BarVersion(0, 0.0, close, close, close, close, 0.0)
                    append(kept, rows.minutes[place], flat, UNTRADED)
                continue
            close = rows.close[place]
            values = (rows.open[place], rows.high[place], rows.low[place], close)
            append(
                kept, rows.minutes[place], BarVersion(0, 0.0, *values, rows.volume[place]), version
            )
        kept = self._cut(kept)
        return kept, kept.minutes

    def _days(self, one: Instrument, feed: Feed) -> tuple[Rows, list[int]]:
        """Days that have closed and the running one so far, stamped with midnight UTC."""
        sessions = self._sessions(one, feed)
        rows = feed.sessions(one, sessions)
        running = one.sessions.started(feed.at)
        if running is not None and running in sessions and feed.at < running.close:
            quote = feed.quote(one)
            if quote is not None and quote.open and quote.high and quote.low:
                bar = BarVersion(
                    0, 0.0, quote.open, quote.high, quote.low, quote.last, quote.volume
                )
                append(rows, running.open, bar, PARTIAL)
        rows = self._cut(rows)
        by_open = {session.open: _midnight(session) for session in sessions}
        return rows, [by_open[opened] for opened in rows.minutes]

    def _sessions(self, one: Instrument, feed: Feed) -> list[Session]:
        first, last = self._range(feed, _DAY)
        return [
            session
            for session in one.sessions.between(first - _DAY, last + _DAY)
            if first <= _midnight(session) < last and session.open <= feed.at
        ]

    def _range(self, feed: Feed, length: int) -> tuple[int, int]:
        """Opening times asked for, epoch seconds, the end open, on the interval."""
        end = int(feed.at * 1000) if self.end is None else self.end
        last = min(end // (length * 1000), int(feed.at) // length) * length + length
        if self.start is None:
            # One more: the running one shows only once it has traded.
            return last - (self.limit + 1) * length, last
        return -(-self.start // (length * 1000)) * length, last

    def _cut(self, rows: Rows) -> Rows:
        if len(rows.minutes) <= self.limit:
            return rows
        part = slice(-self.limit, None) if self.start is None else slice(self.limit)
        return pick(rows, range(len(rows.minutes))[part])


def _pick_regular(one: Instrument, rows: Rows) -> list[int]:
    """Places of rows in regular hours: an exchange that never closes has no others."""
    if one.sessions.code == "24/7" or not rows.minutes:
        return list(range(len(rows.minutes)))
    sessions = one.sessions.between(rows.minutes[0], rows.minutes[-1] + MINUTE)
    return [
        place
        for place, minute in enumerate(rows.minutes)
        if any(session.regular(minute) for session in sessions)
    ]


def _last_close(one: Instrument, feed: Feed, first: int) -> float | None:
    """Price of the last trade before ``first``, as far as two days tell; None: none."""
    rows = feed.minutes(one, first - 2 * _DAY, first)
    for close, version in zip(reversed(rows.close), reversed(rows.version), strict=True):
        if version != UNTRADED:
            return close
    return None


def _midnight(session: Session) -> int:
    return int(datetime.combine(session.day, time(), UTC).timestamp())


def _text(value: float) -> str:
    """As Binance writes numbers, with eight places; more only where the market has them."""
    text = f"{value:.8f}"
    return text if float(text) == value else repr(value)


def _whole(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    if not text.isdigit():
        raise BadAsk(
            -1100,
            f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.",
        )
    return int(text)


def _stamp(query: Mapping[str, str], name: str) -> int | None:
    """Milliseconds; Binance takes microseconds as well and tells them by their size."""
    value = _whole(query, name)
    return value // 1000 if value is not None and value >= 10**15 else value
