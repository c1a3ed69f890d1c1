"""Alpha Vantage's time series: local stamps, numbers as text, newest first, JSON or CSV."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from sim.feed import ADJUSTED, Feed, pick
from sim.market.day import MINUTE, PARTIAL, UNTRADED, Rows
from sim.market.model import Market
from sim.market.sessions import Session
from sim.market.universe import Instrument
from sim.wire.base import Reply

_COMPACT, _COMPACT_SESSIONS = 100, 6
_TRAILING_S = 30 * 86_400
_FIRST = datetime(2000, 1, 3, tzinfo=UTC).timestamp()
_BUILDS_A_STEP = 4
_DELAY_S = 900
_ZONES = {"America/New_York": "US/Eastern"}
_COLUMNS = ("1. open", "2. high", "3. low", "4. close", "5. volume")
_CSV = "application/x-download"


@dataclass(frozen=True, slots=True)
class Asked:
    """A question for a series."""

    daily: bool
    full: bool
    month: tuple[int, int] | None
    adjusted: bool
    extended: bool
    entitlement: str
    csv: bool

    @classmethod
    def read(cls, query: Mapping[str, str]) -> "Asked":
        """Read the query.

        Raises:
            ValueError: Alpha Vantage would call it an invalid call.
        """
        daily = query["function"] == "TIME_SERIES_DAILY"
        size, kind = query.get("outputsize", "compact"), query.get("datatype", "json")
        flags = [query.get(name, "true") for name in ("adjusted", "extended_hours")]
        if size not in ("compact", "full") or kind not in ("json", "csv"):
            raise ValueError(f"{size} {kind}")
        if not daily and (query.get("interval") != "1min" or {*flags} - {"true", "false"}):
            raise ValueError(str(query.get("interval")))
        month = query.get("month")
        when = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC) if month else None
        return cls(
            daily=daily,
            full=size == "full",
            month=(when.year, when.month) if when else None,
            # The raw daily series has no such parameters.
            adjusted=not daily and flags[0] == "true",
            extended=not daily and flags[1] == "true",
            # ... and is brought up to date at the end of the day, whatever the plan.
            entitlement="" if daily else query.get("entitlement", ""),
            csv=kind == "csv",
        )


class Series:
    """Answers questions for bars."""

    def __init__(self, market: Market, compact_days: int) -> None:
        self._market = market
        self._compact_days = compact_days

    def answer(self, one: Instrument, asked: Asked, feed: Feed) -> Reply:
        """The whole series, the newest row first."""
        feed.at = shown_until(one, asked.entitlement, feed.at)
        start, end = self._window(one, asked, feed.at)
        feed.record.window = int(start), int(max(start, end))
        if asked.daily:
            sessions = _sessions(one, start, end)
            rows = feed.sessions(one, sessions)
            day_of = {session.open: str(session.day) for session in sessions}
        else:
            rows, day_of = _minutes(one, asked, start, end, feed), dict[int, str]()
        if not asked.full:
            most = self._compact_days if asked.daily else _COMPACT
            rows = pick(rows, range(max(0, len(rows.minutes) - most), len(rows.minutes)))
        if asked.adjusted:
            _adjust(one, rows, feed)
        if rows.minutes:
            feed.record.bars(one.symbol, rows)
        zone = ZoneInfo(one.sessions.timezone)
        labels = [
            day_of.get(minute) or f"{datetime.fromtimestamp(minute, zone):%Y-%m-%d %H:%M:%S}"
            for minute in rows.minutes
        ]
        table = [(label, *_texts(rows, place)) for place, label in enumerate(labels)]
        table.reverse()
        if asked.csv:
            lines = ["timestamp,open,high,low,close,volume", *map(",".join, table)]
            return Reply(200, ("\r\n".join(lines) + "\r\n").encode(), _CSV)
        return Reply(200, orjson.dumps(_document(one, asked, table)))

    def build(self, one: Instrument, asked: Asked, feed: Feed) -> Iterator[None]:
        """Make the days that the answer needs, a few at a time."""
        at = shown_until(one, asked.entitlement, feed.at)
        for number, session in enumerate(_sessions(one, *self._window(one, asked, at))):
            if session.open > at:
                break
            day = self._market.day(one, session)
            _ = day.daily if asked.daily else day
            if number % _BUILDS_A_STEP == 0:
                yield

    def _window(self, one: Instrument, asked: Asked, at: float) -> tuple[float, float]:
        """What the series reaches over, before it is cut to the newest hundred."""
        if asked.daily:
            sessions = one.sessions.last(self._compact_days + 1, at)
            return (_FIRST if asked.full or not sessions else sessions[0].open), at
        if asked.month is not None:
            zone = ZoneInfo(one.sessions.timezone)
            first = datetime(*asked.month, 1, tzinfo=zone)
            later = (first.replace(day=28) + timedelta(days=4)).replace(day=1)
            return first.timestamp(), min(later.timestamp(), at)
        if not asked.full:
            # The dullest symbol trades a hundred minutes in fewer sessions.
            sessions = one.sessions.last(_COMPACT_SESSIONS, at)
            return (sessions[0].pre_open if sessions else at), at
        return at - _TRAILING_S, at


def shown_until(one: Instrument, entitlement: str, at: float) -> float:
    """Until when trades are shown: now, 15 minutes ago, or the end of the exchange's yesterday."""
    if entitlement == "realtime":
        return at
    if entitlement == "delayed":
        return at - _DELAY_S
    local = datetime.fromtimestamp(at, ZoneInfo(one.sessions.timezone))
    return local.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()


