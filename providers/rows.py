"""From a vendor's rows to our bars: what every adapter does alike, pure.

Nothing is repaired or filled. A row without prices is an absent bar; a row that can't be a bar is
reported; a row outside the window or outside trading hours is not ours.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import TypeVar, cast

from core.bars import Bar
from core.errors import BadRequestError, UsageError
from core.sessions import Calendar
from core.windows import Window, merge, subtract

Row = tuple[int, *tuple[object, ...]]
"""Epoch seconds of the start, open, high, low, close, volume: whatever the payload holds.

Where the vendor has them, volume-weighted price and number of trades follow.
"""
DailyRow = tuple[date, *tuple[object, ...]]
"""Session date by the vendor's word, then the same."""
Reject = tuple[str, datetime, str]
"""Symbol, ts, reason."""

_MINUTE_S = 60
_PRICES = ("open", "high", "low", "close")


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
    edges = _edges(sessions, window)
    for start, *cells in rows:
        # Between an open and its close an odd number of edges has passed.
        if start % _MINUTE_S or not bisect_right(edges, start) & 1:
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


def _edges(sessions: Calendar | None, window: Window) -> list[float]:
    """Epoch seconds of each open and its close, in turn, of what is collected in the window.

    Beyond the dates that a calendar knows nothing is refused.
    """
    if sessions is None:
        kept = [window]
    else:
        known = Window(
            datetime.combine(sessions.known_from, time(), UTC) - timedelta(days=1),
            datetime.combine(sessions.known_until, time(), UTC) + timedelta(days=2),
        )
        kept = merge([*sessions.trading(window), *subtract([window], [known])])
    return [edge.timestamp() for part in kept for edge in (part.start, part.end)]


def _bar(ts: datetime, cells: list[object], session: date | None) -> Bar | str | None:
    """The bar, why the row can't be one, or None for a row without prices."""
    first, high, low, last, volume, *more = cells
    if first is None and high is None and low is None and last is None:
        return None
    prices = (_number(first), _number(high), _number(low), _number(last))
    for name, price, cell in zip(_PRICES, prices, cells, strict=False):
        if price is None:
            return f"{name} is {cell!r}; expected a number"
    amount = _number(volume)
    if amount is None and volume is not None:
        return f"volume is {volume!r}; expected a number or null"
    vwap, trades = more or (None, None)
    bar = Bar(
        ts,
        *cast("tuple[float, float, float, float]", prices),
        amount,
        _number(vwap),
        trades if type(trades) is int else None,
        session=session,
    )
    return bar.problem() or bar


def _number(cell: object) -> float | None:
    # bool is an int to isinstance, and no price. A float is by far the most frequent.
    kind = type(cell)
    if kind is float:
        return cast("float", cell)
    return float(cast("int", cell)) if kind is int else None
