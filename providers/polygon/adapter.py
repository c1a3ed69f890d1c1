"""Polygon, since 2025 Massive: bars by v2 aggregates, quotes by the snapshot of many tickers.

Prices are asked as traded (``adjusted=false``), so that a later split changes no stored bar.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit
from zoneinfo import ZoneInfo

import orjson

from core.clock import Clock
from core.errors import (
    AuthRejectedError,
    BadRequestError,
    MalformedPayloadError,
    NotEntitledError,
    ProviderError,
    ProviderUnavailableError,
    RateLimitedError,
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
    Spec,
    check_request,
    chunks,
    limits_from,
    one_each,
    retry_after_s,
)
from providers.polygon.replies import bar_page, quote_page, subject
from providers.wire import Wire

_BATCH = 100
"""Tickers of one snapshot: 100 of 10 letters keep the URL below 1,500 characters."""
_ROWS = 50_000
"""Rows of one page at most; 30 days around the clock are 43,200 minutes."""
_SPAN_1M, _SPAN_1D = timedelta(days=30), timedelta(days=365 * 20)
_TIMESPAN = {Capability.BARS_1M: "minute", Capability.BARS_EOD: "day"}
_SNAPSHOT = "/v2/snapshot/locale/us/markets/stocks/tickers"
_LATE_PRINTS = timedelta(minutes=15)
"""A minute bar is made again when trades reported late come in, for so long after its end."""
_DELAY_MARGIN = timedelta(seconds=5)
_EVENING = timedelta(hours=4)
"""From the close to the end of extended hours, whose volume a daily bar includes."""
_NEW_YORK = ZoneInfo("America/New_York")
_QUOTE_TIMEOUT_S, _BARS_TIMEOUT_S = 3.0, 10.0
_GOOD = frozenset({"OK", "DELAYED"})
_THROTTLED = re.compile("maximum requests|too many requests", re.IGNORECASE)
_NO_KEY = re.compile("api ?key", re.IGNORECASE)
_TIMEFRAME = "timeframe"


@dataclass(frozen=True, slots=True)
class _Plan:
    lookback: timedelta | None
    delay: timedelta
    """How late the feed shows what happened."""
    today: bool
    """Whether the current day in New York can be asked for."""
    quotes: bool


_YEAR = timedelta(days=365)
_PLANS: Mapping[str, _Plan] = {
    "basic": _Plan(2 * _YEAR, timedelta(0), today=False, quotes=False),
    "starter": _Plan(5 * _YEAR, timedelta(minutes=15), today=True, quotes=False),
    "developer": _Plan(10 * _YEAR, timedelta(minutes=15), today=True, quotes=False),
    "advanced": _Plan(None, timedelta(0), today=True, quotes=True),
}


def build(settings: Settings, clock: Clock) -> "Polygon":
    """The provider as the settings describe it.

    Raises:
        NotConfigured: there is no key, or the base URL is none.
    """
    key = settings.polygon_api_key or settings.massive_api_key
    if key is None:
        raise NotConfigured(
            "POLYGON_API_KEY is not set, nor MASSIVE_API_KEY; a free key of massive.com has bars up to "
            "yesterday"
        )
    base_url = settings.polygon_base_url.rstrip("/")
    parts = urlsplit(base_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise NotConfigured(
            f"POLYGON_BASE_URL is {mask(base_url)!r}; expected a URL such as https://api.massive.com"
        )
    return Polygon(
        clock,
        key=key.get_secret_value(),
        base_url=base_url,
        plan=settings.polygon_plan,
        limits=limits_from(settings.polygon_limits, "key"),
    )


class Polygon:
    """One key and one feed, the consolidated tape, so the source is the provider."""

    name = "polygon"

    def __init__(
        self, clock: Clock, *, key: str, base_url: str, plan: str, limits: tuple[Limit, ...]
    ) -> None:
        """Args: plan: a key of ``POLYGON_PLAN``'s words."""
        self._clock = clock
        self._key = key
        self._base_url = base_url
        self._plan = _PLANS[plan]
        self._plan_name = plan
        self._limits = limits
        self._wire = Wire(
            direct=base_url.startswith("http://"), headers={"Authorization": f"Bearer {key}"}
        )
        offered = [Capability.BARS_1M, Capability.BARS_EOD]
        if self._plan.quotes:
            offered.append(Capability.QUOTES_L1)
        self._specs = {c: _spec(c, self._plan, one_each(limits)) for c in offered}

    def limits(self) -> tuple[Limit, ...]:
        """What the plan allows (``POLYGON_LIMITS``), per key."""
        return self._limits

    def specs(self) -> Mapping[Capability, Spec]:
        return self._specs

    def plan(self, request: Request) -> list[Call]:
        """See ``Provider.plan``."""
        if request.capability is Capability.QUOTES_L1 and not self._plan.quotes:
            raise NotEntitledError(
                f"polygon serves quotes_l1 to the plan advanced only, POLYGON_PLAN is "
                f"{self._plan_name}; name another provider in the policy"
            )
        now = self._clock.now()
        spec = check_request(self.name, self._specs, request, now)
        if request.window is None:
            return [
                Call(self.name, request.capability, "snapshot", part, None, _tickers(part))
                for part in chunks(request.symbols, spec.batch)
            ]
        self._check_reach(request.window, now)
        params = {"adjusted": "false", "sort": "asc", "limit": str(_ROWS)}
        return [
            Call(self.name, request.capability, "aggs", (symbol,), window, params)
            for window in request.window.chunks(spec.span)
            for (symbol,) in chunks(request.symbols, 1)
        ]

    def send(self, call: Call, timeout_s: float) -> Raw:
        """See ``Provider.send``."""
        url = f"{self._base_url}{_path(call)}?{urlencode(call.params)}"
        raw = self._wire.get(url, timeout_s)
        if raw.status != 200:
            raise self._refusal(call, raw)
        return raw

    def parse(self, call: Call, raw: Raw, sessions: Calendar | None) -> Page:
        """See ``Provider.parse``."""
        try:
            document: object = orjson.loads(raw.body)
        except orjson.JSONDecodeError as error:
            raise MalformedPayloadError(
                f"{subject(call)}: the reply of {len(raw.body)} bytes is not JSON: {error}"
            ) from error
        if not isinstance(document, dict):
            kind = type(document).__name__
            raise MalformedPayloadError(f"{subject(call)}: the reply is {kind}, not an object")
        fields = cast("dict[str, Any]", document)
        if fields.get("status") not in _GOOD:
            raise self._refusal(call, raw)
        if call.window is None:
            return quote_page(call, fields)
        return bar_page(call, call.window, fields, sessions)

    def close_rested(self) -> None:
        self._wire.close_rested()

    def close(self) -> None:
        self._wire.close()

    def _check_reach(self, window: Window, now: datetime) -> None:
        """Refuse what the plan does not show yet: its last rows would look closed and be running.

        Raises:
            BadRequestError: the window reaches beyond what the plan shows now.
        """
        if not self._plan.today:
            today = now.astimezone(_NEW_YORK).date()
            until = datetime(today.year, today.month, today.day, tzinfo=_NEW_YORK).astimezone(UTC)
        elif self._plan.delay:
            until = now - self._plan.delay - _DELAY_MARGIN
        else:
            return
        if window.end > until:
            raise BadRequestError(
                f"polygon's plan {self._plan_name} shows bars up to {until:%Y-%m-%dT%H:%M:%SZ} now, "
                f"{window} reaches beyond; with a better plan set POLYGON_PLAN, else ask later or name "
                "another provider"
            )

    def _refusal(self, call: Call, raw: Raw) -> ProviderError:
        """What a status and the vendor's words mean; the words decide where the status is odd."""
        text = self._plain(raw.body[:300].decode("utf-8", "replace"))
        message = f"{subject(call)}: Polygon answered {raw.status}, {text}"
        if raw.status == 429 or (raw.status == 200 and _THROTTLED.search(text)):
            wait_s = retry_after_s(raw.headers, self._clock.now())
            return RateLimitedError(message, retry_after_s=wait_s)
        if "NOT_AUTHORIZED" in text:
            # The same word stands for a window that the plan does not reach and for what it lacks.
            if _TIMEFRAME in text:
                return BadRequestError(f"{message}; check POLYGON_PLAN")
            return NotEntitledError(f"{message}; check POLYGON_PLAN")
        if raw.status in {401, 403} or (raw.status == 200 and _NO_KEY.search(text)):
            return AuthRejectedError(f"{message}; check POLYGON_API_KEY")
        if raw.status == 200:
            return MalformedPayloadError(message)
        if raw.status == 400:
            return BadRequestError(message)
        # An unknown ticker is no 404 here: the base URL leads elsewhere.
        hint = "; check POLYGON_BASE_URL" if raw.status < 500 else ""
        return ProviderUnavailableError(message + hint, status=raw.status)

    def _plain(self, text: str) -> str:
        return mask(" ".join(text.split())).replace(self._key, "***")


