"""Polygon's aggregates: rows of one ticker, a page at a time."""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

import orjson

from sim.feed import ADJUSTED, Feed, append, pick
from sim.market.day import MINUTE, PARTIAL, UNTRADED, BarVersion, Rows
from sim.market.sessions import Session
from sim.market.universe import Instrument
from sim.wire.base import Reply
from sim.wire.polygon_plans import NEW_YORK

MOST_ROWS, _USUAL_ROWS = 50_000, 5_000
_HOST = "https://api.polygon.io"
"""In ``next_url``, whatever the host that was asked."""
_PATH = re.compile(r"([^/]+)/range/([^/]+)/([^/]+)/([^/]+)/([^/]+)")
_TIMESPANS = ("minute", "day")
_DAY = 86_400
_BUILDS_A_STEP = 4


class BadAsk(Exception):  # noqa: N818 - the vendor's word to a bad question, not a failure of ours
    """What Polygon says to a question that it can't answer."""


@dataclass(frozen=True, slots=True)
class Aggregates:
    """A question for one page of bars."""

    ticker: str
    daily: bool
    start: int
    """Epoch seconds, on the unit."""
    end: int
    """Epoch seconds, open."""
    adjusted: bool
    descending: bool
    limit: int
    page_rows: int
    """The source's own bound of a page."""

    @classmethod
    def read(cls, path: str, query: Mapping[str, str], page_rows: int) -> "Aggregates":
        """Read the path after ``/v2/aggs/ticker/`` and the query.

        Raises:
            BadAsk: with what Polygon says.
        """
        found = _PATH.fullmatch(path.strip("/"))
        if found is None:
            raise BadAsk("expected /range/{multiplier}/{timespan}/{from}/{to}")
        ticker, multiplier, timespan, first, last = map(unquote, found.groups())
        if multiplier != "1" or timespan not in _TIMESPANS:
            raise BadAsk(
                f"range {multiplier} {timespan} is not simulated; expected 1 minute, 1 day"
            )
        words = {**query, **_cursor(query["cursor"])} if query.get("cursor") else query
        daily = timespan == "day"
        start, _ = _edges(first, "from", daily=daily)
        _, end = _edges(last, "to", daily=daily)
        if end <= start:
            raise BadAsk("The parameter 'to' cannot be a time that occurs before 'from'.")
        limit = words.get("limit") or str(_USUAL_ROWS)
        if not limit.isdigit() or not 1 <= int(limit) <= MOST_ROWS:
            raise BadAsk(f"'limit' is {limit}; it has to be from 1 to {MOST_ROWS}")
        sort = words.get("sort") or "asc"
        if sort not in ("asc", "desc"):
            raise BadAsk(f"'sort' is {sort}; it has to be asc or desc")
        adjusted = (words.get("adjusted") or "true").lower() != "false"
        return cls(ticker, daily, start, end, adjusted, sort == "desc", int(limit), page_rows)

    def build(self, one: Instrument, feed: Feed) -> Iterator[None]:
        """Make the days that a daily answer needs, a few at a time."""
        for number, session in enumerate(self._sessions(one)):
            if session.open <= feed.at:
                _ = feed.market.day(one, session).daily
                if number % _BUILDS_A_STEP == 0:
                    yield

    def answer(self, one: Instrument | None, feed: Feed, status: str, request_id: str) -> Reply:
        """One page; an unknown ticker has none of the rows and no error."""
        feed.record.window = self.start, self.end
        if one is None:
            rows, stamps = Rows([], [], [], [], [], [], []), list[int]()
        elif self.daily:
            rows, stamps = self._days(one, feed)
        else:
            rows = self._minutes(one, feed)
            stamps = rows.minutes
        places = list(range(len(stamps)))
        if self.descending:
            places.reverse()
        size = min(self.limit, self.page_rows)
        page, left = places[:size], places[size:]
        shown = pick(rows, page)
        feed.record.bars(self.ticker, shown)
        body: dict[str, Any] = {
            "ticker": self.ticker,
            "queryCount": len(page),
            "resultsCount": len(page),
            "adjusted": self.adjusted,
        }
        if page:
            body["results"] = [_result(shown, n, stamps[p]) for n, p in enumerate(page)]
        body |= {"status": status, "request_id": request_id, "count": len(page)}
        if left:
            body["next_url"] = self._next(stamps[left[0]])
        return Reply(200, orjson.dumps(body))

    def _minutes(self, one: Instrument, feed: Feed) -> Rows:
        """Traded minutes, extended hours included, the running one with what it has so far."""
        rows = feed.minutes(one, self.start, self.end)
        if UNTRADED in rows.version:
            rows = pick(rows, [n for n, version in enumerate(rows.version) if version != UNTRADED])
        if self.adjusted and feed.market.splits_of(one.symbol):
            for place, minute in enumerate(rows.minutes):
                session = _session_of(one, minute)
                if session is not None:
                    _adjust(rows, place, feed.split_ratio(one, session))
        return rows

    def _days(self, one: Instrument, feed: Feed) -> tuple[Rows, list[int]]:
        """Sessions that have closed and the running one so far, with the midnights that stamp them."""
        sessions = self._sessions(one)
        rows = feed.sessions(one, sessions)
        running = one.sessions.started(feed.at)
        if running is not None and running in sessions and feed.at < running.close:
            quote = feed.quote(one)
            if quote is not None and quote.open and quote.high and quote.low:
                bar = BarVersion(
                    0, 0.0, quote.open, quote.high, quote.low, quote.last, quote.volume
                )
                append(rows, running.open, bar, PARTIAL)
        by_open = {session.open: session for session in sessions}
        if self.adjusted:
            for place, opened in enumerate(rows.minutes):
                _adjust(rows, place, feed.split_ratio(one, by_open[opened]))
        return rows, [_stamp(one, by_open[opened]) for opened in rows.minutes]

    def _sessions(self, one: Instrument) -> list[Session]:
        return [
            session
            for session in one.sessions.between(self.start - _DAY, self.end + _DAY)
            if self.start <= _stamp(one, session) < self.end
        ]

    def _next(self, stamp: int) -> str:
        """Where the next page is: the same range from, or up to, the first row that is left."""
        first, last = (self.start, stamp) if self.descending else (stamp, self.end - 1)
        words = {
            "adjusted": str(self.adjusted).lower(),
            "limit": self.limit,
            "sort": "desc" if self.descending else "asc",
        }
        cursor = base64.urlsafe_b64encode(urlencode(words).encode()).decode().rstrip("=")
        timespan = "day" if self.daily else "minute"
        return (
            f"{_HOST}/v2/aggs/ticker/{self.ticker}/range/1/{timespan}/{first * 1000}/{last * 1000}"
            f"?cursor={cursor}"
        )


