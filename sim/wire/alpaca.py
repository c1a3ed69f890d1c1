"""Alpaca's market data API v2 for stocks: bars by pages, latest quotes, two feeds and a plan.

Both feeds show the same trades: what differs here is who may ask for which.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar
from urllib.parse import unquote

import orjson

from sim.config import SourceConfig
from sim.feed import Feed
from sim.limits import Headroom
from sim.market.model import Market
from sim.reader import Reader
from sim.wire.alpaca_bars import Asked, Bars, instant
from sim.wire.base import Ask, Call, Reply, Wire, fixed

_FEEDS = ("iex", "sip")
_RECENT_S = 900
"""Market seconds of consolidated data that a plan without them is refused."""
_ANY_FEED = "sip"
_NO_RECENT = "subscription does not permit querying recent SIP data"
_CONDITIONS = {"c": ["R"], "z": "C"}


def read_options(reader: Reader) -> Mapping[str, Any]:
    """``keys``: key -> secret of those that exist, null for any; ``sip_realtime``; ``page_rows`` at most."""
    section = reader.section("keys")
    keys = {name: section.text(name, "") for name in section.names()}
    return {
        "keys": keys if reader.has("keys") else None,
        "sip_realtime": reader.flag("sip_realtime", default=True),
        "page_rows": reader.integer("page_rows", 10_000, low=1),
    }


class AlpacaWire(Wire):
    """Answers as data.alpaca.markets does."""

    prefix: ClassVar[str] = "/alpaca"
    base_path: ClassVar[str] = "/alpaca"

    def __init__(self, config: SourceConfig, market: Market, seed: int) -> None:
        del seed
        self._market = market
        self._keys: Mapping[str, str] | None = config.options["keys"]
        self._sip_realtime: bool = config.options["sip_realtime"]
        self._bars = Bars(market, config.options["page_rows"])
        self._routes: Mapping[str, Callable[[Ask, str], Call]] = {
            "bars": self._ask_bars,
            "quotes/latest": self._ask_quotes,
        }

    def understand(self, ask: Ask) -> Call:
        key = ask.headers.get("APCA-API-KEY-ID", "")
        secret = ask.headers.get("APCA-API-SECRET-KEY", "")
        name = ask.path.removeprefix("/v2/stocks/").strip("/")
        route = self._routes.get(name) if ask.path.startswith("/v2/stocks/") else None
        if route is None:
            return fixed("unknown", "meta", error(404, "endpoint not found."), key=key)
        capability = _capability(name, ask)
        if not (key and secret):
            return fixed(name, capability, error(401, "unauthorized."), key=key)
        if self._keys is not None and self._keys.get(key) != secret:
            return fixed(name, capability, error(403, "forbidden."), key=key)
        return route(ask, key)

    def too_many(self) -> Reply:
        return error(429, "too many requests.")

    def throttled_200(self) -> Reply:
        return error(200, "too many requests.")

    def expired_key(self) -> Reply:
        return error(401, "unauthorized.")

    def outage(self, status: int) -> Reply:
        page = f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>"
        return Reply(status, page.encode(), "text/html")

    def quota_headers(self, room: Headroom) -> Mapping[str, str]:
        return {
            "X-RateLimit-Limit": str(room.limit),
            "X-RateLimit-Remaining": str(room.remaining),
            # Rounded up: at that second the window has room for sure.
            "X-RateLimit-Reset": str(int(-(-room.reset // 1))),
        }

    def _ask_bars(self, ask: Ask, key: str) -> Call:
        query = ask.query
        symbols = _symbols(ask)
        capability = _capability("bars", ask)
        call = partial(Call, "bars", capability, symbols=symbols, key=key)
        feed = query.get("feed")
        problem = _problem(symbols, feed)
        if problem:
            return call(partial(_refuse, 400, problem))
        try:
            asked = Asked.read(query, symbols)
        except ValueError as wrong:
            return call(partial(_refuse, 400, str(wrong)))
        answer = partial(self._answer_bars, asked, feed or "")
        return call(answer, prepare=partial(self._bars.build, asked), feed=feed or _ANY_FEED)

    def _answer_bars(self, asked: Asked, name: str, feed: Feed) -> Reply:
        recent = asked.end is None or asked.end > feed.now - _RECENT_S
        if name == "sip" and recent and not self._sip_realtime:
            return error(403, _NO_RECENT)
        return self._bars.answer(asked, feed)

    def _ask_quotes(self, ask: Ask, key: str) -> Call:
        symbols = _symbols(ask)
        call = partial(Call, "quotes", "quotes_l1", symbols=symbols, key=key)
        name = ask.query.get("feed") or ("sip" if self._sip_realtime else "iex")
        problem = _problem(symbols, name)
        if problem:
            return call(partial(_refuse, 400, problem))
        if name == "sip" and not self._sip_realtime:
            return call(partial(_refuse, 403, _NO_RECENT))
        return call(partial(self._answer_quotes, symbols), feed=name)

    def _answer_quotes(self, symbols: tuple[str, ...], feed: Feed) -> Reply:
        quotes: dict[str, Any] = {}
        for symbol in sorted(symbols):
            one = self._market.universe.get(symbol)
            quote = feed.quote(one) if one else None
            if one is None or quote is None:
                continue
            session = one.sessions.started(feed.at)
            live = session is not None and session.regular(feed.at)
            # Nobody quotes at night: what is latest then is as old as the last trade.
            nanos = int(feed.at * 1e6) * 1000 + 321 if live else quote.ts * 1_000_000_000
            stamp = nanos // 1000 / 1e6
            feed.record.quotes.append([symbol, stamp, quote.bid, quote.ask, None])
            quotes[symbol] = {
                "t": instant(nanos // 1_000_000_000, nanos % 1_000_000_000),
                "ax": "V",
                "ap": quote.ask,
                "as": quote.ask_size,
                "bx": "V",
                "bp": quote.bid,
                "bs": quote.bid_size,
                **_CONDITIONS,
            }
        return Reply(200, orjson.dumps({"quotes": quotes}))


def error(status: int, text: str) -> Reply:
    """A refusal in Alpaca's form."""
    return Reply(status, orjson.dumps({"message": text}))


def _refuse(status: int, text: str, feed: Feed) -> Reply:
    del feed
    return error(status, text)


def _symbols(ask: Ask) -> tuple[str, ...]:
    return tuple(dict.fromkeys(s for s in unquote(ask.query.get("symbols", "")).split(",") if s))


def _problem(symbols: tuple[str, ...], feed: str | None) -> str:
    if not symbols:
        return "symbols is required"
    for symbol in symbols:
        if not symbol.replace(".", "").isalnum() or symbol != symbol.upper():
            return f"invalid symbol: {symbol}"
    if feed is not None and feed not in _FEEDS:
        return f"invalid feed: {feed}"
    return ""


def _capability(name: str, ask: Ask) -> str:
    if name != "bars":
        return "quotes_l1"
    return "bars_eod" if ask.query.get("timeframe", "").endswith("Day") else "bars_1m"
