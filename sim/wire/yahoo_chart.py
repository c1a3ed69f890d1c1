"""Yahoo's chart v8: bars of one symbol with every quirk that was seen in recordings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import orjson

from sim.feed import ADJUSTED, CLOSE, FIRST, LIVE, Feed, append, pick
from sim.market.day import MINUTE, PARTIAL, UNTRADED, BarVersion, Rows
from sim.market.model import Market
from sim.market.sessions import Session
from sim.market.universe import Instrument
from sim.wire.base import Ask, Call, Reply
from sim.wire.yahoo_meta import VALID_RANGES, chart_meta

_DAY_S = 86_400
_MOST_1M_S = 8 * _DAY_S
_LOOK_BACK_1M_S = 30 * _DAY_S
_BUILDS_A_STEP = 4
_INTERVALS = ("1m", "1d")
_SESSIONS = {"1d": 1, "2d": 2, "3d": 3, "4d": 4, "5d": 5, "6d": 6, "7d": 7, "8d": 8}
_DAYS = {
    "1mo": 31,
    "3mo": 92,
    "6mo": 183,
    "1y": 366,
    "2y": 731,
    "5y": 1827,
    "10y": 3653,
    "max": 7500,
}


@dataclass(frozen=True, slots=True)
class _Asked:
    """A chart request in words."""

    interval: str
    span: str
    start: int | None
    end: int | None
    extended: bool
    events: bool


class Chart:
    """Answers chart requests."""

    def __init__(self, market: Market, *, float32: bool, first_row_zero: bool) -> None:
        self._market = market
        self._float32 = float32
        self._first_row_zero = first_row_zero

    def understand(self, symbol: str, ask: Ask) -> Call:
        """Read the question; what is wrong with it is said by the answer."""
        query = ask.query
        span = query.get("range", "")
        interval = query.get("interval", "1d")
        capability = "bars_eod" if interval == "1d" else "bars_1m"
        call = partial(Call, "chart", capability, symbols=(symbol,))
        try:
            start = int(query["period1"]) if "period1" in query else None
            end = int(query["period2"]) if "period2" in query else None
        except ValueError:
            return call(
                partial(_bad_request, "Invalid input - period1 and period2 are UNIX seconds")
            )
        one = self._market.universe.get(symbol)
        if one is None:
            return call(partial(_not_found))
        if interval not in _INTERVALS:
            words = (
                f"Invalid input - interval={interval} is not supported. Valid intervals: [1m, 1d]"
            )
            return call(partial(_bad_request, words))
        if start is None and span not in _SESSIONS and span not in VALID_RANGES and span:
            words = f"Invalid input - range={span} is not supported. Valid ranges: [{', '.join(VALID_RANGES)}]"
            return call(partial(_bad_request, words))
        asked = _Asked(
            interval=interval,
            span="" if start is not None else span or "1d",
            start=start,
            end=end,
            extended=query.get("includePrePost", "false").lower() == "true",
            events="split" in query.get("events", ""),
        )
        prepare = partial(self._build, one, asked) if interval == "1d" else None
        return call(partial(self._answer, one, asked), prepare=prepare)

    def _answer(self, one: Instrument, asked: _Asked, feed: Feed) -> Reply:
        start, end = _window(one, asked, feed)
        feed.record.window = start, end
        refusal = _refusal(asked, start, end, feed.now)
        if refusal is not None:
            return refusal
        quote = feed.quote(one)
        if quote is None:
            return _not_found(feed)
        shown = [s for s in one.sessions.between(start, end) if s.open <= feed.at] or list(
            one.sessions.last(1, feed.at)
        )
        rows = (
            self._minutes(one, asked, start, end, feed)
            if asked.interval == "1m"
            else self._days(one, asked, feed)
        )
        meta = chart_meta(
            one,
            quote,
            feed.at,
            interval=asked.interval,
            span=asked.span,
            previous_close=self._market.previous_close(one, shown[0]),
            shown=shown,
            extended=asked.extended,
        )
        result: dict[str, Any] = {"meta": meta}
        if not rows.minutes:
            result["indicators"] = {"quote": [{}]}
        else:
            if self._float32:
                _narrow(rows)
            feed.record.bars(one.symbol, rows)
            result["timestamp"] = rows.minutes
            if asked.events:
                _put_events(result, one, feed, shown)
            result["indicators"] = {"quote": [_columns(rows)]}
            if asked.interval == "1d":
                result["indicators"]["adjclose"] = [{"adjclose": rows.close}]
        return Reply(200, orjson.dumps({"chart": {"result": [result], "error": None}}))

    def _minutes(self, one: Instrument, asked: _Asked, start: int, end: int, feed: Feed) -> Rows:
        rows = feed.minutes(one, start, end)
        if not asked.extended:
            rows = _regular_only(one, rows, start, end)
        else:
            rows = _with_extended(one, rows, start, end, feed)
        self._adjust(one, rows, feed)
        if self._first_row_zero and rows.version and rows.version[0] != UNTRADED:
            rows.volume[0] = 0.0
            # A partial stays a partial: that it can still grow says more.
            rows.version[0] = PARTIAL if rows.version[0] == PARTIAL else FIRST
        rows = _with_closing_rows(one, rows, start, end, feed)
        _append_live_row(one, rows, start, end, feed)
        return rows

    def _days(self, one: Instrument, asked: _Asked, feed: Feed) -> Rows:
        sessions = _daily_sessions(one, asked, feed)
        rows = feed.sessions(one, [session for session in sessions if session.close <= feed.at])
        self._adjust(one, rows, feed)
        running = one.sessions.started(feed.at)
        if running is not None and feed.at < running.close and running in sessions:
            quote = feed.quote(one)
            if quote is not None and quote.open and quote.high and quote.low:
                bar = BarVersion(
                    0, 0.0, quote.open, quote.high, quote.low, quote.last, quote.volume
                )
                append(rows, quote.ts, bar, PARTIAL)
        return rows

    def _build(self, one: Instrument, asked: _Asked, feed: Feed) -> Iterator[None]:
        for number, session in enumerate(_daily_sessions(one, asked, feed)):
            _ = self._market.day(one, session).daily
            if number % _BUILDS_A_STEP == 0:
                yield

    def _adjust(self, one: Instrument, rows: Rows, feed: Feed) -> None:
        """Show prices in the shares of today, as Yahoo does."""
        if not self._market.splits_of(one.symbol) or not rows.minutes:
            return
        for session in one.sessions.between(rows.minutes[0], rows.minutes[-1] + MINUTE):
            ratio = feed.split_ratio(one, session)
            if ratio == 1.0:
                continue
            for place, minute in enumerate(rows.minutes):
                if session.open <= minute < session.close and rows.version[place] != UNTRADED:
                    for column in (rows.open, rows.high, rows.low, rows.close):
                        column[place] = round(column[place] / ratio, 6)
                    rows.volume[place] = float(int(rows.volume[place] * ratio))
                    if rows.version[place] >= 0:
                        rows.version[place] = ADJUSTED


def chart_error(status: int, code: str, text: str) -> Reply:
    """An error in the chart's envelope."""
    error = {"code": code, "description": text}
    return Reply(status, orjson.dumps({"chart": {"result": None, "error": error}}))


