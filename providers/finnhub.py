"""Finnhub through its own client: quotes, and candles where the key's plan has them.

The client (finnhub-python) builds the URLs, adds the key and keeps connections. The bytes of each
reply are taken by a hook, so that what is parsed and stored is what came.
"""

import re
import threading
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from math import isfinite
from typing import Any, cast

import finnhub  # pyright: ignore[reportMissingTypeStubs]
import orjson
import requests
import urllib3
from requests.utils import get_environ_proxies

from core.bars import Quote
from core.clock import Clock
from core.errors import (
    AuthRejectedError,
    BadDataError,
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
from core.settings import Settings, environment
from core.windows import Window
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
from providers.resting import RestingAdapter
from providers.rows import DailyRow, Row, daily_bars, minute_bars
from providers.wire import REST_S

_SPAN_1M, _SPAN_1D = timedelta(days=30), timedelta(days=365 * 20)
_RESOLUTION = {Capability.BARS_1M: "1", Capability.BARS_EOD: "D"}
_COLUMNS = ("t", "o", "h", "l", "c", "v")
_POOL = 64
"""Kept connections; as many threads can call at once without opening new ones."""
_QUOTE_TIMEOUT_S, _CANDLE_TIMEOUT_S = 3.0, 10.0
_LONGEST_WAIT_S = 3600.0
_ARGUMENTS = {"from": "_from"}
_NO_ACCESS = "have access"
_NO_ACCOUNT = "sign up"
_THROTTLED = re.compile("limit", re.IGNORECASE)


def build(settings: Settings, clock: Clock) -> "Finnhub":
    """The provider as the settings describe it.

    Raises:
        NotConfigured: there is no key.
    """
    if settings.finnhub_api_key is None:
        raise NotConfigured("FINNHUB_API_KEY is not set; a free key of finnhub.io has quotes")
    return Finnhub(
        clock,
        key=settings.finnhub_api_key.get_secret_value(),
        base_url=settings.finnhub_base_url,
        premium=settings.finnhub_premium,
        limits=limits_from(settings.finnhub_limits, "key"),
    )


class _Client(finnhub.Client):
    """The vendor's client at a base URL of ours; keeps each thread's last reply as it came."""

    def __init__(self, clock: Clock, key: str, base_url: str) -> None:
        self._clock = clock
        self._mine = threading.local()
        super().__init__(api_key=key)  # pyright: ignore[reportUnknownMemberType]
        self.API_URL = base_url.rstrip("/")
        adapter = self.connections = RestingAdapter(_POOL)
        session = self.session
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        # Once here, not with every request: reading the environment costs a third of a request.
        session.trust_env = False
        if base_url.startswith("https://"):
            known = environment()
            session.proxies.update(get_environ_proxies(base_url))
            session.verify = known.get("REQUESTS_CA_BUNDLE") or known.get("CURL_CA_BUNDLE") or True
        session.hooks["response"].append(self._keep)

    @property
    def session(self) -> requests.Session:
        """The connection pool that the client uses."""
        return cast("requests.Session", cast("Any", self)._session)  # noqa: SLF001 - its only door

    def ask(self, call: Call, timeout_s: float) -> Raw:
        """Make the call by the client's own method; the reply whatever its status.

        Raises:
            requests.exceptions.RequestException, urllib3.exceptions.HTTPError: no complete reply.
        """
        self._mine.deadline, self._mine.reply = self._clock.monotonic() + timeout_s, None
        params, client = call.params, cast("Any", self)
        try:
            if call.endpoint == "quote":
                client.quote(params["symbol"])
            else:
                client.stock_candles(**{_ARGUMENTS.get(k, k): v for k, v in params.items()})
        except (finnhub.FinnhubAPIException, finnhub.FinnhubRequestException, TypeError):
            # What the client makes of a reply is its own (a body of null under an error status
            # even trips it: the TypeError); ours is made from status and bytes.
            if self._mine.reply is None:
                raise
        return cast("Raw", self._mine.reply)

    def _request(self, method: str, path: str, **kwargs: Any) -> object:
        left_s = max(self._mine.deadline - self._clock.monotonic(), 0.001)
        ask = cast("Any", super())._request  # noqa: SLF001 - ours to extend
        return ask(method, path, timeout=left_s, stream=True, allow_redirects=False, **kwargs)

    def _keep(self, response: requests.Response, *_: object, **__: object) -> None:
        """Read the body within the call's time, however slowly it trickles, and keep the reply."""
        body, raw = bytearray(), response.raw
        while part := raw.read1(65_536, decode_content=True):
            body += part
            if self._clock.monotonic() > self._mine.deadline:
                response.close()
                raise requests.exceptions.ReadTimeout("the reply was not complete in time")
        # What Response.content would have done, had it read the body.
        read = cast("Any", response)
        read._content, read._content_consumed = bytes(body), True  # noqa: SLF001
        headers = {name.lower(): value for name, value in response.headers.items()}
        self._mine.reply = Raw(response.status_code, bytes(body), headers)


class Finnhub:
    """One key and one feed, so the source is the provider: quotes, candles where the plan has them."""

    name = "finnhub"

    def __init__(
        self, clock: Clock, *, key: str, base_url: str, premium: bool, limits: tuple[Limit, ...]
    ) -> None:
        self._clock = clock
        self._key = key
        self._limits = limits
        self._client = _Client(clock, key, base_url)
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
        if request.capability in _RESOLUTION and request.capability not in self._specs:
            raise NotEntitledError(
                f"finnhub serves {request.capability} to paid plans only; with such a key set "
                "FINNHUB_PREMIUM=true, else name another provider in the policy"
            )
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
        except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError):
            raise ProviderTimeoutError(
                f"{_subject(call)}: no complete reply within {timeout_s:g} s"
            ) from None  # the cause's text has the URL, and with it the key
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
            raise ProviderUnavailableError(
                f"{_subject(call)}: can't be reached: {self._plain(error)}"
            ) from None
        if raw.status != 200:
            raise self._refusal(call, raw)
        return raw

    def parse(self, call: Call, raw: Raw, sessions: Calendar | None) -> Page:
        """See ``Provider.parse``."""
        try:
            document: object = orjson.loads(raw.body)
        except orjson.JSONDecodeError as error:
            raise MalformedPayloadError(
                f"{_subject(call)}: the reply of {len(raw.body)} bytes is not JSON: {error}"
            ) from error
        if not isinstance(document, dict):
            kind = type(document).__name__
            raise MalformedPayloadError(f"{_subject(call)}: the reply is {kind}, not an object")
        fields = cast("dict[str, Any]", document)
        if "error" in fields:
            raise self._refusal(call, raw)
        if call.capability is Capability.QUOTES_L1:
            return _quote_page(call, fields)
        return _candle_page(call, fields, sessions)

    def close_rested(self) -> None:
        self._client.connections.close_rested(REST_S)

    def close(self) -> None:
        self._client.session.close()

    def _refusal(self, call: Call, raw: Raw) -> ProviderError:
        """What a status and the vendor's words mean; the words decide where the status is odd."""
        text = self._plain(raw.body[:300].decode("utf-8", "replace"))
        message = f"{_subject(call)}: Finnhub answered {raw.status}, {text}"
        if raw.status in {401, 403} and _NO_ACCESS in text:
            return NotEntitledError(f"{message}; the key's plan lacks it: FINNHUB_PREMIUM=false")
        if raw.status in {401, 403} or _NO_ACCOUNT in text:
            return AuthRejectedError(f"{message}; check FINNHUB_API_KEY")
        if raw.status == 429 or (raw.status == 200 and _THROTTLED.search(text)):
            return RateLimitedError(message, retry_after_s=self._wait_s(raw))
        if raw.status == 200:
            return MalformedPayloadError(message)
        if raw.status in {400, 422}:
            return BadRequestError(message)
        # An unknown symbol is no 404 here: the base URL leads elsewhere.
        hint = "; check FINNHUB_BASE_URL" if raw.status < 500 else ""
        return ProviderUnavailableError(message + hint, status=raw.status)

    def _wait_s(self, raw: Raw) -> float | None:
        stated = retry_after_s(raw.headers, self._clock.now())
        if stated is not None:
            return stated
        try:
            # Epoch seconds at which the vendor's minute has room again.
            wait_s = float(raw.headers["x-ratelimit-reset"]) - self._clock.timestamp()
        except (KeyError, ValueError):
            return None
        return wait_s if 0 <= wait_s <= _LONGEST_WAIT_S else None

    def _plain(self, what: object) -> str:
        return mask(" ".join(str(what).split())).replace(self._key, "***")


