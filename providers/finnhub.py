"""Finnhub through its own client: quotes, and candles where the key's plan has them.

The client (finnhub-python) builds URLs, adds the key and pools connections; the true bytes of each
reply are taken by a hook, so that what is stored is what came.
"""

import threading
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from math import isfinite
from typing import Any, cast

import finnhub  # pyright: ignore[reportMissingTypeStubs]
import orjson
import requests
from requests.adapters import HTTPAdapter

from core.bars import Quote
from core.clock import Clock
from core.errors import (
    AuthRejectedError,
    BadRequestError,
    MalformedPayloadError,
    NotEntitledError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitedError,
    SymbolNotFoundError,
)
from core.log import mask
from core.sessions import Calendar
from core.settings import Settings
from core.words import Capability
from providers.base import (
    Call,
    Limit,
    NotConfigured,
    Page,
    Raw,
    Request,
    Spec,
    check_request,
    chunks,
    limits_from,
    one_each,
    retry_after_s,
)
from providers.rows import DailyRow, Row, daily_bars, minute_bars

_SPAN_1M, _SPAN_1D = timedelta(days=30), timedelta(days=365 * 20)
_RESOLUTION = {Capability.BARS_1M: "1", Capability.BARS_EOD: "D"}
_COLUMNS = ("t", "o", "h", "l", "c", "v")
_POOL = 64
_TIMEOUT_S = 3.0


def build(settings: Settings, clock: Clock) -> "Finnhub":
    """The provider as the settings describe it.

    Raises:
        NotConfigured: there is no key.
    """
    if settings.finnhub_api_key is None:
        raise NotConfigured("no key: set FINNHUB_API_KEY (a free one has quotes)")
    return Finnhub(
        clock,
        key=settings.finnhub_api_key.get_secret_value(),
        base_url=settings.finnhub_base_url,
        premium=settings.finnhub_premium,
        limits=limits_from(settings.finnhub_limits, "key"),
    )


class _Client(finnhub.Client):
    """The vendor's client at a base URL of ours; keeps each thread's last reply as it came."""

    def __init__(self, key: str, base_url: str) -> None:
        self._mine = threading.local()
        super().__init__(api_key=key)  # pyright: ignore[reportUnknownMemberType]
        self.API_URL = base_url.rstrip("/")
        adapter = HTTPAdapter(pool_connections=1, pool_maxsize=_POOL, max_retries=0)
        self.session.mount("http://", adapter)
        self.session.mount("https://", adapter)
        self.session.trust_env = not base_url.startswith("http://")
        self.session.hooks["response"].append(self._keep)

    @property
    def session(self) -> requests.Session:
        """The connection pool that the client uses."""
        return cast("requests.Session", cast("Any", self)._session)  # noqa: SLF001 - its only door

    @property
    def DEFAULT_TIMEOUT(self) -> float:  # noqa: N802 - the client's own name
        """Where the client looks for the time limit of a call: each thread has its own."""
        return getattr(self._mine, "timeout_s", _TIMEOUT_S)

    def ask(self, call: Call, timeout_s: float) -> Raw:
        """Make the call by the client's own method; the reply whatever its status.

        Raises:
            requests.exceptions.RequestException: there was no reply.
        """
        self._mine.timeout_s, self._mine.reply = timeout_s, None
        params, client = call.params, cast("Any", self)
        try:
            if call.endpoint == "quote":
                client.quote(params["symbol"])
            else:
                client.stock_candles(
                    params["symbol"], params["resolution"], int(params["from"]), int(params["to"])
                )
        except (finnhub.FinnhubAPIException, finnhub.FinnhubRequestException, TypeError) as error:
            # Its view of the reply; ours is made from status and bytes below.
            if self._mine.reply is None:
                raise MalformedPayloadError(f"{_subject(call)}: {type(error).__name__}") from None
        reply = cast("requests.Response", self._mine.reply)
        headers = {name.lower(): value for name, value in reply.headers.items()}
        return Raw(reply.status_code, reply.content, headers)

    def _keep(self, response: requests.Response, *_: object, **__: object) -> None:
        self._mine.reply = response


