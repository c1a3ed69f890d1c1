"""Bars by Yahoo's chart v8: parameters of a call, and what a reply says.

Prices are adjusted for splits. Known tricks of the payload, each seen in recordings: null rows for
minutes without trades, a first row with a false zero volume, the minute still forming as a last
row and again as a live row stamped with the second of the last trade, a closing row stamped with
the close, and a ``gmtoffset`` of the time of asking instead of the bar's.
"""

from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from typing import Any, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from core.errors import BadDataError, MalformedPayloadError
from core.sessions import Calendar
from core.windows import Window
from core.words import Capability
from providers.base import Call, Page, Raw
from providers.rows import DailyRow, Row, daily_bars, minute_bars
from providers.yahoo.document import list_at, mapping_at, opened, subject
from providers.yahoo.refusals import is_no_data

PAD_1M = timedelta(minutes=1)
"""Takes the false zero volume upon itself."""
PAD_1D = timedelta(hours=12)
"""Daily rows are stamped with the open, today's with its last trade: both sides need room."""

_INTERVALS = {Capability.BARS_1M: "1m", Capability.BARS_EOD: "1d"}
_COLUMNS = ("open", "high", "low", "close", "volume")


def chart_params(capability: Capability, window: Window) -> dict[str, str]:
    """Query of a chart call over the window, pad included; times in epoch seconds, end open."""
    pad = PAD_1M if capability is Capability.BARS_1M else PAD_1D
    end = window.end if capability is Capability.BARS_1M else window.end + PAD_1D
    return {
        "period1": str(int((window.start - pad).timestamp())),
        "period2": str(int(end.timestamp())),
        "interval": _INTERVALS[capability],
        # Extended rows give the pad a row before the open; they are dropped with it.
        "includePrePost": "true" if capability is Capability.BARS_1M else "false",
    }


def parse_chart(call: Call, raw: Raw, sessions: Calendar | None) -> Page:
    """Bars of the one symbol of a chart call.

    Raises:
        MalformedPayloadError: the body is not a chart.
        BadDataError: it is the chart of another symbol or interval.
        RateLimitedError: it is a throttle text under a good status.
    """
    symbol, window = call.symbols[0], cast("Window", call.window)
    if is_no_data(raw):
        return Page(bars={symbol: ()})
    result = mapping_at(opened(call, raw), "chart", "result", 0)
    meta = mapping_at(result, "meta")
    if result is None or meta is None:
        raise MalformedPayloadError(f"{subject(call)}: the reply has no chart.result[0].meta")
    _check_meta(call, meta)
    rows = _rows(call, result)
    if call.capability is Capability.BARS_1M:
        bars, rejects = minute_bars(symbol, _without_false_zero(rows), window, sessions)
    else:
        zone = _zone(call, meta)
        daily = (_dated(row, zone) for row in rows)
        bars, rejects = daily_bars(symbol, daily, window, sessions)
    return Page(bars={symbol: bars}, rejects=rejects)


def _check_meta(call: Call, meta: dict[str, Any]) -> None:
    expected = {"symbol": call.symbols[0], "dataGranularity": _INTERVALS[call.capability]}
    for name, value in expected.items():
        stated = meta.get(name)
        if isinstance(stated, str) and stated.upper() != value.upper():
            raise BadDataError(
                f"{subject(call)}: the reply is for {name} {stated!r}, not {value!r}"
            )


def _rows(call: Call, result: dict[str, Any]) -> list[Row]:
    """Rows in the reply's order; an empty answer has no timestamps and an empty quote."""
    times = list_at(result, "timestamp") if "timestamp" in result else []
    quote = mapping_at(result, "indicators", "quote", 0)
    if times is None or quote is None or not all(type(time) is int for time in times):
        raise MalformedPayloadError(
            f"{subject(call)}: timestamp is no list of seconds, or indicators.quote[0] is missing"
        )
    columns: list[list[Any]] = []
    for name in _COLUMNS:
        column = list_at(quote, name) if times or name in quote else []
        if column is None or len(column) != len(times):
            raise MalformedPayloadError(
                f"{subject(call)}: column {name!r} does not match the {len(times)} timestamps"
            )
        columns.append(column)
    return list(zip(times, *columns, strict=True))


def _without_false_zero(rows: Iterable[Row]) -> Iterator[Row]:
    """The first row of a reply says volume 0 whatever was traded: unknown, not none."""
    for index, row in enumerate(rows):
        yield (row[0], *row[1:5], None) if index == 0 and row[5] == 0 else row


def _zone(call: Call, meta: dict[str, Any]) -> ZoneInfo:
    name = meta.get("exchangeTimezoneName")
    try:
        return ZoneInfo(str(name))
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise MalformedPayloadError(
            f"{subject(call)}: meta.exchangeTimezoneName is {name!r}, no time zone"
        ) from error


def _dated(row: Row, zone: ZoneInfo) -> DailyRow:
    label: date = datetime.fromtimestamp(row[0], zone).date()
    return (label, *row[1:])
