"""Yahoo Finance: bars by the chart endpoint, quotes by the batch endpoint, session by yfinance.

The library makes cookie and crumb in a process of its own; its data calls are not used, because
their clean-up destroys what a store of revisions needs (null rows, unknown volumes, live rows).
"""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

from core.clock import Clock
from core.errors import AuthRejectedError
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
)
from providers.wire import Wire
from providers.yahoo.browser import BROWSER
from providers.yahoo.chart import PAD_1D, PAD_1M, chart_params, parse_chart
from providers.yahoo.quote import parse_quotes, quote_params
from providers.yahoo.refusals import refusal
from providers.yahoo.session import SessionKeeper

_CHART_HOST = "https://query2.finance.yahoo.com"
_QUOTE_HOST = "https://query1.finance.yahoo.com"
_BATCH = 100
"""Symbols of one quote call: 100 of 10 letters keep the URL below 1,500 characters."""
_SPAN_1M, _LOOKBACK_1M = timedelta(days=7), timedelta(days=29)
_SPAN_1D = timedelta(days=3650)
_QUOTE_TIMEOUT_S, _CHART_TIMEOUT_S = 3.0, 10.0


def build(settings: Settings, clock: Clock) -> "Yahoo":
    """The provider as the settings describe it; it needs no key.

    Raises:
        NotConfigured: the base URL is none.
    """
    base_url = settings.yahoo_base_url.rstrip("/")
    if base_url and not (base_url.startswith("http://") and urlsplit(base_url).hostname):
        raise NotConfigured(
            f"YAHOO_BASE_URL is {base_url!r}; expected http://host:port/path of a simulator, or "
            "nothing for Yahoo itself"
        )
    return Yahoo(
        clock,
        base_url=base_url,
        limits=limits_from(settings.yfinance_limits, "ip"),
        state_dir=Path(settings.gapless_home),
    )


class Yahoo:
    """Yahoo's public endpoints; one feed, so the source is the provider."""

    name = "yfinance"

    def __init__(
        self, clock: Clock, *, base_url: str, limits: tuple[Limit, ...], state_dir: Path
    ) -> None:
        """Args: base_url: where every call goes instead of Yahoo's hosts; empty for the real ones."""
        self._clock = clock
        self._base_url = base_url
        self._limits = limits
        self._wire = Wire(direct=bool(base_url), browser=BROWSER)
        self._sessions = SessionKeeper(base_url, state_dir, clock)
        cost = one_each(limits)
        self._specs = {
            Capability.BARS_1M: _spec(Capability.BARS_1M, cost),
            Capability.BARS_EOD: _spec(Capability.BARS_EOD, cost),
            Capability.QUOTES_L1: _spec(Capability.QUOTES_L1, cost),
        }

    def limits(self) -> tuple[Limit, ...]:
        """Yahoo publishes none; these are the operator's (``YFINANCE_LIMITS``), per address."""
        return self._limits

    def specs(self) -> Mapping[Capability, Spec]:
        return self._specs

    def plan(self, request: Request) -> list[Call]:
        """See ``Provider.plan``."""
        spec = check_request(self.name, self._specs, request, self._clock.now())
        if request.capability is Capability.QUOTES_L1:
            return [
                Call(self.name, request.capability, "quote", part, None, quote_params(part))
                for part in chunks(request.symbols, spec.batch)
            ]
        windows = list(request.window.chunks(spec.span)) if request.window else []
        return [
            Call(
                self.name,
                request.capability,
                "chart",
                (symbol,),
                window,
                chart_params(request.capability, window),
            )
            for window in windows
            for (symbol,) in chunks(request.symbols, 1)
        ]

    def send(self, call: Call, timeout_s: float) -> Raw:
        """See ``Provider.send``; a quote call without a session fails at once, to be asked again.

        Waiting for the session would hold the budget's token beyond its time.
        """
        if call.capability is not Capability.QUOTES_L1:
            path = f"/v8/finance/chart/{quote(call.symbols[0], safe='')}"
            raw = self._wire.get(self._url(_CHART_HOST, path, call.params), timeout_s)
            return self._checked(call, raw)
        session = self._sessions.session()
        params = {**call.params, "crumb": session.crumb}
        url = self._url(_QUOTE_HOST, "/v7/finance/quote", params)
        raw = self._wire.get(url, timeout_s, cookie=session.cookie)
        try:
            self._checked(call, raw)
        except AuthRejectedError as error:
            raise self._sessions.refused(session, str(error)) from error
        self._sessions.accepted(session)
        return raw

    def parse(self, call: Call, raw: Raw, sessions: Calendar | None) -> Page:
        """See ``Provider.parse``."""
        if call.capability is Capability.QUOTES_L1:
            return parse_quotes(call, raw)
        return parse_chart(call, raw, sessions)

    def close_rested(self) -> None:
        self._wire.close_rested()

    def close(self) -> None:
        self._sessions.close()
        self._wire.close()

    def _checked(self, call: Call, raw: Raw) -> Raw:
        error = refusal(call, raw, self._clock.now())
        if error is not None:
            raise error
        return raw

    def _url(self, host: str, path: str, params: Mapping[str, str]) -> str:
        return f"{self._base_url or host}{path}?{urlencode(params)}"


def _spec(capability: Capability, cost: Mapping[str, int]) -> Spec:
    minute, quotes = capability is Capability.BARS_1M, capability is Capability.QUOTES_L1
    return Spec(
        capability,
        batch=_BATCH if quotes else 1,
        span=_SPAN_1M if minute else _SPAN_1D,
        lookback=_LOOKBACK_1M if minute else None,
        settle=timedelta(seconds=60) if minute else timedelta(minutes=30),
        cost=cost,
        partial="unaligned_row",
        adjustment="split",
        pad=PAD_1M if minute else timedelta(0) if quotes else PAD_1D,
        timeout_s=_QUOTE_TIMEOUT_S if quotes else _CHART_TIMEOUT_S,
    )
