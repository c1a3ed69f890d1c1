"""Alpha Vantage: one path, a function by name, refusals with status 200, and what a plan includes."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar

import orjson

from sim.config import SourceConfig
from sim.feed import Feed
from sim.limits import Headroom, Violation
from sim.market.model import Market
from sim.market.universe import Instrument
from sim.reader import Reader
from sim.wire.alphavantage_series import Asked, Series, number, shown_until
from sim.wire.base import Ask, Call, Reply, Wire, fixed

PLANS = ("free", "premium", "delayed", "realtime")
_PREMIUM = "https://www.alphavantage.co/premium/"
_THANKS = "Thank you for using Alpha Vantage!"
_BURST = (
    f"{_THANKS} Please consider spreading out your free API requests more sparingly (1 request per "
    f"second). You may subscribe to any of the premium plans at {_PREMIUM} to lift the free key rate "
    "limit (25 requests per day), raise the per-second burst limit, and instantly unlock all premium "
    "endpoints"
)
_MINUTE = (
    f"{_THANKS} Our standard API call frequency is {{units}} calls per minute. Please visit "
    f"{_PREMIUM} if you would like to target a higher API call frequency."
)
_DAY = (
    "We have detected your API key as {key} and our standard API rate limit is {units} requests per "
    f"day. Please subscribe to any of the premium plans at {_PREMIUM} to instantly remove all daily "
    "rate limits."
)
_ENDPOINT = (
    f"{_THANKS} This is a premium endpoint. You may subscribe to any of the premium plans at "
    f"{_PREMIUM} to instantly unlock all premium endpoints"
)
_FULL = (
    f"{_THANKS} The outputsize=full parameter value is a premium feature for the TIME_SERIES_DAILY "
    f"endpoint. You may subscribe to any of the premium plans at {_PREMIUM} to instantly unlock all "
    "premium features"
)
_NO_KEY = (
    "the parameter apikey is invalid or missing. Please claim your free API key on "
    "(https://www.alphavantage.co/support/#api-key). It should take less than 20 seconds."
)
_BAD_CALL = (
    "Invalid API call. Please retry or visit the documentation "
    "(https://www.alphavantage.co/documentation/) for {function}."
)
_CAPABILITIES = {
    "TIME_SERIES_INTRADAY": "bars_1m",
    "TIME_SERIES_DAILY": "bars_eod",
    "GLOBAL_QUOTE": "quotes_l1",
}
_ENDPOINTS = {"bars_1m": "intraday", "bars_eod": "daily", "quotes_l1": "quote"}


def read_options(reader: Reader) -> Mapping[str, Any]:
    """``plan`` of every key; ``keys`` that exist, null for any; ``compact_days``: fewer are sooner made."""
    keys: list[str] | None = [] if reader.has("keys") else reader.raw("keys")
    for place, key in reader.items("keys"):
        if not isinstance(key, str):
            reader.problem(place, f"is {key!r}; expected text")
        elif keys is not None:
            keys.append(key)
    return {
        "plan": reader.word("plan", "realtime", PLANS),
        "keys": keys,
        "compact_days": reader.integer("compact_days", 100, low=1),
    }


class AlphaVantageWire(Wire):
    """Answers as www.alphavantage.co/query does."""

    prefix: ClassVar[str] = "/alphavantage"
    base_path: ClassVar[str] = "/alphavantage"

    def __init__(self, config: SourceConfig, market: Market, seed: int) -> None:
        del seed
        self._market = market
        self._plan: str = config.options["plan"]
        keys = config.options["keys"]
        self._keys: frozenset[str] | None = None if keys is None else frozenset(keys)
        self._series = Series(market, config.options["compact_days"])

    def understand(self, ask: Ask) -> Call:
        query = ask.query
        function, key = query.get("function", ""), query.get("apikey", "")
        if ask.path.rstrip("/") != "/query":
            page = b"<html><body><h1>Not Found</h1></body></html>"
            return fixed("unknown", "meta", Reply(404, page, "text/html"), key=key)
        capability = _CAPABILITIES.get(function, "meta")
        endpoint = _ENDPOINTS.get(capability, "unknown")
        if not key or (self._keys is not None and key not in self._keys):
            return fixed(endpoint, capability, error(_NO_KEY), key=key)
        if capability == "meta":
            words = f"This API function ({function}) does not exist."
            return fixed(endpoint, capability, error(words), key=key)
        symbol = query.get("symbol", "")
        call = partial(Call, endpoint, capability, symbols=(symbol,), key=key)
        refusal = self._refusal(function, query)
        if refusal is not None:
            return call(partial(_refuse, refusal))
        one = self._market.universe.get(symbol)
        if capability == "quotes_l1":
            return call(partial(self._quote, one, query.get("entitlement", "")))
        try:
            asked = Asked.read(query)
        except ValueError:
            one = None
            asked = None
        if one is None or asked is None:
            return call(partial(_refuse, error(_BAD_CALL.format(function=function))))
        return call(
            partial(self._series.answer, one, asked),
            prepare=partial(self._series.build, one, asked),
        )

    def too_many(self) -> Reply:
        return _information(_BURST)

    def over_limit(self, violation: Violation, call: Call) -> Reply:
        if violation.seconds >= 3600:
            return _information(_DAY.format(key=call.key, units=violation.units))
        if violation.seconds > 1:
            return Reply(200, orjson.dumps({"Note": _MINUTE.format(units=violation.units)}))
        return self.too_many()

    def throttled_200(self) -> Reply:
        return Reply(200, orjson.dumps({"Note": _MINUTE.format(units=5)}))

    def expired_key(self) -> Reply:
        return error(_NO_KEY)

    def outage(self, status: int) -> Reply:
        page = f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>"
        return Reply(status, page.encode(), "text/html")

    def quota_headers(self, room: Headroom) -> Mapping[str, str]:
        del room
        return {}

    def _refusal(self, function: str, query: Mapping[str, str]) -> Reply | None:
        """What the plan does not include."""
        wanted = query.get("entitlement", "")
        if wanted and PLANS.index(self._plan) < (
            PLANS.index(wanted) if wanted in PLANS else len(PLANS)
        ):
            return _information(_ENDPOINT)
        if self._plan != "free":
            return None
        if function == "TIME_SERIES_INTRADAY":
            return _information(_ENDPOINT)
        if function == "TIME_SERIES_DAILY" and query.get("outputsize") == "full":
            return _information(_FULL)
        return None

    def _quote(self, one: Instrument | None, entitlement: str, feed: Feed) -> Reply:
        if one is not None:
            feed.at = shown_until(one, entitlement, feed.at)
        quote = feed.quote(one) if one else None
        session = one.sessions.started(feed.at) if one else None
        if one is None or quote is None or session is None:
            return Reply(200, b'{"Global Quote": {}}')
        day = session.day
        # All that is said of its time: the log has the day's first second in UTC.
        stamp = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
        feed.record.quotes.append([one.symbol, stamp, None, None, quote.last])
        change = quote.last - quote.previous_close
        fields = {
            "01. symbol": one.symbol,
            "02. open": number(quote.open or quote.last),
            "03. high": number(quote.high or quote.last),
            "04. low": number(quote.low or quote.last),
            "05. price": number(quote.last),
            "06. volume": str(int(quote.volume)),
            "07. latest trading day": str(day),
            "08. previous close": number(quote.previous_close),
            "09. change": number(change),
            "10. change percent": f"{100 * change / quote.previous_close:.4f}%",
        }
        return Reply(200, orjson.dumps({"Global Quote": fields}))


def error(text: str) -> Reply:
    """A refusal of the question."""
    return Reply(200, orjson.dumps({"Error Message": text}))


def _information(text: str) -> Reply:
    return Reply(200, orjson.dumps({"Information": text}))


def _refuse(reply: Reply, feed: Feed) -> Reply:
    del feed
    return reply