def _subject(call: Call) -> str:
    return f"finnhub {call.endpoint} {call.symbols[0]}{f' {call.window}' if call.window else ''}"


def _quote_page(call: Call, fields: dict[str, Any]) -> Page:
    symbol = call.symbols[0]
    if "c" not in fields or "t" not in fields:
        raise MalformedPayloadError(f"{_subject(call)}: the reply lacks c or t")
    last, stamp = fields["c"], fields["t"]
    if not last and not stamp:
        # An unknown symbol is answered with zeros and status 200.
        return Page(problems={symbol: SymbolNotFoundError(f"Finnhub has no quote of {symbol}")})
    price = float(last) if type(last) in {int, float} else 0.0
    if not (isfinite(price) and price > 0) or type(stamp) is not int or stamp <= 0:
        raise BadDataError(f"{_subject(call)}: price {last!r} at time {stamp!r}")
    return Page(quotes={symbol: Quote(datetime.fromtimestamp(stamp, UTC), last=price)})


def _candle_page(call: Call, fields: dict[str, Any], sessions: Calendar | None) -> Page:
    symbol, window = call.symbols[0], cast("Window", call.window)
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
        timeout_s=_QUOTE_TIMEOUT_S if capability is Capability.QUOTES_L1 else _CANDLE_TIMEOUT_S,
    )
