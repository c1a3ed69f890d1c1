"""From a vendor's rows to our bars: what every adapter does alike, pure.

Nothing is repaired or filled. A row without prices is an absent bar; a row that can't be a bar is
reported; a row outside the window or outside trading hours is not ours.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import TypeVar

from core.bars import Bar
from core.errors import BadRequestError, UsageError
from core.sessions import Calendar
from core.windows import Window, merge

Row = tuple[int, object, object, object, object, object]
"""Epoch seconds of the start, open, high, low, close, volume: whatever the payload holds."""
DailyRow = tuple[date, object, object, object, object, object]
"""Session date by the vendor's word, open, high, low, close, volume."""
Reject = tuple[str, datetime, str]
"""Symbol, ts, reason."""

_MINUTE_S = 60


def minute_bars(
    symbol: str,
    rows: Iterable[Row],
    window: Window,
    sessions: Calendar | None,
    places: Mapping[int, str] | None = None,
) -> tuple[list[Bar], list[Reject]]:
    """One-minute bars inside the window and inside trading hours, ascending and unique.

    Rows off the minute (a live tick) and rows outside trading hours (a closing row stamped with the
    close, extended hours) are dropped. Where a minute comes twice, the later row wins.

    Args:
        symbol: Ours, for the rejects.
        rows: In the reply's order.
        window: The call's; bars start inside it.
        sessions: The exchange's calendar; None, or a date that it does not reach, keeps all hours.
        places: Where a start was written, such as file and line, for the rejects.

    Returns:
        Bars, and rows that can't be a bar.
    """
    bars: dict[int, Bar] = {}
    rejects: list[Reject] = []
    hours = _hours(sessions, window)
    for start, *cells in rows:
        if start % _MINUTE_S or not any(opens <= start < closes for opens, closes in hours):
            continue
        ts = datetime.fromtimestamp(start, UTC)
        bar = _bar(ts, cells, None)
        if isinstance(bar, Bar):
            bars[start] = bar
        elif bar is not None:
            rejects.append((symbol, ts, _placed(bar, start, places)))
    return [bars[start] for start in sorted(bars)], rejects


def daily_bars(
    symbol: str,
    rows: Iterable[DailyRow],
    window: Window,
    sessions: Calendar | None,
    places: Mapping[date, str] | None = None,
) -> tuple[list[Bar], list[Reject]]:
    """Daily bars of the sessions that open inside the window, labelled by that open.

    Arguments and result as for ``minute_bars``. A row for a day without a session is a reject.

    Raises:
        BadRequestError: no calendar was given, without which a date can't be labelled.
    """
    if sessions is None:
        raise BadRequestError(
            f"daily bars of {symbol} can't be labelled without the exchange's calendar; pass one"
        )
    bars: dict[date, Bar] = {}
    rejects: list[Reject] = []
    for label, *cells in rows:
        try:
            session = sessions.session(label)
        except UsageError as closed:
            midnight = datetime.combine(label, time(), UTC)
            if window.contains(midnight) and any(cell is not None for cell in cells[:4]):
                rejects.append((symbol, midnight, _placed(str(closed), label, places)))
            continue
        if not window.contains(session.open):
            continue
        bar = _bar(session.open, cells, label)
        if isinstance(bar, Bar):
            bars[label] = bar
        elif bar is not None:
            rejects.append((symbol, session.open, _placed(bar, label, places)))
    return [bars[label] for label in sorted(bars)], rejects


_Key = TypeVar("_Key", int, date)


def _placed(reason: str, key: _Key, places: Mapping[_Key, str] | None) -> str:
    place = places.get(key) if places else None
    return f"{place}: {reason}" if place else reason


def _hours(sessions: Calendar | None, window: Window) -> list[tuple[float, float]]:
    """Epoch pairs ``[open, close)`` of what is collected in the window.

    Beyond the dates that a calendar knows nothing is refused.
    """
    if sessions is None:
        kept = [window]
    else:
        known = Window(
            datetime.combine(sessions.known_from, time(), UTC) - timedelta(days=1),
            datetime.combine(sessions.known_until, time(), UTC) + timedelta(days=2),
        )
        unknown: list[Window] = []
        if window.start < known.start:
            unknown.append(Window(window.start, min(window.end, known.start)))
        if window.end > known.end:
            unknown.append(Window(max(window.start, known.end), window.end))
        kept = merge([*sessions.trading(window), *unknown])
    return [(part.start.timestamp(), part.end.timestamp()) for part in kept]


def _bar(ts: datetime, cells: list[object], session: date | None) -> Bar | str | None:
    """The bar, why the row can't be one, or None for a row without prices."""
    if all(cell is None for cell in cells[:4]):
        return None
    numbers: list[float] = []
    for name, cell in zip(("open", "high", "low", "close"), cells, strict=False):
        number = _number(cell)
        if number is None:
            return f"{name} is {cell!r}; expected a number"
        numbers.append(number)
    volume = _number(cells[4])
    if volume is None and cells[4] is not None:
        return f"volume is {cells[4]!r}; expected a number or null"
    bar = Bar(ts, numbers[0], numbers[1], numbers[2], numbers[3], volume, session=session)
    return bar.problem() or bar


def _number(cell: object) -> float | None:
    # bool is an int to isinstance, and no price.
    return float(cell) if type(cell) is float or type(cell) is int else None
