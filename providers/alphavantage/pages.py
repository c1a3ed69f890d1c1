"""From Alpha Vantage's JSON documents to bars and quotes, pure.

Names are numbered (``1. open``), numbers are text, rows come newest first, and stamps are local time
of a zone that stands beside them.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from math import isfinite
from typing import Any, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import orjson

from core.bars import Quote
from core.errors import BadDataError, MalformedPayloadError, SymbolNotFoundError
from core.sessions import Calendar
from core.windows import Window
from core.words import Capability
from providers.base import Call, Page, Raw
from providers.rows import DailyRow, Row, daily_bars, minute_bars

FUNCTIONS = {
    Capability.BARS_1M: "TIME_SERIES_INTRADAY",
    Capability.BARS_EOD: "TIME_SERIES_DAILY",
    Capability.QUOTES_L1: "GLOBAL_QUOTE",
}
_BAR_FIELDS = ("1. open", "2. high", "3. low", "4. close", "5. volume")
_DAY = timedelta(days=1)
_MINUTE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


def subject(call: Call) -> str:
    """What was asked, short."""
    window = f" {call.window}" if call.window else ""
    return f"{call.source} {call.endpoint} {call.symbols[0]}{window}"


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
    """The bars or the quote of a reply that is no refusal.

    Raises:
        MalformedPayloadError: it is not what the protocol says.
    """
    if call.window is None:
        return _quote_page(call, _mapping(call, "Global Quote", fields.get("Global Quote")))
    symbol, window = call.symbols[0], call.window
    name = next((name for name in fields if name.startswith("Time Series")), "Time Series")
    series = _mapping(call, name, fields.get(name))
    if call.capability is Capability.BARS_EOD:
        days = _days(call, series, window)
        bars, rejects = daily_bars(symbol, days, window, sessions)
    else:
        zone = _zone(call, _mapping(call, "Meta Data", fields.get("Meta Data")))
        bars, rejects = minute_bars(symbol, _minutes(call, series, window, zone), window, sessions)
    return Page(bars={symbol: bars}, rejects=rejects)


def _minutes(
    call: Call, series: Mapping[str, Any], window: Window, zone: ZoneInfo
) -> Iterator[Row]:
    # A reply holds up to a month: local times compare as text, the few in the window are read.
    first, last = (
        f"{instant.astimezone(zone):%Y-%m-%d %H:%M:%S}" for instant in (window.start, window.end)
    )
    for label, row in series.items():
        if _MINUTE.fullmatch(label) is None:
            raise MalformedPayloadError(
                f"{subject(call)}: a row is stamped {label!r}; expected YYYY-MM-DD HH:MM:SS"
            )
        if first <= label <= last:
            yield int(_local(call, label).replace(tzinfo=zone).timestamp()), *_cells(call, row)


def _days(call: Call, series: Mapping[str, Any], window: Window) -> Iterator[DailyRow]:
    first, last = (window.start - _DAY).date(), (window.end + _DAY).date()
    for label, row in series.items():
        day = _local(call, label).date()
        if first <= day <= last:
            yield day, *_cells(call, row)


def _local(call: Call, label: str) -> datetime:
    try:
        return datetime.fromisoformat(label)
    except ValueError as error:
        raise MalformedPayloadError(
            f"{subject(call)}: a row is stamped {label!r}; expected a date or a local time"
        ) from error


def _cells(call: Call, row: object) -> list[object]:
    fields = _mapping(call, "a row", row)
    return [_number(fields.get(name)) for name in _BAR_FIELDS]


def _number(text: object) -> object:
    """The number that a text says; anything else as it came, to be reported with its row."""
    if not isinstance(text, str):
        return text
    try:
        return float(text)
    except ValueError:
        return text


def _zone(call: Call, meta: Mapping[str, Any]) -> ZoneInfo:
    # Its number differs by function.
    name = next((value for name, value in meta.items() if name.endswith("Time Zone")), None)
    try:
        return ZoneInfo(str(name))
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise MalformedPayloadError(f"{subject(call)}: {name!r} is no time zone") from error


def _quote_page(call: Call, fields: Mapping[str, Any]) -> Page:
    symbol = call.symbols[0]
    if not fields:
        # An unknown symbol is answered with an empty quote.
        problem = SymbolNotFoundError(f"{call.source} has no quote of {symbol}")
        return Page(problems={symbol: problem})
    said = {name.partition(". ")[2]: value for name, value in fields.items()}
    if "price" not in said or "latest trading day" not in said:
        raise MalformedPayloadError(f"{subject(call)}: the quote lacks price or latest trading day")
    price, label = _number(said["price"]), said["latest trading day"]
    try:
        day = date.fromisoformat(str(label))
    except ValueError as error:
        raise MalformedPayloadError(f"{subject(call)}: its day is {label!r}") from error
    if not isinstance(price, float) or not isfinite(price) or price <= 0:
        raise BadDataError(f"{subject(call)}: price {said['price']!r} on {label}")
    # The vendor says the day and no time: like daily data it is labelled by its beginning, which
    # claims nothing that is not known and never lies in the future.
    return Page(
        quotes={symbol: Quote(datetime(day.year, day.month, day.day, tzinfo=UTC), last=price)}
    )


def _mapping(call: Call, what: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise MalformedPayloadError(f"{subject(call)}: {what} is {kind}, not an object")
    return cast("dict[str, Any]", value)
