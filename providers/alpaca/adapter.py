"""Alpaca's market data API v2: bars and latest quotes of many symbols in one call.

Each feed is a source of its own (``alpaca.iex``, ``alpaca.sip``): one exchange's trades and the
consolidated tape are different numbers. Both use one key, and so one budget.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, timedelta
from typing import Literal
from urllib.parse import urlencode, urlsplit

from core.clock import Clock
from core.errors import (
    AuthRejectedError,
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
from providers.alpaca.pages import NEW_YORK, STEP, opened, read, subject
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
from providers.wire import Wire

Feed = Literal["iex", "sip"]

_ROWS = 10_000
"""Rows of one reply at most, over all symbols; calls are cut so that one reply holds them."""
_BATCH = 100
"""Symbols of one call: 100 of 10 letters keep the URL below 1,500 characters."""
_SPAN_1M, _SPAN_1D = timedelta(days=6), timedelta(days=9_000)
_TIMEFRAME = {Capability.BARS_1M: "1Min", Capability.BARS_EOD: "1Day"}
__TIMEFRAME = {Capability.BARS_1M: "1Min", Capability.BARS_EOD: "1Day"}
_DELAY = timedelta(minutes=16)
"""A plan without recent consolidated data is refused the last 15 minutes by the vendor's clock."""
_SETTLE_1M, _SETTLE_1D = timedelta(seconds=30), timedelta(minutes=30)
_QUOTE_TIMEOUT_S, _BARS_TIMEOUT_S = 3.0, 10.0
_LONGEST_WAIT_S = 3600.0
_ORDINARY = re.compile(r"[A-Z][A-Z0-9]{0,11}([.][A-Z]{1,3})?")
"""What Alpaca takes for a symbol. Another spelling makes it refuse the whole call."""