def _not_found(feed: Feed) -> Reply:
    del feed
    return chart_error(404, "Not Found", "No data found, symbol may be delisted")


def _bad_request(text: str, feed: Feed) -> Reply:
    del feed
    return chart_error(400, "Bad Request", text)


def _window(one: Instrument, asked: _Asked, feed: Feed) -> tuple[int, int]:
    """The window asked, ``[start, end)``; a range ends now and starts with a session."""
    now = int(feed.at)
    if asked.start is not None:
        return asked.start, now if asked.end is None else asked.end
    if asked.span in _SESSIONS:
        chosen = one.sessions.last(_SESSIONS[asked.span], feed.at)
        first = chosen[0] if chosen else None
        if first is None:
            return now, now + 1
        return (first.pre_open if asked.extended else first.open), max(
            now + 1, chosen[-1].post_close + 1
        )
    if asked.span == "ytd":
        zone = ZoneInfo(one.sessions.timezone)
        today = datetime.fromtimestamp(now, zone)
        begin = today.replace(month=1, day=1, hour=0, minute=0, second=0, microsecond=0)
        return int(begin.timestamp()), now + 1
    return now - int(timedelta(days=_DAYS[asked.span]).total_seconds()), now + 1


def _refusal(asked: _Asked, start: int, end: int, now: float) -> Reply | None:
    if start > end:
        words = f"Invalid input - start date cannot be after end date. startDate = {start}, endDate = {end}"
        return chart_error(400, "Bad Request", words)
    if start == end or start > now:
        return chart_error(
            400, "Bad Request", f"Data doesn't exist for startDate = {start}, endDate = {end}"
        )
    if asked.interval != "1m":
        return None
    head = f"1m data not available for startTime={start} and endTime={end}."
    if asked.span not in _SESSIONS and end - start > _MOST_1M_S:
        tail = "Only 8 days worth of 1m granularity data are allowed to be fetched per request."
        return chart_error(422, "Unprocessable Entity", f"{head} {tail}")
    if start < now - _LOOK_BACK_1M_S:
        tail = "The requested range must be within the last 30 days."
        return chart_error(422, "Unprocessable Entity", f"{head} {tail}")
    return None