def _sessions(one: Instrument, start: float, end: float) -> Sequence[Session]:
    return one.sessions.between(start, end) if start < end else ()


def _minutes(one: Instrument, asked: Asked, start: float, end: float, feed: Feed) -> Rows:
    """Minutes that traded and have ended."""
    rows = feed.minutes(one, start, end)
    sessions = _sessions(one, start - 86_400, end + 86_400)
    regular = [segment for session in sessions for segment in session.segments]
    kept: list[int] = []
    at = 0
    for place, minute in enumerate(rows.minutes):
        if rows.version[place] in (UNTRADED, PARTIAL):
            continue
        while at < len(regular) and regular[at][1] <= minute:
            at += 1
        if asked.extended or (at < len(regular) and regular[at][0] <= minute):
            kept.append(place)
    return pick(rows, kept)


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


def _texts(rows: Rows, place: int) -> list[str]:
    prices = (rows.open[place], rows.high[place], rows.low[place], rows.close[place])
    volume = rows.volume[place]
    texts = [number(price) for price in prices]
    return [*texts, str(int(volume)) if volume.is_integer() else repr(volume)]


def number(value: float) -> str:
    """Four decimals, as many as it takes where the market has more."""
    text = f"{value:.4f}"
    return text if float(text) == value else repr(value)


def _document(one: Instrument, asked: Asked, table: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    zone = _ZONES.get(one.sessions.timezone, one.sessions.timezone)
    size = "Full size" if asked.full else "Compact"
    facts = (
        ["Daily Prices (open, high, low, close) and Volumes"]
        if asked.daily
        else ["Intraday (1min) open, high, low, close prices and volume"]
    )
    names = ["Information", "Symbol", "Last Refreshed"]
    facts += [one.symbol, table[0][0] if table else ""]
    if not asked.daily:
        names.append("Interval")
        facts.append("1min")
    names += ["Output Size", "Time Zone"]
    facts += [size, zone]
    meta = {
        f"{place}. {name}": fact
        for place, (name, fact) in enumerate(zip(names, facts, strict=True), 1)
    }
    series = {row[0]: dict(zip(_COLUMNS, row[1:], strict=True)) for row in table}
    return {
        "Meta Data": meta,
        f"Time Series ({'Daily' if asked.daily else '1min'})": series,
    }
