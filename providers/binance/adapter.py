"""Binance spot: bars by klines, quotes by the book tickers of many symbols. No key, a weight per call.

Symbols are Binance's (``BTCUSDT``), on a calendar that never closes.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import cast
from urllib.parse import urlencode, urlsplit

import orjson

from core.clock import Clock
from core.errors import (
    BadRequestError,
    MalformedPayloadError,
    NotEntitledError,
    ProviderError,
    ProviderUnavailableError,
    RateLimitedError,
    SymbolNotFoundError,
)
from core.log import mask
from core.sessions import Calendar
from core.settings import Settings
from core.windows import Window
from core.words import Capability
from providers.base import (
    Call,
    Limit,
    NotConfigured,
    Page,
    Raw,
    Request,
    SessionNotReadyError,
    Spec,
    check_request,
    chunks,
    limits_from,
    retry_after_s,
)
from providers.binance.replies import bar_page, quote_page, subject
from providers.binance.strangers import Strangers
from providers.wire import Wire

_ROWS = 1000
"""Rows of one reply at most."""
_SPAN_1M = timedelta(minutes=_ROWS)
_SPAN_1D = timedelta(days=_ROWS - 1)
"""A day less: the call starts at the midnight before its window."""
_BATCH = 100
"""Symbols of one quote call: 100 of 10 letters keep the URL below 2,500 characters."""
_KLINES, _BOOK = "/api/v3/klines", "/api/v3/ticker/bookTicker"
_INTERVAL = {Capability.BARS_1M: "1m", Capability.BARS_EOD: "1d"}
_WEIGHT = {Capability.BARS_1M: 2, Capability.BARS_EOD: 2, Capability.QUOTES_L1: 4}
"""Of a list of book tickers however long; so much weighs the whole book, too."""
_SETTLE = timedelta(seconds=5)
"""Klines are made of an exchange's own trades; a closed one stays as it is."""
_QUOTE_TIMEOUT_S, _BARS_TIMEOUT_S = 3.0, 10.0
_THROTTLED = -1003
_UNKNOWN_SYMBOL = -1121
_BAD_CHARACTERS = -1100
_BANNED_UNTIL = re.compile(r"banned until (\d{13})")