def _daily_sessions(one: Instrument, asked: _Asked, feed: Feed) -> Sequence[Session]:
    start, end = _window(one, asked, feed)
    return [
        s for s in one.sessions.between(start, end) if start <= s.open < end and s.open <= feed.at
    ]


def _regular_only(one: Instrument, rows: Rows, start: int, end: int) -> Rows:
    sessions = one.sessions.between(start, end)
    if len(sessions) == 1 and len(sessions[0].segments) == 1:
        opened, closed = sessions[0].segments[0]
        if not rows.minutes or (opened <= rows.minutes[0] and rows.minutes[-1] < closed):
            return rows
    inside = [
        place
        for place, minute in enumerate(rows.minutes)
        if any(session.regular(minute) for session in sessions)
    ]
    return rows if len(inside) == len(rows.minutes) else pick(rows, inside)


def _with_extended(one: Instrument, rows: Rows, start: int, end: int, feed: Feed) -> Rows:
    """Null rows for the irregular minutes without trades; the feed has the traded ones already."""
    stop = min(end, int(feed.at) + 1)
    have = set(rows.minutes)
    blank: list[int] = []
    for session in one.sessions.between(start - 6 * 3600, stop + 6 * 3600):
        for opened, closed in session.irregular:
            first = max(opened, -(-start // MINUTE) * MINUTE)
            blank += [
                minute for minute in range(first, min(closed, stop), MINUTE) if minute not in have
            ]
    return _merged(rows, blank) if blank else rows


def _merged(rows: Rows, blank: Sequence[int]) -> Rows:
    nan = float("nan")
    empty = BarVersion(0, 0.0, nan, nan, nan, nan, nan)
    for minute in blank:
        append(rows, minute, empty, UNTRADED)
    return pick(rows, sorted(range(len(rows.minutes)), key=rows.minutes.__getitem__))


def _with_closing_rows(one: Instrument, rows: Rows, start: int, end: int, feed: Feed) -> Rows:
    """A row stamped with each close in the window: official close, volume 0."""
    if one.sessions.code == "24/7":
        return rows
    added = False
    for session in one.sessions.between(start - 1, end):
        if not (start <= session.close < end and session.close <= feed.at):
            continue
        price = feed.market.day(one, session).official_close / feed.split_ratio(one, session)
        if price != price:
            continue
        bar = BarVersion(0, 0.0, price, price, price, price, 0.0)
        try:
            place = rows.minutes.index(session.close)
        except ValueError:
            append(rows, session.close, bar, CLOSE)
            added = True
            continue
        if rows.version[place] == UNTRADED:
            rows.open[place] = rows.high[place] = rows.low[place] = rows.close[place] = price
            rows.volume[place], rows.version[place] = 0.0, CLOSE
    return (
        pick(rows, sorted(range(len(rows.minutes)), key=rows.minutes.__getitem__))
        if added
        else rows
    )


def _append_live_row(one: Instrument, rows: Rows, start: int, end: int, feed: Feed) -> None:
    """The last trade of the running minute again, stamped with its second.

    It comes also when the window ended just before that minute.
    """
    minute = int(feed.at // MINUTE) * MINUTE
    if not start <= minute <= end:
        return
    running = feed.running_minute(one)
    if running is None:
        return
    _, bar = running
    stamp = int(min(bar.reveal, feed.last_trade_second(one, minute)))
    if stamp > minute and (not rows.minutes or stamp > rows.minutes[-1]):
        price = bar.close
        append(rows, stamp, BarVersion(0, 0.0, price, price, price, price, 0.0), LIVE)


def _put_events(
    result: dict[str, Any], one: Instrument, feed: Feed, shown: Sequence[Session]
) -> None:
    splits: dict[str, Mapping[str, Any]] = {}
    for session in shown:
        ratio = feed.market.split_on(one.symbol, session)
        if ratio != 1.0:
            numerator, denominator = ratio.as_integer_ratio()
            splits[str(session.open)] = {
                "date": session.open,
                "numerator": float(numerator),
                "denominator": float(denominator),
                "splitRatio": f"{numerator}:{denominator}",
            }
    if splits:
        result["events"] = {"splits": splits}


def _columns(rows: Rows) -> dict[str, Any]:
    return {
        "low": rows.low,
        "close": rows.close,
        "volume": [
            None if volume != volume else int(volume) if volume.is_integer() else volume
            for volume in rows.volume
        ],
        "open": rows.open,
        "high": rows.high,
    }


def _narrow(rows: Rows) -> None:
    """Prices as Yahoo stores them: 4-byte floats printed as 8-byte ones."""
    for name in ("open", "high", "low", "close"):
        values = np.asarray(getattr(rows, name), dtype=np.float32).astype(np.float64)
        setattr(rows, name, values.tolist())
