"""Alpaca's bars: rows of many symbols, cut into pages that go on where the last one ended."""

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from sim.feed import ADJUSTED, Feed, append, pick
from sim.market.day import MINUTE, PARTIAL, UNTRADED, BarVersion, Rows
from sim.market.model import Market
from sim.market.sessions import Session
from sim.market.universe import Instrument
from sim.wire.base import Reply

_TIMEFRAMES = {"1Min": "M", "1Day": "D"}
_MOST_ROWS, _USUAL_ROWS = 10_000, 1_000
_ADJUSTMENTS = ("raw", "split", "dividend", "all")
_BUILDS_A_STEP = 4
_NEW_YORK = ZoneInfo("America/New_York")


@dataclass(frozen=True, slots=True)
class Asked:
    """A question for bars."""

    symbols: tuple[str, ...]
    """In the alphabet's order, which is the order of the pages."""
    daily: bool
    start: float
    end: float | None
    """Inclusive, None: now."""
    limit: int
    adjusted: bool
    descending: bool
    after: tuple[str, int] | None
    """Symbol and stamp of the last row of the page before."""

    @classmethod
    def read(cls, query: Mapping[str, str], symbols: Sequence[str]) -> "Asked":
        """Read the query.

        Raises:
            ValueError: with what Alpaca says to a bad one.
        """
        timeframe = query.get("timeframe", "")
        if timeframe not in _TIMEFRAMES:
            raise ValueError(f"invalid timeframe: {timeframe}")
        limit = query.get("limit") or str(_USUAL_ROWS)
        if not limit.isdigit() or not 1 <= int(limit) <= _MOST_ROWS:
            raise ValueError(f"invalid limit: {limit}; must be between 1 and {_MOST_ROWS}")
        adjustment, sort = query.get("adjustment", "raw"), query.get("sort", "asc")
        if adjustment not in _ADJUSTMENTS:
            raise ValueError(f"invalid adjustment: {adjustment}")
        if sort not in ("asc", "desc"):
            raise ValueError(f"invalid sort: {sort}")
        start, end = (
            _stamp(query[name], name) if query.get(name) else None for name in ("start", "end")
        )
        if start is None:
            raise ValueError("start is required here")
        if end is not None and end < start:
            raise ValueError("end should not be before start")
        token = query.get("page_token")
        return cls(
            symbols=tuple(sorted(symbols)),
            daily=timeframe == "1Day",
            start=start,
            end=end,
            limit=int(limit),
            adjusted=adjustment in ("split", "all"),
            descending=sort == "desc",
            after=_place(token) if token else None,
        )