def build(settings: Settings, clock: Clock) -> "Binance":
    """The provider as the settings describe it; it needs no key.

    Raises:
        NotConfigured: the base URL is none.
    """
    base_url = settings.binance_base_url.rstrip("/")
    parts = urlsplit(base_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise NotConfigured(
            f"BINANCE_BASE_URL is {mask(base_url)!r}; expected a URL such as https://api.binance.com"
        )
    limits = limits_from(settings.binance_limits, "ip")
    return Binance(clock, base_url=base_url, limits=limits)


class Binance:
    """One exchange's spot market, so the source is the provider."""

    name = "binance"

    def __init__(self, clock: Clock, *, base_url: str, limits: tuple[Limit, ...]) -> None:
        """Args: limits: in request weight."""
        self._clock = clock
        self._base_url = base_url
        self._limits = limits
        self._wire = Wire(direct=base_url.startswith("http://"))
        self._strangers = Strangers(clock)
        self._specs = {
            capability: _spec(capability, {limit.name: weight for limit in limits})
            for capability, weight in _WEIGHT.items()
        }

    def limits(self) -> tuple[Limit, ...]:
        """Request weight (``BINANCE_LIMITS``), per address."""
        return self._limits

    def specs(self) -> Mapping[Capability, Spec]:
        return self._specs

    def plan(self, request: Request) -> list[Call]:
        """See ``Provider.plan``."""
        spec = check_request(self.name, self._specs, request, self._clock.now())
        if request.window is None:
            return [
                Call(self.name, request.capability, "bookTicker", part, None, _listed(part))
                for part in chunks(request.symbols, spec.batch)
            ]
        return [
            Call(
                self.name,
                request.capability,
                "klines",
                (symbol,),
                window,
                _kline_params(symbol, request.capability, window),
            )
            for window in request.window.chunks(spec.span)
            for (symbol,) in chunks(request.symbols, 1)
        ]

    def send(self, call: Call, timeout_s: float) -> Raw:
        """See ``Provider.send``.

        Binance refuses a whole list for one symbol that it does not know. Then the next call asks for
        the whole book, which weighs the same, and shows which symbols those are; for an hour they
        are left out of lists.

        Raises:
            SessionNotReadyError: a list was refused; ask again.
        """
        if call.window is not None:
            return self._answer(call, self._get(_KLINES, call.params, timeout_s))
        symbols = self._strangers.without(call.symbols)
        whole = self._strangers.suspected(symbols)
        raw = self._get(_BOOK, {} if whole else _listed(symbols), timeout_s)
        code = _code(raw) if raw.status == 400 else None
        if code in {_UNKNOWN_SYMBOL, _BAD_CHARACTERS}:
            self._strangers.refused(symbols)
            if len(symbols) > 1:
                raise SessionNotReadyError(
                    f"{subject(call)}: Binance refuses a list of {len(symbols)} with a symbol that it "
                    "does not know; the next call finds out which"
                )
        raw = self._answer(call, raw)
        if whole:
            self._strangers.seen(symbols, raw.body)
        return raw

    def parse(self, call: Call, raw: Raw, sessions: Calendar | None) -> Page:
        """See ``Provider.parse``."""
        try:
            document: object = orjson.loads(raw.body)
        except orjson.JSONDecodeError as error:
            raise MalformedPayloadError(
                f"{subject(call)}: the reply of {len(raw.body)} bytes is not JSON: {error}"
            ) from error
        if not isinstance(document, list):
            if _code(raw) is not None:
                raise self._refusal(call, raw)
            text = raw.body[:80].decode("utf-8", "replace")
            raise MalformedPayloadError(f"{subject(call)}: the reply is {text!r}, not a list")
        rows = cast("list[object]", document)
        if call.window is None:
            return quote_page(call, raw, rows)
        return bar_page(call, call.window, rows, sessions)

    def close_rested(self) -> None:
        self._wire.close_rested()

    def close(self) -> None:
        self._wire.close()

    def _get(self, path: str, params: Mapping[str, str], timeout_s: float) -> Raw:
        query = f"?{urlencode(params)}" if params else ""
        return self._wire.get(f"{self._base_url}{path}{query}", timeout_s)

    def _answer(self, call: Call, raw: Raw) -> Raw:
        if raw.status != 200:
            raise self._refusal(call, raw)
        return raw

    def _refusal(self, call: Call, raw: Raw) -> ProviderError:
        """What a status and Binance's code mean; the code decides where the status is odd."""
        text = mask(" ".join(raw.body[:300].decode("utf-8", "replace").split()))
        message, code = f"{subject(call)}: Binance answered {raw.status}, {text}", _code(raw)
        if raw.status in {418, 429} or code == _THROTTLED:
            return RateLimitedError(message, retry_after_s=self._wait_s(raw, text))
        if raw.status == 403:
            # The firewall's word for too much; it has no code.
            wait_s = retry_after_s(raw.headers, self._clock.now())
            return RateLimitedError(message, retry_after_s=wait_s)
        if raw.status == 451:
            return NotEntitledError(
                f"{message}; Binance does not serve this region: set BINANCE_BASE_URL to "
                "https://data-api.binance.vision, or name another provider in the policy"
            )
        if code == _UNKNOWN_SYMBOL or (code == _BAD_CHARACTERS and "symbol" in text):
            return SymbolNotFoundError(message)
        if raw.status == 200:
            return MalformedPayloadError(message)
        if raw.status == 400:
            return BadRequestError(message)
        hint = "; check BINANCE_BASE_URL" if raw.status < 500 else ""
        return ProviderUnavailableError(message + hint, status=raw.status)

    def _wait_s(self, raw: Raw, text: str) -> float | None:
        stated = retry_after_s(raw.headers, self._clock.now())
        banned = _BANNED_UNTIL.search(text)
        if stated is not None or banned is None:
            return stated
        return max(int(banned[1]) / 1000 - self._clock.timestamp(), 0.0)


def _spec(capability: Capability, cost: Mapping[str, int]) -> Spec:
    quotes, daily = capability is Capability.QUOTES_L1, capability is Capability.BARS_EOD
    return Spec(
        capability,
        batch=_BATCH if quotes else 1,
        span=_SPAN_1D if daily else _SPAN_1M,
        lookback=None,
        settle=_SETTLE,
        cost=cost,
        partial="last_row",
        adjustment="raw",
        pad=timedelta(0),
        timeout_s=_QUOTE_TIMEOUT_S if quotes else _BARS_TIMEOUT_S,
    )


def _listed(symbols: Sequence[str]) -> dict[str, str]:
    return {"symbols": orjson.dumps(list(symbols)).decode()}


def _kline_params(symbol: str, capability: Capability, window: Window) -> dict[str, str]:
    start = int(window.start.timestamp())
    if capability is Capability.BARS_EOD:
        # A daily kline opens at midnight UTC, which on other calendars is before the session.
        start -= start % 86_400
    return {
        "symbol": symbol,
        "interval": _INTERVAL[capability],
        "startTime": str(start * 1000),
        # Both ends are included, and ours is open.
        "endTime": str(int(window.end.timestamp() * 1000) - 1),
        "limit": str(_ROWS),
    }


def _code(raw: Raw) -> int | None:
    """Binance's own error code, None where the reply states none."""
    try:
        document: object = orjson.loads(raw.body)
    except orjson.JSONDecodeError:
        return None
    code = cast("dict[str, object]", document).get("code") if isinstance(document, dict) else None
    return code if type(code) is int else None
