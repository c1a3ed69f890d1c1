"""What Polygon's replies say: bars of a page, quotes of a snapshot; pure."""

from datetime import UTC, date, datetime, timedelta
from math import isfinite
from typing import Any, cast

from core.bars import Quote
from core.errors import BadDataError, MalformedPayloadError, ProviderError, SymbolNotFoundError
from core.sessions import Calendar
from core.windows import Window
from core.words import Capability
from providers.base import Call, Page
from providers.rows import daily_bars, minute_bars

_MINUTE = timedelta(minutes=1)


def subject(call: Call) -> str:
    """What a message is about."""
    return f"polygon {call.endpoint} {call.symbols[0]}{f' {call.window}' if call.window else ''}"


def bar_page(call: Call, window: Window, fields: dict[str, Any], sessions: Calendar | None) -> Page:
    """Bars of one page; where it promises another, the rest of the window is left open.

    Raises:
        ProviderError: the page is malformed, or can't be true.
    """
    symbol, found = call.symbols[0], fields.get("results")
    if found is None and fields.get("resultsCount") == 0:
        # An unknown ticker is answered alike: no bars.
        found = []
    if not isinstance(found, list):
        raise MalformedPayloadError(f"{subject(call)}: results are no list")
    if fields.get("adjusted") is not False:
        raise BadDataError(
            f"{subject(call)}: adjusted is {fields.get('adjusted')!r}, prices as traded were asked for"
        )
    items = cast("list[object]", found)
    cells = [_cells(call, item) for item in items]
    if call.capability is Capability.BARS_1M:
        # A stamp off the second can be no minute; it is dropped like one off the minute.
        rows = [(ms // 1000, *rest) for ms, *rest in cells if ms % 1000 == 0]
        bars, rejects = minute_bars(symbol, rows, window, sessions)
    else:
        days = [(_label(ms), *rest) for ms, *rest in cells]
        bars, rejects = daily_bars(symbol, days, window, sessions)
    rest = _rest(call, window, [ms for ms, *_ in cells]) if fields.get("next_url") else None
    if rest is None:
        return Page(bars={symbol: bars}, rejects=rejects)
    return Page(
        bars={symbol: [bar for bar in bars if bar.ts < rest.start]},
        rejects=[reject for reject in rejects if reject[1] < rest.start],
        rest={symbol: rest},
    )


def _cells(call: Call, item: object) -> tuple[int, *tuple[object, ...]]:
    row = cast("dict[str, object]", item) if isinstance(item, dict) else {}
    stamp = row.get("t")
    if type(stamp) is not int or stamp <= 0:
        raise MalformedPayloadError(
            f"{subject(call)}: a row's t is {stamp!r}; expected milliseconds"
        )
    return (stamp, *(row.get(name) for name in ("o", "h", "l", "c", "v", "vw", "n")))


def _rest(call: Call, window: Window, stamps: list[int]) -> Window | None:
    """What a page with a next one leaves open: all after its last row, asked by its time.

    The vendor's ``next_url`` would do the same, but a cursor outlives no restart.
    """
    if not stamps:
        raise BadDataError(f"{subject(call)}: an empty page promises another")
    newest = datetime.fromtimestamp(max(stamps) // 1000, UTC)
    if call.capability is Capability.BARS_1M:
        start = newest.replace(second=0) + _MINUTE
    else:
        start = newest.replace(hour=0, minute=0, second=0) + timedelta(days=1)
    if start <= window.start:
        raise BadDataError(f"{subject(call)}: a page that ends at {newest} promises another")
    return Window(start, window.end) if start < window.end else None


def _label(ms: int) -> date:
    # New York's midnight is 04:00 or 05:00 UTC, that of a coin 00:00: the date is one.
    return datetime.fromtimestamp(ms // 1000, UTC).date()


def quote_page(call: Call, fields: dict[str, Any]) -> Page:
    """Quotes of a snapshot; a ticker that it leaves out is unknown.

    Raises:
        MalformedPayloadError: it is no snapshot.
    """
    found = fields.get("tickers")
    if not isinstance(found, list):
        raise MalformedPayloadError(f"{subject(call)}: the reply has no list of tickers")
    rows = [
        cast("dict[str, Any]", row) for row in cast("list[object]", found) if isinstance(row, dict)
    ]
    by_ticker = {row.get("ticker"): row for row in rows}
    quotes: dict[str, Quote] = {}
    problems: dict[str, ProviderError] = {}
    for symbol in call.symbols:
        row = by_ticker.get(symbol)
        if row is None:
            problems[symbol] = SymbolNotFoundError(f"Polygon's snapshot has no ticker {symbol}")
            continue
        answer = _quote(symbol, row)
        if isinstance(answer, Quote):
            quotes[symbol] = answer
        else:
            problems[symbol] = answer
    return Page(quotes=quotes, problems=problems)


def _quote(symbol: str, row: dict[str, Any]) -> Quote | ProviderError:
    """Book and last trade, each with a stamp of its own; the quote is of the newer one."""
    book, trade = _part(row, "lastQuote"), _part(row, "lastTrade")
    bid, ask, last = (
        _above_zero(book.get("p")),
        _above_zero(book.get("P")),
        _above_zero(trade.get("p")),
    )
    stamps: list[object] = []
    if bid is not None or ask is not None:
        stamps.append(book.get("t"))
    if last is not None:
        stamps.append(trade.get("t"))
    if not stamps:
        return BadDataError(f"Polygon's snapshot of {symbol} has neither quote nor trade")
    times = [stamp for stamp in stamps if type(stamp) is int and stamp > 0]
    if len(times) != len(stamps):
        return BadDataError(f"Polygon's snapshot of {symbol} has stamps {stamps!r}")
    seconds, nanoseconds = divmod(max(times), 1_000_000_000)
    return Quote(
        datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=nanoseconds // 1000),
        bid=bid,
        ask=ask,
        bid_size=None if bid is None else _above_zero(book.get("s")),
        ask_size=None if ask is None else _above_zero(book.get("S")),
        last=last,
        last_size=None if last is None else _above_zero(trade.get("s")),
    )


def _part(row: dict[str, Any], name: str) -> dict[str, Any]:
    part = row.get(name)
    return cast("dict[str, Any]", part) if isinstance(part, dict) else {}


def _above_zero(value: object) -> float | None:
    if type(value) is not int and type(value) is not float:
        return None
    return float(value) if isfinite(value) and value > 0 else None