def _result(rows: Rows, place: int, stamp: int) -> dict[str, Any]:
    volume = rows.volume[place]
    high, low, close = rows.high[place], rows.low[place], rows.close[place]
    return {
        "v": int(volume) if volume.is_integer() else volume,
        "vw": round((high + low + close) / 3, 4),
        "o": rows.open[place],
        "c": close,
        "h": high,
        "l": low,
        "t": stamp * 1000,
        "n": max(1, int(volume**0.5)),
    }


def _adjust(rows: Rows, place: int, ratio: float) -> None:
    if ratio == 1.0:
        return
    for column in (rows.open, rows.high, rows.low, rows.close):
        column[place] = round(column[place] / ratio, 6)
    rows.volume[place] *= ratio
    if rows.version[place] >= 0:
        rows.version[place] = ADJUSTED


def _session_of(one: Instrument, minute: int) -> Session | None:
    """The session that a minute trades in, before its open and after its close included."""
    coming = one.sessions.current_or_next(minute)
    if coming is not None and coming.pre_open <= minute:
        return coming
    return one.sessions.started(minute)


def _stamp(one: Instrument, session: Session) -> int:
    """A stock's day is stamped with New York's midnight, a coin's with UTC's."""
    zone = UTC if one.sessions.code == "24/7" else NEW_YORK
    return int(datetime.combine(session.day, time(), zone).timestamp())


def _cursor(text: str) -> dict[str, str]:
    try:
        padded = text + "=" * (-len(text) % 4)
        words = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise BadAsk("The 'cursor' could not be read.") from None
    return dict(parse_qsl(words))


def _edges(text: str, name: str, *, daily: bool) -> tuple[int, int]:
    """The unit that a path's time lies in, from its start to its end; a date is a day in New York."""
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        try:
            day = date.fromisoformat(text)
        except ValueError:
            raise BadAsk(_unreadable(name)) from None
    elif re.fullmatch(r"\d{1,16}", text):
        seconds = int(text) // 1000
        if not daily:
            start = seconds - seconds % MINUTE
            return start, start + MINUTE
        day = datetime.fromtimestamp(seconds, UTC).astimezone(NEW_YORK).date()
    else:
        raise BadAsk(_unreadable(name))
    first, next_day = (datetime.combine(day + timedelta(days=n), time(), NEW_YORK) for n in (0, 1))
    return int(first.timestamp()), int(next_day.timestamp())


def _unreadable(name: str) -> str:
    return f"Could not parse the time parameter: '{name}'. Use YYYY-MM-DD or Unix MS Timestamps"
