"""From Alpaca's JSON documents to bars and quotes, pure."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any, cast
from zoneinfo import ZoneInfo

import orjson

from core.bars import Bar, Quote
from core.errors import (
    BadDataError,
    MalformedPayloadError,
    ProviderError,
    SymbolNotFoundError,
)
from core.sessions import Calendar
from core.windows import Window
from core.words import Capability
from providers.base import Call, Page, Raw
from providers.rows import DailyRow, Reject, Row, daily_bars, minute_bars

NEW_YORK = ZoneInfo("America/New_York")
STEP = {Capability.BARS_1M: timedelta(minutes=1), Capability.BARS_EOD: timedelta(days=1)}
"""From one bar's stamp to the next one's."""
_BAR_FIELDS = ("o", "h", "l", "c", "v", "vw", "n")


def opened(call: Call, raw: Raw) -> dict[str, Any]:
    """The object of a reply.

    Raises:
        MalformedPayloadError: it is not JSON, or no object.
    """
    try:
        document: object = orjson.loads(raw.body)
    except orjson.JSONDecodeError as error:
        raise MalformedPayloadError(
            f"{subject(call)}: the reply of {len(raw.body)} bytes is not JSON: {error}"
        ) from error
    return _mapping(call, "the reply", document)


def read(call: Call, fields: Mapping[str, Any], sessions: Calendar | None) -> Page:
    """The bars or quotes of a reply that is no refusal.

    Raises:
        MalformedPayloadError: it is not what the protocol says.
    """
    key = "bars" if call.window else "quotes"
    if key not in fields:
        raise MalformedPayloadError(f"{subject(call)}: the reply lacks {key}")
    # Where no symbol has anything, null comes as well as {}.
    found = {} if fields[key] is None else _mapping(call, key, fields[key])
    if call.window is None:
        return _quote_page(call, found)
    return _bar_page(call, call.window, found, fields.get("next_page_token"), sessions)


def subject(call: Call) -> str:
    """What was asked, short."""
    others = len(call.symbols) - 1
    more = f" and {others} more" if others else ""
    window = f" {call.window}" if call.window else ""
    return f"{call.source} {call.endpoint} {call.symbols[0]}{more}{window}"


def _mapping(call: Call, what: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise MalformedPayloadError(f"{subject(call)}: {what} is {kind}, not an object")
    return cast("dict[str, Any]", value)


def _bar_page(
    call: Call,
    window: Window,
    found: Mapping[str, Any],
    token: object,
    sessions: Calendar | None,
) -> Page:
    bars: dict[str, Sequence[Bar]] = {}
    rejects: list[Reject] = []
    last: dict[str, datetime] = {}
    for symbol in call.symbols:
        # Without a trade in the window the symbol is left out: an answer, as an unknown one's is.
        rows: object = found.get(symbol, [])
        if not isinstance(rows, list):
            raise MalformedPayloadError(f"{subject(call)}: bars of {symbol} are no list")
        shown = [_row(call, row) for row in cast("list[object]", rows)]
        if shown:
            last[symbol] = shown[-1][0]
        if call.capability is Capability.BARS_1M:
            minutes: list[Row] = [(int(at.timestamp()), *cells) for at, cells in shown]
            bars[symbol], bad = minute_bars(symbol, minutes, window, sessions)
        else:
            days: list[DailyRow] = [(at.astimezone(NEW_YORK).date(), *cells) for at, cells in shown]
            bars[symbol], bad = daily_bars(symbol, days, window, sessions)
        rejects += bad
    return Page(bars=bars, rejects=rejects, rest=_rest(call, window, last) if token else {})


def _rest(call: Call, window: Window, last: Mapping[str, datetime]) -> dict[str, Window]:
    """What a page that says that there is another one leaves out.

    Pages run through the symbols by the alphabet, each from its oldest bar on. So the last symbol of
    a page goes on after its last bar; who is not on the page may be on the next one.
    """
    if not last:
        raise MalformedPayloadError(f"{subject(call)}: an empty page says that another follows")
    broken = max(last)
    rest = {symbol: window for symbol in call.symbols if symbol not in last}
    after = last[broken] + STEP[call.capability]
    if after < window.end:
        rest[broken] = Window(max(after, window.start), window.end)
    return rest


def _row(call: Call, row: object) -> tuple[datetime, list[object]]:
    fields = _mapping(call, "a bar", row)
    at = _instant(fields.get("t"))
    if at is None:
        raise MalformedPayloadError(
            f"{subject(call)}: a bar's time is {fields.get('t')!r}; expected RFC 3339 in UTC"
        )
    return at, [fields.get(name) for name in _BAR_FIELDS]


def _quote_page(call: Call, found: Mapping[str, Any]) -> Page:
    quotes: dict[str, Quote] = {}
    problems: dict[str, ProviderError] = {}
    for symbol in call.symbols:
        if found.get(symbol) is None:
            problems[symbol] = SymbolNotFoundError(f"{call.source} has no quote of {symbol}")
            continue
        fields = _mapping(call, f"the quote of {symbol}", found[symbol])
        at = _instant(fields.get("t"))
        if at is None:
            raise MalformedPayloadError(f"{subject(call)}: {symbol}'s time is {fields.get('t')!r}")
        try:
            bid, ask = _price(fields.get("bp")), _price(fields.get("ap"))
        except ValueError as error:
            problems[symbol] = BadDataError(f"{call.source}'s quote of {symbol}: {error}")
            continue
        # A side without an order is shown as price 0 and size 0: nobody bids, which is no price.
        quotes[symbol] = Quote(
            at,
            bid=bid,
            ask=ask,
            bid_size=_size(fields.get("bs")) if bid else None,
            ask_size=_size(fields.get("as")) if ask else None,
        )
    return Page(quotes=quotes, problems=problems)


def _price(value: object) -> float | None:
    if value is None or (type(value) in {int, float} and value == 0):
        return None
    number = float(cast("float", value)) if type(value) in {int, float} else -1.0
    if not (isfinite(number) and number > 0):
        raise ValueError(f"{value!r} is no price")
    return number


def _size(value: object) -> float | None:
    return float(cast("float", value)) if type(value) in {int, float} else None


def _instant(text: object) -> datetime | None:
    """RFC 3339 with up to nine decimals; what is below the microsecond is cut off."""
    try:
        at = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return at.astimezone(UTC) if at and at.tzinfo else None