def _spec(capability: Capability, plan: _Plan, cost: Mapping[str, int]) -> Spec:
    daily, quotes = capability is Capability.BARS_EOD, capability is Capability.QUOTES_L1
    return Spec(
        capability,
        batch=_BATCH if quotes else 1,
        span=_SPAN_1D if daily else _SPAN_1M,
        lookback=plan.lookback,
        settle=plan.delay + _LATE_PRINTS + (_EVENING if daily else timedelta(0)),
        cost=cost,
        partial="last_row",
        adjustment="raw",
        pad=timedelta(0),
        timeout_s=_QUOTE_TIMEOUT_S if quotes else _BARS_TIMEOUT_S,
    )


def _tickers(symbols: tuple[str, ...]) -> dict[str, str]:
    return {"tickers": ",".join(symbols)}


def _path(call: Call) -> str:
    """Path of a call; both ends of a range are included, and ours is open."""
    if call.window is None:
        return _SNAPSHOT
    last = call.window.end - timedelta(milliseconds=1)
    if call.capability is Capability.BARS_EOD:
        # A daily bar is stamped with New York's midnight, of the same date as its open.
        start, end = f"{call.window.start:%Y-%m-%d}", f"{last:%Y-%m-%d}"
    else:
        start, end = str(_milliseconds(call.window.start)), str(_milliseconds(last))
    ticker, timespan = quote(call.symbols[0], safe=""), _TIMESPAN[call.capability]
    return f"/v2/aggs/ticker/{ticker}/range/1/{timespan}/{start}/{end}"


def _milliseconds(ts: datetime) -> int:
    return int(ts.timestamp() * 1000)
