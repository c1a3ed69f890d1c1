"""The contract of a provider: facts, a pure plan, one call on the wire, a pure parse.

``plan`` cuts a request into calls, ``send`` does the only I/O, ``parse`` turns the reply into bars
or quotes. Nothing here retries, waits or knows a budget: each call that leaves was planned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Literal, Protocol

from core.bars import Bar, Quote
from core.errors import BadRequestError, ProviderError, SettingsError
from core.sessions import Calendar
from core.settings import parse_limits
from core.windows import Window
from core.words import Capability

_MINUTE_S = 60.0


class NotConfigured(SettingsError):  # noqa: N818 - a state that the operator mends, told as a reason
    """The provider can't be built as it is set; ``reason`` names the setting that mends it."""

    code = "not_configured"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class SessionNotReadyError(ProviderError):
    """The provider's session is being made or renewed on our side; ask again shortly."""

    retryable = True
    counts_against_health = False
    code = "session"


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``units`` in any rolling window of ``window_s`` market seconds."""

    name: str
    """Unique within the provider; the key in ``Spec.cost``."""
    units: int
    """Units that the provider grants per window, above 0."""
    window_s: float
    """Length of the rolling window in market seconds."""
    scope: Literal["key", "ip"]
    """What the provider counts by: our API key or our address."""


@dataclass(frozen=True, slots=True)
class Spec:
    """Facts of one capability of one provider, as its plan allows them."""

    capability: Capability
    batch: int
    """Symbols per call, at least 1."""
    span: timedelta
    """Longest window of one call; meaningless for quotes."""
    lookback: timedelta | None
    """How far before now a window may start, None when the provider sets no bound."""
    settle: timedelta
    """How long after bar_end a bar may still change."""
    cost: Mapping[str, int]
    """Limit name -> units that one call takes."""
    partial: Literal["never", "last_row", "unaligned_row"]
    """How the bar still forming shows: not at all, as the last row, or as a row off the minute."""
    adjustment: Literal["raw", "split", "split_div"]
    """What the prices are adjusted for; sources of different adjustment are never compared."""
    pad: timedelta
    """Asked before the window and dropped by ``parse``, because the first row can't be trusted."""
    timeout_s: float
    """Real seconds within which a complete reply is expected."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a worker wants: symbols of one capability, over a window for bars."""

    capability: Capability
    symbols: tuple[str, ...]
    window: Window | None
    """None for quotes."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request on the wire, fully described; costs what the capability's ``Spec`` says."""

    source: str
    """Name under which the bars are stored."""
    capability: Capability
    endpoint: str
    """Short constant word for metrics and evidence, such as ``chart``; never holds a symbol."""
    symbols: tuple[str, ...]
    window: Window | None
    """The window that the reply answers, without the pad; None for quotes."""
    params: Mapping[str, str]
    """Query parameters, without keys, crumbs or other secrets."""


@dataclass(frozen=True, slots=True)
class Raw:
    """The reply as it came: what ``parse`` reads and ``provider_payloads`` keeps."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    """Names in lower case."""


@dataclass(frozen=True, slots=True)
class Page:
    """What a reply says. Every symbol of the call is a key of bars or quotes, or of problems."""

    bars: Mapping[str, Sequence[Bar]] = field(default_factory=dict[str, Sequence[Bar]])
    """Ascending, unique, inside the call's window; an empty sequence is an answer: no bars."""
    quotes: Mapping[str, Quote] = field(default_factory=dict[str, Quote])
    problems: Mapping[str, ProviderError] = field(default_factory=dict[str, ProviderError])
    """Symbols that this reply does not answer, and why."""
    rejects: Sequence[tuple[str, datetime, str]] = ()
    """Symbol, ts, reason: rows inside the window that can't be a bar."""
    rest: Mapping[str, Window] = field(default_factory=dict[str, Window])
    """Where a reply broke off because the vendor had more: the end of the call's window that it does
    not answer, by symbol. Bars lie before it; the caller asks for it anew, as another call."""


class Provider(Protocol):
    """One vendor's feed. Thread-safe; one instance serves a whole process."""

    @property
    def name(self) -> str:
        """The provider's name, which is the source's where it has one feed."""
        ...

    def limits(self) -> tuple[Limit, ...]:
        """Every limit that the provider enforces on us."""
        ...

    def specs(self) -> Mapping[Capability, Spec]:
        """What can be asked, as configured and as the plan allows."""
        ...

    def plan(self, request: Request) -> list[Call]:
        """Cut a request into calls by batch and span, oldest window first; no I/O.

        Raises:
            BadRequestError: no call can answer it; the message says what can be asked instead.
            NotEntitledError: the plan of this key does not include the capability.
        """
        ...

    def send(self, call: Call, timeout_s: float) -> Raw:
        """Put one request on the wire and return the complete reply; never repeats it.

        Args:
            call: One of ``plan``'s.
            timeout_s: Real seconds until the call is given up, reply included.

        Raises:
            ProviderError: the family of core.errors; statuses are mapped here.
        """
        ...

    def parse(self, call: Call, raw: Raw, sessions: Calendar | None) -> Page:
        """Read a reply; pure, so a stored payload parses the same for ever.

        Bars lie inside ``call.window``, are aligned to the minute, labelled by start, ascending and
        unique. ``Bar.partial`` is left to the worker, who knows when the call was sent. Where the
        vendor's page ends early, bars lie before ``Page.rest``, whose start is after the call's.

        Args:
            call: The call that was sent.
            raw: Its reply.
            sessions: The exchange's calendar, which labels daily bars; None for quotes.

        Raises:
            ProviderError: the reply as a whole is no answer.
        """
        ...

    def close_rested(self) -> None:
        """Close connections that nobody used for a while; called now and then, whatever goes on."""
        ...

    def close(self) -> None:
        """Release connections; the provider is not used afterwards."""
        ...