class Finnhub:
    """One key; quotes always, candles where the plan has them. One feed, so the source is the provider."""

    name = "finnhub"

    def __init__(
        self, clock: Clock, *, key: str, base_url: str, premium: bool, limits: tuple[Limit, ...]
    ) -> None:
        self._clock = clock
        self._key = key
        self._limits = limits
        self._client = _Client(key, base_url)
        cost = one_each(limits)
        offered = [Capability.QUOTES_L1]
        if premium:
            offered += [Capability.BARS_1M, Capability.BARS_EOD]
        self._specs = {capability: _spec(capability, cost) for capability in offered}

    def limits(self) -> tuple[Limit, ...]:
        """What the plan allows (``FINNHUB_LIMITS``), per key."""
        return self._limits

    def specs(self) -> Mapping[Capability, Spec]:
        return self._specs

    def plan(self, request: Request) -> list[Call]:
        """See ``Provider.plan``."""
        spec = check_request(self.name, self._specs, request, self._clock.now())
        if request.capability is Capability.QUOTES_L1:
            return [
                Call(self.name, request.capability, "quote", (symbol,), None, {"symbol": symbol})
                for (symbol,) in chunks(request.symbols, 1)
            ]
        windows = list(request.window.chunks(spec.span)) if request.window else []
        calls: list[Call] = []
        for window in windows:
            start = int(window.start.timestamp())
            # The vendor includes both ends, our end is open.
            end = int(window.end.timestamp()) - 1
            if request.capability is Capability.BARS_EOD:
                # A daily candle is stamped with midnight UTC of its session date.
                start -= start % 86_400
            for (symbol,) in chunks(request.symbols, 1):
                params = {
                    "symbol": symbol,
                    "resolution": _RESOLUTION[request.capability],
                    "from": str(start),
                    "to": str(end),
                }
                calls.append(
                    Call(self.name, request.capability, "candle", (symbol,), window, params)
                )
        return calls

    def send(self, call: Call, timeout_s: float) -> Raw:
        """See ``Provider.send``."""
        try:
            raw = self._client.ask(call, timeout_s)
        except requests.exceptions.Timeout as error:
            raise ProviderTimeoutError(
                f"{_subject(call)}: no complete reply within {timeout_s:g} s"
            ) from error
        except requests.exceptions.RequestException as error:
            raise ProviderUnavailableError(
                f"{_subject(call)}: can't be reached: {self._plain(error)}"
            ) from None
        error = self._refusal(call, raw)
        if error is not None:
            raise error
        return raw

    def parse(self, call: Call, raw: Raw, sessions: Calendar | None) -> Page:
        """See ``Provider.parse``."""
        try:
            document: object = orjson.loads(raw.body)
        except orjson.JSONDecodeError as error:
            raise MalformedPayloadError(
                f"{_subject(call)}: the reply is not JSON: {error}"
            ) from error
        if not isinstance(document, dict):
            kind = type(document).__name__
            raise MalformedPayloadError(f"{_subject(call)}: the reply is {kind}, not an object")
        fields = cast("dict[str, Any]", document)
        if call.capability is Capability.QUOTES_L1:
            return _quote_page(call, fields)
        return _candle_page(call, fields, sessions)

    def close(self) -> None:
        self._client.session.close()

    def _refusal(self, call: Call, raw: Raw) -> ProviderError | None:
        if raw.status == 200:
            return None
        text = self._plain(raw.body[:300].decode("utf-8", "replace"))
        message = f"{_subject(call)}: Finnhub answered {raw.status}, {text}"
        if raw.status == 429:
            return RateLimitedError(message, retry_after_s=self._wait_s(raw))
        if raw.status == 403:
            return NotEntitledError(message)
        if raw.status == 401:
            return AuthRejectedError(message)
        if raw.status == 404:
            return SymbolNotFoundError(message)
        if 400 <= raw.status < 500:
            return BadRequestError(message)
        return ProviderUnavailableError(message, status=raw.status)

    def _wait_s(self, raw: Raw) -> float | None:
        stated = retry_after_s(raw.headers, self._clock.now())
        if stated is not None:
            return stated
        try:
            return max(0.0, float(raw.headers["x-ratelimit-reset"]) - self._clock.timestamp())
        except (KeyError, ValueError):
            return None

    def _plain(self, what: object) -> str:
        return mask(" ".join(str(what).split())).replace(self._key, "***")


def _subject(call: Call) -> str:
    return f"finnhub {call.endpoint} {call.symbols[0]}{f' {call.window}' if call.window else ''}"


def _quote_page(call: Call, fields: dict[str, Any]) -> Page:
    symbol = call.symbols[0]
    last, stamp = fields.get("c"), fields.get("t")
    if not last or not stamp:
        # An unknown symbol is answered with zeros and status 200.
        unknown = SymbolNotFoundError(f"finnhub has no quote of {symbol}")
        return Page(problems={symbol: unknown})
    if (
        not isinstance(last, int | float)
        or type(stamp) is not int
        or not isfinite(last)
        or last <= 0
    ):
        raise MalformedPayloadError(f"{_subject(call)}: price {last!r} at time {stamp!r}")
    return Page(quotes={symbol: Quote(datetime.fromtimestamp(stamp, UTC), last=float(last))})


def _candle_page(call: Call, fields: dict[str, Any], sessions: Calendar | None) -> Page:
    symbol, window = call.symbols[0], call.window
    assert window is not None, "a candle call has a window"
    if fields.get("s") == "no_data":
        return Page(bars={symbol: ()})
    columns = [fields.get(name) for name in _COLUMNS]
    if fields.get("s") != "ok" or not all(isinstance(column, list) for column in columns):
        raise MalformedPayloadError(
            f"{_subject(call)}: status {fields.get('s')!r}; expected ok with columns {_COLUMNS}"
        )
    lists = cast("list[list[Any]]", columns)
    if len({len(column) for column in lists}) != 1 or not all(type(t) is int for t in lists[0]):
        raise MalformedPayloadError(
            f"{_subject(call)}: columns differ in length, or times are no seconds"
        )
    if call.capability is Capability.BARS_1M:
        rows = cast("list[Row]", list(zip(*lists, strict=True)))
        bars, rejects = minute_bars(symbol, rows, window, sessions)
    else:
        daily = [cast("DailyRow", (_label(t), *cells)) for t, *cells in zip(*lists, strict=True)]
        bars, rejects = daily_bars(symbol, daily, window, sessions)
    return Page(bars={symbol: bars}, rejects=rejects)


def _label(stamp: int) -> date:
    return datetime.fromtimestamp(stamp, UTC).date()


def _spec(capability: Capability, cost: Mapping[str, int]) -> Spec:
    daily = capability is Capability.BARS_EOD
    return Spec(
        capability,
        batch=1,
        span=_SPAN_1D if daily else _SPAN_1M,
        lookback=None,
        settle=timedelta(minutes=30) if daily else timedelta(seconds=60),
        cost=cost,
        partial="last_row",
        # The vendor adjusts daily candles for splits and leaves intraday ones as traded.
        adjustment="split" if daily else "raw",
        pad=timedelta(0),
        timeout_s=3.0,
    )
