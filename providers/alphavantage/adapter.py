"""Alpha Vantage: minutes by month or the newest hundred, daily bars, the day's quote; a symbol a call.

What may be asked is a matter of the plan: minutes need a paid one, and today's minutes one with an
entitlement. Every answer has status 200, refusals too.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal
from urllib.parse import urlencode, urlsplit
from zoneinfo import ZoneInfo

from core.clock import Clock
from core.errors import BadRequestError, NotEntitledError
from core.log import mask
from core.sessions import Calendar
from core.settings import Settings
from core.windows import Window
from core.words import Capability
from providers.alphavantage.pages import FUNCTIONS, opened, read
from providers.alphavantage.refusals import bad_status, refusal
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
)
from providers.wire import Wire

Plan = Literal["free", "premium", "delayed", "realtime"]

_SPAN_1M, _SPAN_1D = timedelta(days=31), timedelta(days=365 * 20)
_COMPACT_1M = timedelta(minutes=95)
"""The newest 100 minutes that traded reach back at least so far."""
_COMPACT_1D = timedelta(days=138)
"""The newest 100 sessions reach back at least so far: 99 weekdays before today."""
_DELAY = timedelta(minutes=16)
"""What ``delayed`` is refused, with a minute for clocks that differ."""
_TRAILING = timedelta(days=29)
"""The full reply without a month holds the last 30 days."""
_QUOTE_TIMEOUT_S, _BARS_TIMEOUT_S = 3.0, 15.0
_ENDPOINTS = {
    Capability.BARS_1M: "intraday",
    Capability.BARS_EOD: "daily",
    Capability.QUOTES_L1: "quote",
}
_NEW_YORK = ZoneInfo("America/New_York")


def build(settings: Settings, clock: Clock) -> "AlphaVantage":
    """The provider as the settings describe it.

    Raises:
        NotConfigured: there is no key, or the base URL is none.
    """
    if settings.alpha_vantage_api_key is None:
        raise NotConfigured(
            "ALPHA_VANTAGE_API_KEY is not set; a free key of alphavantage.co has daily bars"
        )
    base_url = settings.alpha_vantage_base_url.rstrip("/")
    parts = urlsplit(base_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise NotConfigured(
            f"ALPHA_VANTAGE_BASE_URL is {mask(base_url)!r}; "
            "expected a URL such as https://www.alphavantage.co"
        )
    return AlphaVantage(
        clock,
        key=settings.alpha_vantage_api_key.get_secret_value(),
        base_url=base_url,
        plan=settings.alpha_vantage_plan,
        limits=limits_from(settings.alpha_vantage_limits, "key"),
    )


class AlphaVantage:
    """One key and one feed, so the source is the provider."""

    name = "alphavantage"

    def __init__(
        self, clock: Clock, *, key: str, base_url: str, plan: Plan, limits: tuple[Limit, ...]
    ) -> None:
        self._clock = clock
        self._key = key
        self._base_url = base_url
        self._plan: Plan = plan
        self._limits = limits
        self._wire = Wire(direct=base_url.startswith("http://"))
        cost = one_each(limits)
        offered = [Capability.BARS_EOD, Capability.QUOTES_L1]
        if plan != "free":
            offered.insert(0, Capability.BARS_1M)
        self._specs = {capability: _spec(capability, plan, cost) for capability in offered}

    def limits(self) -> tuple[Limit, ...]:
        """What the plan allows (``ALPHA_VANTAGE_LIMITS``), per key."""
        return self._limits

    def specs(self) -> Mapping[Capability, Spec]:
        return self._specs

    def plan(self, request: Request) -> list[Call]:
        """See ``Provider.plan``; calls for minutes end with New York's months."""
        now = self._clock.now()
        if request.capability is Capability.BARS_1M and self._plan == "free":
            raise NotEntitledError(
                "alphavantage serves bars_1m to paid plans only; with such a key set "
                "ALPHA_VANTAGE_PLAN, else name another provider in the policy"
            )
        check_request(self.name, self._specs, request, now)
        symbols = chunks(request.symbols, 1)
        if request.window is None:
            params = {"function": FUNCTIONS[request.capability], **self._entitlement()}
            return [self._call(request.capability, symbol, None, params) for symbol in symbols]
        if request.capability is Capability.BARS_1M:
            self._check_served(request.window, now)
            windows = list(_months(request.window))
        else:
            windows = list(request.window.chunks(_SPAN_1D))
        return [
            self._call(
                request.capability,
                symbol,
                window,
                self._bar_params(request.capability, window, now),
            )
            for window in windows
            for symbol in symbols
        ]

    def send(self, call: Call, timeout_s: float) -> Raw:
        """See ``Provider.send``."""
        query = urlencode({**call.params, "apikey": self._key})
        raw = self._wire.get(f"{self._base_url}/query?{query}", timeout_s)
        if raw.status != 200:
            raise bad_status(call, raw, self._key, self._clock.now())
        return raw

    def parse(self, call: Call, raw: Raw, sessions: Calendar | None) -> Page:
        """See ``Provider.parse``; a refusal comes as an answer, too."""
        fields = opened(call, raw)
        error = refusal(call, raw, fields, self._key, self._clock.now())
        if error is not None:
            raise error
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
        endpoint = _ENDPOINTS[capability]
        return Call(
            self.name, capability, endpoint, symbols, window, {"symbol": symbols[0], **params}
        )

    def _bar_params(self, capability: Capability, window: Window, now: datetime) -> dict[str, str]:
        params = {"function": FUNCTIONS[capability], "datatype": "json"}
        if capability is Capability.BARS_EOD:
            newest = window.start >= now - _COMPACT_1D
            return {**params, "outputsize": "compact" if newest else "full"}
        params |= {
            "interval": "1min",
            "adjusted": "false",
            "extended_hours": "false",
            **self._entitlement(),
        }
        if window.start >= now - _COMPACT_1M:
            return {**params, "outputsize": "compact"}
        if window.start < now - _TRAILING:
            params["month"] = f"{window.start.astimezone(_NEW_YORK):%Y-%m}"
        return {**params, "outputsize": "full"}

    def _entitlement(self) -> dict[str, str]:
        return {"entitlement": self._plan} if self._plan in {"delayed", "realtime"} else {}

    def _check_served(self, window: Window, now: datetime) -> None:
        """Refuse minutes that this plan does not show yet: they would look as if nothing had traded.

        Raises:
            BadRequestError: the window ends too late; the message says how far the plan reaches.
        """
        if self._plan == "realtime":
            return
        reach = now - _DELAY
        if self._plan == "premium":
            local = now.astimezone(_NEW_YORK)
            reach = local.replace(hour=0, minute=0, second=0, microsecond=0).astimezone(UTC)
        if window.end > reach:
            raise BadRequestError(
                f"alphavantage serves bars_1m up to {reach:%Y-%m-%dT%H:%M:%SZ} with plan "
                f"{self._plan}, {window} ends later; ask again when it lies back so far, or name "
                "another provider"
            )


def _months(window: Window) -> Iterator[Window]:
    """The window cut where New York's months begin, oldest first."""
    start = window.start
    while start < window.end:
        local = start.astimezone(_NEW_YORK)
        later = (local.replace(day=28) + timedelta(days=4)).replace(
            day=1, hour=0, minute=0, second=0, microsecond=0
        )
        end = min(later.astimezone(UTC), window.end)
        yield Window(start, end)
        start = end


def _spec(capability: Capability, plan: Plan, cost: Mapping[str, int]) -> Spec:
    daily = capability is Capability.BARS_EOD
    return Spec(
        capability,
        batch=1,
        span=_SPAN_1D if daily else _SPAN_1M,
        lookback=_COMPACT_1D if daily and plan == "free" else None,
        # Days are brought up to date in the course of New York's evening, for every plan.
        settle=timedelta(hours=8) if daily else timedelta(seconds=60),
        cost=cost,
        partial="last_row" if daily else "never",
        adjustment="raw",
        pad=timedelta(0),
        timeout_s=_QUOTE_TIMEOUT_S if capability is Capability.QUOTES_L1 else _BARS_TIMEOUT_S,
    )
