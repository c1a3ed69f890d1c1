"""Quotes by Yahoo's quote v7: many symbols per call, each answered or explained."""

from datetime import UTC, datetime
from math import isfinite
from typing import Any

from core.bars import Quote
from core.errors import (
    BadDataError,
    MalformedPayloadError,
    ProviderError,
    SymbolNotFoundError,
)
from providers.base import Call, Page, Raw
from providers.yahoo.document import list_at, mapping_at, opened, subject

_FIELDS = "symbol,quoteType,regularMarketPrice,regularMarketTime,bid,ask,bidSize,askSize"


def quote_params(symbols: tuple[str, ...]) -> dict[str, str]:
    """Query of a quote call, without its crumb."""
    return {"symbols": ",".join(symbols), "fields": _FIELDS, "formatted": "false"}


def parse_quotes(call: Call, raw: Raw) -> Page:
    """Quotes by symbol; a symbol that the reply leaves out or has no price for is a problem.

    Raises:
        MalformedPayloadError: the body is not a quote reply.
        RateLimitedError: it is a throttle text under a good status.
    """
    rows = list_at(opened(call, raw), "quoteResponse", "result")
    if rows is None:
        raise MalformedPayloadError(f"{subject(call)}: the reply has no quoteResponse.result")
    known = (row for row in map(mapping_at, rows) if row is not None)
    by_symbol = {str(row.get("symbol")).upper(): row for row in known}
    quotes: dict[str, Quote] = {}
    problems: dict[str, ProviderError] = {}
    for symbol in call.symbols:
        row = by_symbol.get(symbol.upper())
        if row is None:
            problems[symbol] = SymbolNotFoundError(f"Yahoo's quotes do not know {symbol}")
            continue
        answer = _quote(symbol, row)
        if isinstance(answer, Quote):
            quotes[symbol] = answer
        else:
            problems[symbol] = answer
    return Page(quotes=quotes, problems=problems)


def _quote(symbol: str, row: dict[str, Any]) -> Quote | ProviderError:
    last, stamp = row.get("regularMarketPrice"), row.get("regularMarketTime")
    if last is None or stamp is None:
        kind = row.get("quoteType")
        return SymbolNotFoundError(f"Yahoo knows {symbol} but has no price for it (type {kind})")
    price = _above_zero(last)
    if price is None or type(stamp) is not int or stamp <= 0:
        return BadDataError(f"Yahoo's quote of {symbol} has price {last!r} at time {stamp!r}")
    # Outside trading hours Yahoo says 0 where there is no bid or ask: no price at all.
    bid, ask = _above_zero(row.get("bid")), _above_zero(row.get("ask"))
    return Quote(
        ts=datetime.fromtimestamp(stamp, UTC),
        bid=bid,
        ask=ask,
        bid_size=None if bid is None else _above_zero(row.get("bidSize")),
        ask_size=None if ask is None else _above_zero(row.get("askSize")),
        last=price,
    )


def _above_zero(value: object) -> float | None:
    if type(value) is not int and type(value) is not float:
        return None
    return float(value) if isfinite(value) and value > 0 else None
