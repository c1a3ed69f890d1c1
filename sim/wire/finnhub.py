"""Finnhub's REST API: quote, candle, bid-ask, profile."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, time
from functools import partial
from typing import Any, ClassVar

import orjson

from sim.config import SourceConfig
from sim.feed import ADJUSTED, Feed, append, pick
from sim.limits import Headroom
from sim.market.day import PARTIAL, UNTRADED, BarVersion, Rows
from sim.market.model import Market
from sim.market.sessions import Session
from sim.market.universe import Instrument
from sim.reader import Reader
from sim.wire.base import Ask, Call, Reply, Wire, fixed

_MOST_INTRADAY_S = 31 * 86_400
_NO_DATA = b'{"s":"no_data"}'
_UNKNOWN_QUOTE = {"c": 0, "d": None, "dp": None, "h": 0, "l": 0, "o": 0, "pc": 0, "t": 0}
_BUILDS_A_STEP = 4


def read_options(reader: Reader) -> Mapping[str, Any]:
    """``premium``: candles and bid-ask are allowed; ``keys``: the keys that exist, null for any."""
    keys: list[str] | None = [] if reader.has("keys") else reader.raw("keys")
    for place, key in reader.items("keys"):
        if not isinstance(key, str):
            reader.problem(place, f"is {key!r}; expected text")
        elif keys is not None:
            keys.append(key)
    return {"premium": reader.flag("premium", default=True), "keys": keys}


class FinnhubWire(Wire):
    """Answers as api.finnhub.io does."""

    prefix: ClassVar[str] = "/finnhub"
    base_path: ClassVar[str] = "/finnhub/api/v1"

    def __init__(self, config: SourceConfig, market: Market, seed: int) -> None:
        del seed
        self._market = market
        self._premium: bool = config.options["premium"]
        keys = config.options["keys"]
        self._keys: frozenset[str] | None = None if keys is None else frozenset(keys)
        self._routes: Mapping[str, Callable[[Ask, str], Call]] = {
            "quote": self._quote,
            "stock/candle": self._candle,
            "stock/bidask": self._bid_ask,
            "stock/profile2": self._profile,
        }

    def understand(self, ask: Ask) -> Call:
        key = ask.query.get("token") or ask.headers.get("X-Finnhub-Token", "")
        name = ask.path.removeprefix("/api/v1").strip("/")
        route = self._routes.get(name)
        if route is None:
            return fixed("unknown", "meta", _error(404, "Endpoint not found."), key=key)
        if not key:
            return fixed(name, _CAPABILITIES[name], _error(401, "Please use an API key."))
        if self._keys is not None and key not in self._keys:
            return fixed(name, _CAPABILITIES[name], _error(401, "Invalid API key"), key=key)
        return route(ask, key)

    def too_many(self) -> Reply:
        return _error(429, "API limit reached. Please try again later. Remaining Limit: 0")

    def throttled_200(self) -> Reply:
        return _error(200, "API limit reached. Please try again later. Remaining Limit: 0")

    def expired_key(self) -> Reply:
        return _error(401, "Invalid API key")

    def outage(self, status: int) -> Reply:
        page = f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>"
        return Reply(status, page.encode(), "text/html")

    def quota_headers(self, room: Headroom) -> Mapping[str, str]:
        return {
            "X-Ratelimit-Limit": str(room.limit),
            "X-Ratelimit-Remaining": str(room.remaining),
            # Rounded up: at that second the window has room for sure.
            "X-Ratelimit-Reset": str(int(-(-room.reset // 1))),
        }

    def _quote(self, ask: Ask, key: str) -> Call:
        symbol = ask.query.get("symbol", "")
        one = self._market.universe.get(symbol)
        return Call("quote", "quotes_l1", partial(_answer_quote, one), (symbol,), key)

    def _bid_ask(self, ask: Ask, key: str) -> Call:
        symbol = ask.query.get("symbol", "")
        one = self._market.universe.get(symbol)
        answer = partial(_answer_bid_ask, one) if self._premium else _no_access
        return Call("bidask", "quotes_l1", answer, (symbol,), key)

    def _profile(self, ask: Ask, key: str) -> Call:
        symbol = ask.query.get("symbol", "")
        one = self._market.universe.get(symbol)
        return Call("profile2", "meta", partial(_answer_profile, one), (symbol,), key)

    def _candle(self, ask: Ask, key: str) -> Call:
        symbol, resolution = ask.query.get("symbol", ""), ask.query.get("resolution", "")
        capability = "bars_eod" if resolution in ("D", "W", "M") else "bars_1m"
        call = partial(Call, "candle", capability, symbols=(symbol,), key=key)
        if not self._premium:
            return call(_no_access)
        one = self._market.universe.get(symbol)
        try:
            start, end = int(ask.query["from"]), int(ask.query["to"]) + 1
        except (KeyError, ValueError):
            return call(lambda _feed: _error(422, "Wrong parameters: from and to are UNIX seconds"))
        if resolution not in ("1", "D"):
            return call(lambda _feed: _error(422, f"Wrong resolution {resolution!r}; here: 1, D"))
        if one is None:
            return call(partial(_answer_nothing, start, end))
        if resolution == "1":
            return call(partial(_answer_minutes, one, start, end))
        sessions = [
            session
            for session in one.sessions.between(start - 86_400, end + 86_400)
            if start <= _label(session) < end
        ]
        return call(
            partial(_answer_days, one, sessions, start, end), prepare=partial(_build, one, sessions)
        )


_CAPABILITIES: Mapping[str, str] = {
    "quote": "quotes_l1",
    "stock/candle": "bars_1m",
    "stock/bidask": "quotes_l1",
    "stock/profile2": "meta",
}


def _answer_quote(one: Instrument | None, feed: Feed) -> Reply:
    quote = feed.quote(one) if one else None
    if one is None or quote is None:
        return Reply(200, orjson.dumps(_UNKNOWN_QUOTE))
    change = quote.last - quote.previous_close
    feed.record.quotes.append([one.symbol, quote.ts, None, None, quote.last])
    body = {
        "c": quote.last,
        "d": round(change, 4),
        "dp": round(100 * change / quote.previous_close, 4),
        "h": quote.high or 0,
        "l": quote.low or 0,
        "o": quote.open or 0,
        "pc": quote.previous_close,
        "t": quote.ts,
    }
    return Reply(200, orjson.dumps(body))


def _answer_bid_ask(one: Instrument | None, feed: Feed) -> Reply:
    quote = feed.quote(one) if one else None
    if one is None or quote is None:
        return Reply(200, orjson.dumps({"a": 0, "av": 0, "b": 0, "bv": 0, "t": 0}))
    feed.record.quotes.append([one.symbol, quote.ts, quote.bid, quote.ask, None])
    sizes = {"av": quote.ask_size, "bv": quote.bid_size}
    return Reply(200, orjson.dumps({"a": quote.ask, "b": quote.bid, **sizes, "t": quote.ts * 1000}))


def _answer_profile(one: Instrument | None, feed: Feed) -> Reply:
    del feed
    if one is None:
        return Reply(200, b"{}")
    body = {
        "ticker": one.symbol,
        "name": f"{one.symbol} (simulated)",
        "exchange": one.exchange,
        "currency": "INR" if one.sessions.code == "XBOM" else "USD",
        "country": "IN" if one.sessions.code == "XBOM" else "US",
        "finnhubIndustry": "N/A",
    }
    return Reply(200, orjson.dumps(body))


def _answer_nothing(start: int, end: int, feed: Feed) -> Reply:
    feed.record.window = start, end
    return Reply(200, _NO_DATA)


def _answer_minutes(one: Instrument, start: int, end: int, feed: Feed) -> Reply:
    """Traded minutes only, the running one with what it has so far; intraday prices are raw."""
    feed.record.window = start, end
    rows = feed.minutes(one, max(start, end - _MOST_INTRADAY_S), end)
    if UNTRADED in rows.version:
        rows = pick(rows, [n for n, version in enumerate(rows.version) if version != UNTRADED])
    return _candles(feed, one, rows, rows.minutes)


def _answer_days(
    one: Instrument, sessions: list[Session], start: int, end: int, feed: Feed
) -> Reply:
    """Sessions that have closed and the running one so far, adjusted for the splits of today."""
    feed.record.window = start, end
    rows = feed.sessions(one, sessions)
    running = one.sessions.started(feed.at)
    if running is not None and running in sessions and feed.at < running.close:
        quote = feed.quote(one)
        if quote is not None and quote.open and quote.high and quote.low:
            bar = BarVersion(0, 0.0, quote.open, quote.high, quote.low, quote.last, quote.volume)
            append(rows, running.open, bar, PARTIAL)
    by_open = {session.open: session for session in sessions}
    for place, opened in enumerate(rows.minutes):
        factor = feed.split_ratio(one, by_open[opened])
        if factor != 1.0:
            for column in (rows.open, rows.high, rows.low, rows.close):
                column[place] = round(column[place] / factor, 6)
            rows.volume[place] *= factor
            if rows.version[place] >= 0:
                rows.version[place] = ADJUSTED
    return _candles(feed, one, rows, [_label(by_open[opened]) for opened in rows.minutes])


def _candles(feed: Feed, one: Instrument, rows: Rows, stamps: list[int]) -> Reply:
    if not stamps:
        return Reply(200, _NO_DATA)
    feed.record.bars(one.symbol, rows)
    body = {
        "c": rows.close,
        "h": rows.high,
        "l": rows.low,
        "o": rows.open,
        "s": "ok",
        "t": stamps,
        "v": [int(volume) if volume.is_integer() else volume for volume in rows.volume],
    }
    return Reply(200, orjson.dumps(body))


def _build(one: Instrument, sessions: list[Session], feed: Feed) -> Iterator[None]:
    for number, session in enumerate(sessions):
        if session.open <= feed.at:
            _ = feed.market.day(one, session).daily
            if number % _BUILDS_A_STEP == 0:
                yield


def _label(session: Session) -> int:
    # A daily candle is stamped 00:00 UTC of the session's date.
    return int(datetime.combine(session.day, time(), UTC).timestamp())


def _no_access(feed: Feed) -> Reply:
    del feed
    return _error(403, "You don't have access to this resource.")


def _error(status: int, text: str) -> Reply:
    return Reply(status, orjson.dumps({"error": text}))
