"""Polygon's (now Massive's) REST API: v2 aggregates page by page, snapshots of many tickers."""

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar
from urllib.parse import unquote

import orjson

from sim.config import SourceConfig
from sim.feed import Feed
from sim.limits import Headroom
from sim.market.model import Market
from sim.reader import Reader
from sim.wire.base import Ask, Call, Reply, Wire, fixed
from sim.wire.polygon_aggs import MOST_ROWS, Aggregates, BadAsk
from sim.wire.polygon_plans import NO_DATA, NO_TIMEFRAME, PLANS
from sim.wire.polygon_snapshot import answer_many, answer_one, build

_SNAPSHOT = "/v2/snapshot/locale/us/markets/stocks/tickers"
_AGGREGATES = "/v2/aggs/ticker/"
_BEARER = "Bearer "
_TOO_MANY = (
    "You've exceeded the maximum requests per minute, please wait or upgrade your subscription to "
    "continue. https://massive.com/pricing"
)


def read_options(reader: Reader) -> Mapping[str, Any]:
    """``plan`` of every key, ``keys`` that exist (null for any), ``page_rows`` of a page at most."""
    keys: list[str] | None = [] if reader.has("keys") else reader.raw("keys")
    for place, key in reader.items("keys"):
        if not isinstance(key, str):
            reader.problem(place, f"is {key!r}; expected text")
        elif keys is not None:
            keys.append(key)
    return {
        "plan": reader.word("plan", "advanced", tuple(PLANS)),
        "keys": keys,
        "page_rows": reader.integer("page_rows", MOST_ROWS, low=1, high=MOST_ROWS),
    }


class PolygonWire(Wire):
    """Answers as api.massive.com and api.polygon.io do."""

    prefix: ClassVar[str] = "/polygon"
    base_path: ClassVar[str] = "/polygon"

    def __init__(self, config: SourceConfig, market: Market, seed: int) -> None:
        del seed
        self._market = market
        self._plan = PLANS[config.options["plan"]]
        self._page_rows: int = config.options["page_rows"]
        self._good = "DELAYED" if config.delay_s else "OK"
        keys = config.options["keys"]
        self._keys: frozenset[str] | None = None if keys is None else frozenset(keys)

    def understand(self, ask: Ask) -> Call:
        key = ask.headers.get("Authorization", "").removeprefix(_BEARER) or ask.query.get(
            "apiKey", ""
        )
        endpoint = _endpoint(ask.path)
        if endpoint is None:
            page = Reply(404, b"404 page not found\n", "text/plain; charset=utf-8")
            return fixed("unknown", "meta", page, key=key)
        request_id = _request_id(ask)
        capability = _capability(ask.path)
        if not key:
            return fixed(endpoint, capability, _error(401, request_id, "API Key was not provided"))
        if self._keys is not None and key not in self._keys:
            refused = _error(401, request_id, "Unknown API Key")
            return fixed(endpoint, capability, refused, key=key)
        if endpoint == "aggs":
            return self._aggregates(ask, key, request_id)
        return self._snapshot(ask, key, request_id)

    def too_many(self) -> Reply:
        return _error(429, _NO_REQUEST, _TOO_MANY)

    def throttled_200(self) -> Reply:
        return _error(200, _NO_REQUEST, _TOO_MANY)

    def expired_key(self) -> Reply:
        return _error(401, _NO_REQUEST, "Unknown API Key")

    def outage(self, status: int) -> Reply:
        page = f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>"
        return Reply(status, page.encode(), "text/html")

    def quota_headers(self, room: Headroom) -> Mapping[str, str]:
        # Massive sends none.
        del room
        return {}

    def _aggregates(self, ask: Ask, key: str, request_id: str) -> Call:
        try:
            asked = Aggregates.read(ask.path.removeprefix(_AGGREGATES), ask.query, self._page_rows)
        except BadAsk as error:
            refused = _error(400, request_id, str(error))
            return fixed("aggs", _capability(ask.path), refused, key=key)
        one = self._market.universe.get(asked.ticker)

        def answer(feed: Feed) -> Reply:
            if not self._plan.reaches(asked.start, asked.end, feed.now):
                return _refused(request_id, NO_TIMEFRAME)
            return asked.answer(one, feed, self._good, request_id)

        capability = "bars_eod" if asked.daily else "bars_1m"
        prepare = partial(asked.build, one) if one is not None and asked.daily else None
        return Call("aggs", capability, answer, (asked.ticker,), key, prepare=prepare)

    def _snapshot(self, ask: Ask, key: str, request_id: str) -> Call:
        ticker = unquote(ask.path.removeprefix(_SNAPSHOT).strip("/"))
        named = [name for name in ask.query.get("tickers", "").split(",") if name]
        symbols = (ticker,) if ticker else tuple(named)
        if not self._plan.snapshot:
            refused = _refused(request_id, NO_DATA)
            return Call("snapshot", "quotes_l1", lambda _feed: refused, symbols, key)
        universe = self._market.universe
        if ticker:
            answer = partial(answer_one, universe.get(ticker), self._plan, self._good, request_id)
            return Call("snapshot", "quotes_l1", answer, symbols, key)
        known = [one for one in map(universe.get, symbols) if one is not None]
        listed = known if named else list(universe.instruments)
        return Call(
            "snapshot",
            "quotes_l1",
            partial(answer_many, listed, self._plan, self._good, request_id),
            symbols,
            key,
            prepare=partial(build, listed),
        )


_NO_REQUEST = "0" * 32


def _endpoint(path: str) -> str | None:
    if path.startswith(_AGGREGATES):
        return "aggs"
    return "snapshot" if path == _SNAPSHOT or path.startswith(_SNAPSHOT + "/") else None


def _capability(path: str) -> str:
    if not path.startswith(_AGGREGATES):
        return "quotes_l1"
    return "bars_eod" if "/day/" in path else "bars_1m"


def _request_id(ask: Ask) -> str:
    """The same for the same question, so that a run can be repeated; knows no key."""
    asked = sorted((name, value) for name, value in ask.query.items() if name != "apiKey")
    return hashlib.blake2s(f"{ask.path}{asked}".encode(), digest_size=16).hexdigest()


def _error(status: int, request_id: str, text: str) -> Reply:
    body = {"status": "ERROR", "request_id": request_id, "error": text}
    return Reply(status, orjson.dumps(body))


def _refused(request_id: str, text: str) -> Reply:
    body = {"status": "NOT_AUTHORIZED", "request_id": request_id, "message": text}
    return Reply(403, orjson.dumps(body))