class Bars:
    """Answers questions for bars; a page has ``page_rows`` rows at most, whatever was asked."""

    def __init__(self, market: Market, page_rows: int) -> None:
        self._market = market
        self._page_rows = page_rows

    def answer(self, asked: Asked, feed: Feed) -> Reply:
        """One page."""
        end = int(feed.at if asked.end is None else asked.end) + 1
        start = int(-(-asked.start // 1))
        feed.record.window = start, max(start, end)
        room, bars, token = min(asked.limit, self._page_rows), dict[str, Any](), None
        for symbol in asked.symbols:
            if asked.after is not None and symbol < asked.after[0]:
                continue
            one = self._market.universe.get(symbol)
            if one is None:
                continue
            rows, stamps = self._rows(one, asked, start, end, feed)
            if not stamps:
                continue
            if room == 0:
                token = _token(asked, *_last(bars))
                break
            if len(stamps) > room:
                rows, stamps = pick(rows, range(room)), stamps[:room]
                token = _token(asked, symbol, stamps[-1])
            room -= len(stamps)
            feed.record.bars(symbol, rows)
            bars[symbol] = [_bar(rows, place, at) for place, at in enumerate(stamps)]
            if token:
                break
        return Reply(200, orjson.dumps({"bars": bars, "next_page_token": token}))

    def build(self, asked: Asked, feed: Feed) -> Iterator[None]:
        """Make the days that the answer needs, a few at a time."""
        end = feed.at if asked.end is None else min(asked.end, feed.at)
        built = 0
        for symbol in asked.symbols:
            one = self._market.universe.get(symbol)
            for session in _sessions(one, asked.start, end + 1) if one else ():
                if session.open > feed.at or one is None:
                    continue
                day = self._market.day(one, session)
                _ = day.daily if asked.daily else day
                built += 1
                if built % _BUILDS_A_STEP == 0:
                    yield

    def _rows(
        self, one: Instrument, asked: Asked, start: int, end: int, feed: Feed
    ) -> tuple[Rows, list[int]]:
        """Rows that were not on a page before, with their stamps."""
        if asked.daily:
            rows, stamps = _days(one, start, end, feed)
        else:
            rows = _minutes(one, start, end, feed)
            stamps = rows.minutes
        if asked.adjusted:
            _adjust(one, rows, feed)
        places = list(range(len(stamps)))
        if asked.descending:
            places.reverse()
        if asked.after is not None and one.symbol == asked.after[0]:
            seen = asked.after[1]
            places = [
                n for n in places if (stamps[n] < seen if asked.descending else stamps[n] > seen)
            ]
        return pick(rows, places), [stamps[n] for n in places]


def instant(seconds: int, nanos: int = 0) -> str:
    """RFC 3339 in UTC; decimals to the nanosecond, without the zeros at their end."""
    whole = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"
    return f"{whole}.{nanos:09d}".rstrip("0") + "Z" if nanos else whole + "Z"


def _minutes(one: Instrument, start: int, end: int, feed: Feed) -> Rows:
    """Traded minutes, extended hours too, the running one with what it has so far."""
    rows = feed.minutes(one, start, end)
    if UNTRADED in rows.version:
        rows = pick(rows, [n for n, version in enumerate(rows.version) if version != UNTRADED])
    return rows


def _days(one: Instrument, start: int, end: int, feed: Feed) -> tuple[Rows, list[int]]:
    """Sessions that have closed and the running one so far, stamped with New York's midnight."""
    sessions = [s for s in _sessions(one, start, end) if start <= _midnight(s) < end]
    rows = feed.sessions(one, sessions)
    running = one.sessions.started(feed.at)
    if running is not None and running in sessions and feed.at < running.close:
        quote = feed.quote(one)
        if quote is not None and quote.open and quote.high and quote.low:
            bar = BarVersion(0, 0.0, quote.open, quote.high, quote.low, quote.last, quote.volume)
            append(rows, running.open, bar, PARTIAL)
    by_open = {session.open: session for session in sessions}
    return rows, [_midnight(by_open[opened]) for opened in rows.minutes]


def _adjust(one: Instrument, rows: Rows, feed: Feed) -> None:
    for place, minute in enumerate(rows.minutes):
        session = one.sessions.started(minute + MINUTE)
        ratio = feed.split_ratio(one, session) if session else 1.0
        if ratio == 1.0:
            continue
        for column in (rows.open, rows.high, rows.low, rows.close):
            column[place] = round(column[place] / ratio, 6)
        rows.volume[place] = float(int(rows.volume[place] * ratio))
        if rows.version[place] >= 0:
            rows.version[place] = ADJUSTED


def _bar(rows: Rows, place: int, stamp: int) -> dict[str, Any]:
    volume = rows.volume[place]
    high, low, close = rows.high[place], rows.low[place], rows.close[place]
    return {
        "t": instant(stamp),
        "o": rows.open[place],
        "h": high,
        "l": low,
        "c": close,
        "v": int(volume) if volume.is_integer() else volume,
        # The market knows neither: plausible figures that follow from the bar.
        "n": max(1, int(volume) // 100),
        "vw": round((high + low + close) / 3, 6),
    }


def _sessions(one: Instrument, start: float, end: float) -> Sequence[Session]:
    return one.sessions.between(start - 86_400, end + 86_400)


def _midnight(session: Session) -> int:
    day = datetime(session.day.year, session.day.month, session.day.day, tzinfo=_NEW_YORK)
    return int(day.timestamp())


def _last(bars: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[str, int]:
    symbol = max(bars)
    return symbol, int(_stamp(bars[symbol][-1]["t"], "t"))


def _token(asked: Asked, symbol: str, stamp: int) -> str:
    unit = "D" if asked.daily else "M"
    text = f"{symbol}|{unit}|{datetime.fromtimestamp(stamp, UTC):%Y-%m-%dT%H:%M:%S}.000000000Z"
    return base64.b64encode(text.encode()).decode()


def _place(token: str) -> tuple[str, int]:
    try:
        symbol, _unit, at = base64.b64decode(token, validate=True).decode().split("|")
        return symbol, int(_stamp(at, "page_token"))
    except (ValueError, binascii.Error) as error:
        raise ValueError(f"invalid page_token: {token}") from error


def _stamp(text: str, name: str) -> float:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"invalid {name}: {text}") from error
    # A bare date is New York's midnight.
    return (at if at.tzinfo else at.replace(tzinfo=_NEW_YORK)).timestamp()
