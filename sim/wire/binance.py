"""Binance's spot API: klines, book tickers, request weight, and the ban of who does not slow down."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from typing import Any, ClassVar, cast

import orjson

from sim.config import SourceConfig
from sim.feed import Feed
from sim.limits import Headroom, Violation
from sim.market.model import Market
from sim.market.universe import Instrument
from sim.reader import Reader
from sim.wire.base import Ask, Call, Reply, Wire, fixed
from sim.wire.binance_klines import BadAsk, Klines

_ONE_WEIGHT, _MANY_WEIGHT, _KLINES_WEIGHT = 2, 4, 2
_PATIENCE = 10
"""Refusals after which one more is a ban."""
_SHORTEST_BAN_S, _LONGEST_BAN_S = 120.0, 3 * 86_400.0
_SYMBOL = re.compile(r"[A-Z0-9._-]{1,20}")
_ILLEGAL = "Illegal characters found in parameter '{name}'; legal range is '{range}'."
_ADVICE = "Please use WebSocket Streams for live updates to avoid {what}."
_BUILDS_A_STEP = 4


def read_options(reader: Reader) -> Mapping[str, Any]:
    """It has none: no keys, no plans."""
    del reader
    return {}


@dataclass(slots=True)
class _Client:
    refusals: int = 0
    """Since the last ban, without a pause as long as it was told."""
    told: float = 0.0
    """Market instant from which it could have gone on."""
    banned_until: float = 0.0
    bans: int = 0


class BinanceWire(Wire):
    """Answers as api.binance.com does."""

    prefix: ClassVar[str] = "/binance"
    base_path: ClassVar[str] = "/binance"

    def __init__(self, config: SourceConfig, market: Market, seed: int) -> None:
        del seed
        self._market = market
        self._units = max((limit.units for limit in config.limits), default=0)
        self._clients: dict[str, _Client] = {}
        self._routes: Mapping[str, Callable[[Ask], Call]] = {
            "/api/v3/klines": self._klines,
            "/api/v3/ticker/bookTicker": self._book,
            "/api/v3/ping": lambda ask: _plain(ask, "ping", lambda _feed: {}),
            "/api/v3/time": lambda ask: _plain(ask, "time", _server_time),
        }

    def understand(self, ask: Ask) -> Call:
        route = self._routes.get(ask.path.rstrip("/"))
        if route is None:
            page = Reply(404, b"<html><body><h2>404 Not found</h2></body></html>", "text/html")
            return fixed("unknown", "meta", page, key=ask.address)
        try:
            return route(ask)
        except BadAsk as refusal:
            endpoint = ask.path.rpartition("/")[2]
            capability = "bars_1m" if endpoint == "klines" else "quotes_l1"
            return fixed(
                endpoint, capability, _error(400, refusal.code, str(refusal)), key=ask.address
            )

    def too_many(self) -> Reply:
        return _error(429, -1003, self._too_much())

    def throttled_200(self) -> Reply:
        return _error(200, -1003, self._too_much())

    def banned(self, address: str, at: float) -> Violation | None:
        client = self._clients.get(address)
        if client is None or at >= client.banned_until:
            return None
        return Violation(0, client.banned_until - at, "ip", client.banned_until, at)

    def over_limit(self, violation: Violation, call: Call) -> Reply:
        """429 and how long to wait; who goes on asking is banned, for longer each time."""
        client = self._clients.setdefault(call.key, _Client())
        if violation.at >= client.banned_until:
            if violation.at >= client.told:
                client.refusals = 0
            client.refusals += 1
            client.told = violation.reset
            if client.refusals <= _PATIENCE:
                return _waiting(self.too_many(), violation.reset - violation.at)
            length = min(_SHORTEST_BAN_S * 2**client.bans, _LONGEST_BAN_S)
            client.bans += 1
            client.refusals = 0
            client.banned_until = violation.at + length
        until = int(client.banned_until * 1000)
        text = f"Way too much request weight used; IP banned until {until}. "
        banned = _error(418, -1003, text + _ADVICE.format(what="bans"))
        return _waiting(banned, client.banned_until - violation.at)

    def outage(self, status: int) -> Reply:
        page = f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>"
        return Reply(status, page.encode(), "text/html")

    def quota_headers(self, room: Headroom) -> Mapping[str, str]:
        used = str(room.limit - room.remaining)
        return {"X-MBX-USED-WEIGHT": used, "X-MBX-USED-WEIGHT-1M": used}

    def _too_much(self) -> str:
        limit = f"current limit is {self._units} request weight per 1 MINUTE. "
        return f"Too much request weight used; {limit}" + _ADVICE.format(what="polling the API")

    def _klines(self, ask: Ask) -> Call:
        symbol = _one(ask)
        one = self._market.universe.get(symbol)
        if one is None:
            raise BadAsk(-1121, "Invalid symbol.")
        asked = Klines.read(ask.query, microseconds=_microseconds(ask))
        return Call(
            "klines",
            "bars_eod" if asked.daily else "bars_1m",
            lambda feed: _dated(asked.answer(one, feed), feed),
            (symbol,),
            ask.address,
            prepare=partial(asked.build, one),
            weight=_KLINES_WEIGHT,
        )

    def _book(self, ask: Ask) -> Call:
        if "symbol" in ask.query and "symbols" in ask.query:
            raise BadAsk(-1128, "Combination of optional parameters invalid.")
        universe, single = self._market.universe, "symbol" in ask.query
        names = [_one(ask)] if single else _many(ask)
        found = [universe.get(name) for name in names]
        known = [one for one in found if one is not None]
        if len(known) < len(names):
            raise BadAsk(-1121, "Invalid symbol.")
        listed = known if names else list(universe.instruments)

        def answer(feed: Feed) -> Reply:
            tickers = [ticker for ticker in (_ticker(one, feed) for one in listed) if ticker]
            document = tickers[0] if single and tickers else tickers
            return _dated(Reply(200, orjson.dumps(document)), feed)

        return Call(
            "bookTicker",
            "quotes_l1",
            answer,
            names,
            ask.address,
            prepare=partial(_build, listed),
            weight=_ONE_WEIGHT if single else _MANY_WEIGHT,
        )


def _one(ask: Ask) -> str:
    symbol = ask.query.get("symbol", "")
    if not symbol:
        raise BadAsk(
            -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."
        )
    if not _SYMBOL.fullmatch(symbol):
        legal = "^[A-Z0-9-_.]{1,20}$"
        raise BadAsk(-1100, _ILLEGAL.format(name="symbol", range=legal))
    return symbol


def _many(ask: Ask) -> Sequence[str]:
    text = ask.query.get("symbols")
    if text is None:
        return ()
    try:
        names: object = orjson.loads(text)
    except orjson.JSONDecodeError:
        names = None
    listed = cast("list[object]", names) if isinstance(names, list) else [None]
    if not all(isinstance(name, str) and _SYMBOL.fullmatch(name) for name in listed):
        legal = '^\\["[A-Z0-9-_.]{1,20}"(,"[A-Z0-9-_.]{1,20}"){0,}\\]$'
        raise BadAsk(-1100, _ILLEGAL.format(name="symbols", range=legal))
    if len(set(listed)) < len(listed):
        raise BadAsk(-1151, "Symbol is present multiple times in the list.")
    return cast("list[str]", listed)


def _microseconds(ask: Ask) -> bool:
    unit = ask.headers.get("X-MBX-TIME-UNIT", "MILLISECOND").upper()
    if unit not in ("MILLISECOND", "MICROSECOND"):
        raise BadAsk(
            -1194, "Invalid value for time unit; expected either MICROSECOND or MILLISECOND."
        )
    return unit == "MICROSECOND"


def _plain(ask: Ask, endpoint: str, body: Callable[[Feed], object]) -> Call:
    def answer(feed: Feed) -> Reply:
        return _dated(Reply(200, orjson.dumps(body(feed))), feed)

    return Call(endpoint, "meta", answer, (), ask.address)


def _server_time(feed: Feed) -> object:
    return {"serverTime": int(feed.now * 1000)}


def _build(listed: Sequence[Instrument], feed: Feed) -> Iterator[None]:
    for number, one in enumerate(listed):
        _ = feed.quote(one)
        if number % _BUILDS_A_STEP == 0:
            yield


def _ticker(one: Instrument, feed: Feed) -> dict[str, str] | None:
    quote = feed.quote(one)
    if quote is None:
        return None
    # The only time that a client learns is the reply's Date, in whole seconds.
    feed.record.quotes.append([one.symbol, int(feed.now), quote.bid, quote.ask, None])
    return {
        "symbol": one.symbol,
        "bidPrice": f"{quote.bid:.8f}",
        "bidQty": f"{quote.bid_size:.8f}",
        "askPrice": f"{quote.ask:.8f}",
        "askQty": f"{quote.ask_size:.8f}",
    }


def _dated(reply: Reply, feed: Feed) -> Reply:
    """With the market's time as its date: a book ticker carries no other."""
    date = format_datetime(datetime.fromtimestamp(int(feed.now), UTC), usegmt=True)
    return Reply(reply.status, reply.body, reply.content_type, {**reply.headers, "Date": date})


def _waiting(reply: Reply, seconds: float) -> Reply:
    # Rounded up: then there is room for sure.
    wait = {"Retry-After": str(int(-(-max(seconds, 0.0) // 1)))}
    return Reply(reply.status, reply.body, reply.content_type, {**reply.headers, **wait})


def _error(status: int, code: int, text: str) -> Reply:
    return Reply(status, orjson.dumps({"code": code, "msg": text}))