def limits_from(text: str, scope: Literal["key", "ip"]) -> tuple[Limit, ...]:
    """Limits as the settings write them (``60/60s,30/1s``), named by window (``60s``, ``1s``).

    Two limits over the same window are one: the tighter.
    """
    tightest: dict[float, int] = {}
    for units, window_s in parse_limits(text):
        tightest[window_s] = min(units, tightest.get(window_s, units))
    return tuple(
        Limit(name=f"{window_s:g}s", units=units, window_s=window_s, scope=scope)
        for window_s, units in tightest.items()
    )


def one_each(limits: Sequence[Limit]) -> dict[str, int]:
    """The cost vector of a call that takes one unit of every limit."""
    return {limit.name: 1 for limit in limits}


def check_request(
    source: str, specs: Mapping[Capability, Spec], request: Request, now: datetime
) -> Spec:
    """The spec that answers a request, once the request makes sense.

    Raises:
        BadRequestError: no symbols, an unsupported capability, a window that is absent,
            superfluous, in the future or older than the look-back.
    """
    spec = specs.get(request.capability)
    if spec is None:
        offered = ", ".join(sorted(specs)) or "nothing"
        raise BadRequestError(
            f"{source} does not serve {request.capability}; it serves {offered}: "
            "name another provider in the policy"
        )
    if not request.symbols:
        raise BadRequestError(f"{source} was asked for {request.capability} of no symbol; name one")
    if request.capability.interval is None:
        if request.window is not None:
            raise BadRequestError(
                f"{source} was asked for {request.capability} over {request.window}; "
                "quotes are of now and take no window"
            )
        return spec
    window = request.window
    if window is None:
        raise BadRequestError(
            f"{source} was asked for {request.capability} without a window; give one"
        )
    if window.start >= now:
        raise BadRequestError(
            f"{source} was asked for {request.capability} over {window}, which lies in the future; "
            f"it is {now:%Y-%m-%dT%H:%M:%SZ} now"
        )
    if spec.lookback is not None and window.start < now - spec.lookback:
        raise BadRequestError(
            f"{source} serves {request.capability} for the last {spec.lookback.days} days, "
            f"{window} starts earlier; ask from {now - spec.lookback:%Y-%m-%dT%H:%M:%SZ} on "
            "or name another provider"
        )
    return spec


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Market seconds that a ``Retry-After`` header asks for (seconds or a date), None without one.

    Args:
        headers: Names in lower case.
        now: Market time, from which a date is counted.
    """
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (moment - now).total_seconds() if moment.tzinfo else 0.0
    return max(seconds, 0.0) if isfinite(seconds) else None


def quota_used(headers: Mapping[str, str], limits: Sequence[Limit]) -> dict[str, int]:
    """Limit -> units used, as far as a reply's quota headers say.

    ``X-RateLimit-Limit`` and ``-Remaining`` speak of the limit with that many units, else of the
    longest up to a minute; ``X-MBX-USED-WEIGHT-1M`` of the one over a minute.

    Args:
        headers: Names in lower case.
        limits: The provider's.
    """
    used: dict[str, int] = {}
    if "x-ratelimit-limit" not in headers and "x-mbx-used-weight-1m" not in headers:
        return used
    most, left = (headers.get(f"x-ratelimit-{name}", "") for name in ("limit", "remaining"))
    if most.isdigit() and left.isdigit():
        meant = [limit for limit in limits if limit.units == int(most)] or sorted(
            (limit for limit in limits if limit.window_s <= _MINUTE_S),
            key=lambda limit: -limit.window_s,
        )
        if meant:
            used[meant[0].name] = max(0, int(most) - int(left))
    weight = headers.get("x-mbx-used-weight-1m", "")
    if weight.isdigit():
        used |= {limit.name: int(weight) for limit in limits if limit.window_s == _MINUTE_S}
    return used


def chunks(symbols: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """Distinct symbols in their order, ``size`` at a time."""
    distinct = list(dict.fromkeys(symbols))
    return [tuple(distinct[at : at + size]) for at in range(0, len(distinct), size)]
