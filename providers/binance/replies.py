"""What Binance's replies say: bars of klines, quotes of book tickers; pure."""

from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any, cast

from core.bars import Quote
from core.errors import BadDataError, MalformedPayloadError, ProviderError, SymbolNotFoundError
from core.sessions import Calendar
from core.windows import Window
from core.words import Capability
from providers.base import Call, Page, Raw
from providers.rows import DailyRow, Row, daily_bars, minute_bars

_MICROSECONDS_FROM = 10**14
"""A stamp above is in microseconds: milliseconds reach it in the year 5138."""
_COLUMNS = 12


def subject(call: Call) -> str:
    """What a message is about."""
    return f"binance {call.endpoint} {call.symbols[0]}{f' {call.window}' if call.window else ''}"


def bar_page(call: Call, window: Window, rows: list[object], sessions: Calendar | None) -> Page:
    """Bars of a list of klines.

    Raises:
        MalformedPayloadError: a row is no kline.
    """
    symbol = call.symbols[0]
    cells = [cell for cell in (_cells(call, row) for row in rows) if cell is not None]
    if call.capability is Capability.BARS_1M:
        minutes: list[Row] = [(ms // 1000, *rest) for ms, *rest in cells if ms % 1000 == 0]
        bars, rejects = minute_bars(symbol, minutes, window, sessions)
    else:
        days: list[DailyRow] = [(_label(ms), *rest) for ms, *rest in cells]
        bars, rejects = daily_bars(symbol, days, window, sessions)
    return Page(bars={symbol: bars}, rejects=rejects)


def _cells(call: Call, row: object) -> tuple[int, *tuple[object, ...]] | None:
    """Opening millisecond and the cells of a bar; None for a kline in which nothing traded.

    Binance fills a minute without trades with the last price. That is its forward fill, no bar.
    """
    cells = cast("list[object]", row) if isinstance(row, list) else [row]
    stamp = cells[0] if len(cells) == _COLUMNS else None
    if type(stamp) is not int or stamp <= 0:
        raise MalformedPayloadError(
            f"{subject(call)}: row {str(cells)[:80]}; expected {_COLUMNS} columns from the opening time on"
        )
    trades = cells[8]
    if trades == 0:
        return None
    milliseconds = stamp // 1000 if stamp >= _MICROSECONDS_FROM else stamp
    return (milliseconds, *(_number(cell) for cell in cells[1:6]), None, trades)


def _label(ms: int) -> date:
    return datetime.fromtimestamp(ms // 1000, UTC).date()


def quote_page(call: Call, raw: Raw, rows: list[object]) -> Page:
    """Quotes of a list of book tickers; a symbol that it leaves out is unknown.

    Raises:
        MalformedPayloadError: a row is no ticker, or the reply states no time.
    """
    at = _said_at(call, raw)
    by_symbol: dict[object, dict[str, Any]] = {}
    for row in rows:
        if not isinstance(row, dict):
            raise MalformedPayloadError(f"{subject(call)}: ticker {str(row)[:80]!r} is no object")
        ticker = cast("dict[str, Any]", row)
        by_symbol[ticker.get("symbol")] = ticker
    quotes: dict[str, Quote] = {}
    problems: dict[str, ProviderError] = {}
    for symbol in call.symbols:
        ticker = by_symbol.get(symbol)
        if ticker is None:
            problems[symbol] = SymbolNotFoundError(f"Binance's book does not know {symbol}")
            continue
        bid, ask = _price(ticker.get("bidPrice")), _price(ticker.get("askPrice"))
        if bid is None and ask is None:
            problems[symbol] = BadDataError(f"Binance's book of {symbol} is empty on both sides")
            continue
        quotes[symbol] = Quote(
            at,
            bid=bid,
            ask=ask,
            bid_size=None if bid is None else _price(ticker.get("bidQty")),
            ask_size=None if ask is None else _price(ticker.get("askQty")),
        )
    return Page(quotes=quotes, problems=problems)


def _said_at(call: Call, raw: Raw) -> datetime:
    """When the book was so: tickers carry no time, the reply's ``Date`` does, in whole seconds."""
    try:
        at = parsedate_to_datetime(raw.headers.get("date", ""))
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise MalformedPayloadError(
            f"{subject(call)}: the reply's Date is {raw.headers.get('date')!r}; book tickers carry no "
            "time of their own"
        )
    return at.astimezone(UTC)


def _number(cell: object) -> object:
    """A price as Binance writes it, in a string; what is no number stays for the reject's reason."""
    try:
        return float(cell) if isinstance(cell, str) else cell
    except ValueError:
        return cell


def _price(cell: object) -> float | None:
    value = _number(cell)
    if type(value) is not float:
        return None
    return value if isfinite(value) and value > 0 else None