def build(settings: Settings, clock: Clock, feed: Feed) -> "Alpaca":
    """One feed as the settings describe it.

    Raises:
        NotConfigured: the key or its secret is missing, or the base URL is none.
    """
    key, secret = settings.alpaca_api_key, settings.alpaca_secret_key
    for name, value in (("ALPACA_API_KEY", key), ("ALPACA_SECRET_KEY", secret)):
        if value is None:
            raise NotConfigured(f"{name} is not set; a free key of alpaca.markets has both feeds")
    base_url = settings.alpaca_base_url.rstrip("/")
    parts = urlsplit(base_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise NotConfigured(
            f"ALPACA_BASE_URL is {mask(base_url)!r}; expected a URL such as https://data.alpaca.markets"
        )
    assert key is not None
    assert secret is not None
    return Alpaca(
        clock,
        feed=feed,
        key=key.get_secret_value(),
        secret=secret.get_secret_value(),
        base_url=base_url,
        realtime=feed == "iex" or settings.alpaca_sip_realtime,
        limits=limits_from(settings.alpaca_limits, "key"),
    )


class Alpaca:
    """One feed of Alpaca's; the feeds of a key share its limits, and so the provider's name."""

    name = "alpaca"

    def __init__(
        self,
        clock: Clock,
        *,
        feed: Feed,
        key: str,
        secret: str,
        base_url: str,
        realtime: bool,
        limits: tuple[Limit, ...],
    ) -> None:
        """Args: realtime: whether the plan includes the last 15 minutes of this feed."""
        self._clock = clock
        self._feed = feed
        self._source = f"alpaca.{feed}"
        self._secrets = (key, secret)
        self._base_url = base_url
        self._realtime = realtime
        self._limits = limits
        self._wire = Wire(
            direct=base_url.startswith("http://"),
            headers={"APCA-API-KEY-ID": key, "APCA-API-SECRET-KEY": secret},
        )
        offered = [Capability.BARS_1M, Capability.BARS_EOD]
        if realtime:
            offered.append(Capability.QUOTES_L1)
        self._specs = {capability: _spec(capability, one_each(limits)) for capability in offered}

    def limits(self) -> tuple[Limit, ...]:
        """What the plan allows (``ALPACA_LIMITS``), per key and for both feeds together."""
        return self._limits

    def specs(self) -> Mapping[Capability, Spec]:
        return self._specs

    def plan(self, request: Request) -> list[Call]:
        """See ``Provider.plan``; no call can have more rows than one reply holds."""
        now = self._clock.now()
        if request.capability is Capability.QUOTES_L1 and not self._realtime:
            raise NotEntitledError(
                f"{self._source} has no quotes without the last 15 minutes of the feed; with such a "
                "plan set ALPACA_SIP_REALTIME=true, else name another provider in the policy"
            )
        spec = check_request(self._source, self._specs, request, now)
        if request.window is None:
            return [
                self._call(request.capability, part, None, {"symbols": ",".join(part)})
                for part in _batches(request.symbols, spec.batch)
            ]
        if not self._realtime and request.window.end > now - _DELAY:
            raise BadRequestError(
                f"{self._source} serves {request.capability} up to 15 minutes ago with this plan, "
                f"{request.window} ends later; ask again when it lies back so far, set "
                "ALPACA_SIP_REALTIME=true if the plan has it, or name another provider"
            )
        calls: list[Call] = []
        for window in request.window.chunks(spec.span):
            params = _bar_params(request.capability, window)
            # A daily row may lie outside the window at either end.
            rows = -(-window.length // STEP[request.capability]) + 2
            for part in _batches(request.symbols, max(1, min(spec.batch, _ROWS // rows))):
                wanted = {"symbols": ",".join(part), **params}
                calls.append(self._call(request.capability, part, window, wanted))
        return calls

    def send(self, call: Call, timeout_s: float) -> Raw:
        """See ``Provider.send``."""
        path = "bars" if call.window else "quotes/latest"
        url = f"{self._base_url}/v2/stocks/{path}?{urlencode(call.params)}"
        raw = self._wire.get(url, timeout_s)
        if raw.status != 200:
            raise self._refusal(call, raw)
        return raw

    def parse(self, call: Call, raw: Raw, sessions: Calendar | None) -> Page:
        """See ``Provider.parse``."""
        fields = opened(call, raw)
        if "message" in fields:
            raise self._refusal(call, raw)
        return read(call, fields, sessions)

    def close_rested(self) -> None:
        self._wire.close_rested()

    def close(self) -> None:
        self._wire.close()

    def _call(
        self,
        capability: Capability,
        symbols: tuple[str, ...],
        window: Window | None,
        params: Mapping[str, str],
    ) -> Call:
        endpoint = "bars" if window else "quotes"
        feed = {"feed": self._feed}
        return Call(self._source, capability, endpoint, symbols, window, {**params, **feed})

    def _refusal(self, call: Call, raw: Raw) -> ProviderError:
        """What a status and the vendor's words mean; the words tell a plan's limit from a bad key."""
        text = self._plain(raw.body[:300].decode("utf-8", "replace"))
        message = f"{subject(call)}: Alpaca answered {raw.status}, {text}"
        status = raw.status
        if "too many requests" in text.lower() or status == 429:
            return RateLimitedError(message, retry_after_s=self._wait_s(raw))
        if status in {403, 422} and "subscription" in text:
            return NotEntitledError(
                f"{message}; the key's plan lacks it: ALPACA_SIP_REALTIME=false"
            )
        if status in {401, 403}:
            return AuthRejectedError(f"{message}; check ALPACA_API_KEY and ALPACA_SECRET_KEY")
        if status == 200:
            return MalformedPayloadError(message)
        if status in {400, 422}:
            if len(call.symbols) == 1 and "invalid symbol" in text:
                return SymbolNotFoundError(message)
            return BadRequestError(message)
        # An unknown symbol is no 404 here: the base URL leads elsewhere.
        hint = "; check ALPACA_BASE_URL" if status < 500 else ""
        return ProviderUnavailableError(message + hint, status=status)

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

    def _plain(self, what: str) -> str:
        text = mask(" ".join(what.split()))
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _batches(symbols: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """Symbols in their order, ``size`` at a time; what may spoil a call for the others goes alone."""
    parts: list[tuple[str, ...]] = []
    together: list[str] = []
    for symbol in dict.fromkeys(symbols):
        if _ORDINARY.fullmatch(symbol):
            together.append(symbol)
            continue
        parts += [*chunks(together, size), (symbol,)]
        together = []
    return parts + chunks(together, size)


def _bar_params(capability: Capability, window: Window) -> dict[str, str]:
    # The vendor includes both ends, our end is open.
    start, end = window.start, window.end - timedelta(seconds=1)
    if capability is Capability.BARS_EOD:
        # A daily bar is stamped with New York's midnight of its session date.
        start = start.astimezone(NEW_YORK).replace(hour=0, minute=0, second=0, microsecond=0)
    return {
        "timeframe": _TIMEFRAME[capability],
        "start": f"{start.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "end": f"{end:%Y-%m-%dT%H:%M:%SZ}",
        "limit": str(_ROWS),
        "adjustment": "raw",
        "sort": "asc",
    }


def _spec(capability: Capability, cost: Mapping[str, int]) -> Spec:
    daily = capability is Capability.BARS_EOD
    return Spec(
        capability,
        batch=_BATCH,
        span=_SPAN_1D if daily else _SPAN_1M,
        lookback=None,
        # A minute's bar is sent again with late trades half a minute after the first time.
        settle=_SETTLE_1D if daily else _SETTLE_1M,
        cost=cost,
        partial="last_row",
        adjustment="raw",
        pad=timedelta(0),
        timeout_s=_QUOTE_TIMEOUT_S if capability is Capability.QUOTES_L1 else _BARS_TIMEOUT_S,
    )
