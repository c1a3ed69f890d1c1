"""Yahoo's quote page v7: many symbols a call, unknown ones left out."""

from collections.abc import Sequence
from typing import Any

import orjson

from sim.feed import Feed
from sim.market.model import Market
from sim.market.quotes import MarketQuote
from sim.market.universe import Instrument
from sim.wire.base import Reply
from sim.wire.yahoo_meta import exchange_words, is_coin, zone_at


def answer_quotes(market: Market, symbols: Sequence[str], feed: Feed) -> Reply:
    """One object for each known symbol, in the order asked."""
    results: list[dict[str, Any]] = []
    for symbol in symbols:
        one = market.universe.get(symbol)
        quote = feed.quote(one) if one else None
        if one is None or quote is None:
            continue
        feed.record.quotes.append([symbol, quote.ts, quote.bid, quote.ask, quote.last])
        results.append(_quote(one, quote, feed.at))
    return Reply(200, orjson.dumps({"quoteResponse": {"result": results, "error": None}}))


def _quote(one: Instrument, quote: MarketQuote, at: float) -> dict[str, Any]:
    code, full_name, currency = exchange_words(one)
    zone, offset = zone_at(one.sessions, at)
    change = quote.last - quote.previous_close
    return {
        "language": "en-US",
        "region": "US",
        "quoteType": "CRYPTOCURRENCY" if is_coin(one) else "EQUITY",
        "typeDisp": "Cryptocurrency" if is_coin(one) else "Equity",
        "quoteSourceName": "Simulated Real Time Price",
        "triggerable": True,
        "customPriceAlertConfidence": "HIGH",
        "currency": currency,
        "marketState": _market_state(one, at),
        "exchange": code,
        "fullExchangeName": full_name,
        "shortName": f"{one.symbol} (simulated)",
        "longName": f"{one.symbol} (simulated)",
        "exchangeTimezoneName": one.sessions.timezone,
        "exchangeTimezoneShortName": zone,
        "gmtOffSetMilliseconds": offset * 1000,
        "esgPopulated": False,
        "corporateActions": [],
        "regularMarketChange": round(change, 4),
        "regularMarketChangePercent": round(100 * change / quote.previous_close, 6),
        "regularMarketPrice": quote.last,
        "regularMarketTime": quote.ts,
        "regularMarketDayHigh": quote.high,
        "regularMarketDayLow": quote.low,
        "regularMarketDayRange": f"{quote.low} - {quote.high}",
        "regularMarketVolume": int(quote.volume),
        "regularMarketPreviousClose": quote.previous_close,
        "regularMarketOpen": quote.open,
        "bid": quote.bid,
        "ask": quote.ask,
        "bidSize": quote.bid_size,
        "askSize": quote.ask_size,
        "sourceInterval": 15,
        "exchangeDataDelayedBy": 0,
        "hasPrePostMarketData": one.sessions.code == "XNYS",
        "priceHint": 2,
        "tradeable": False,
        "cryptoTradeable": is_coin(one),
        "symbol": one.symbol,
    }


def _market_state(one: Instrument, at: float) -> str:
    session = one.sessions.started(at)
    if session is not None and at < session.close:
        return "REGULAR"
    if session is not None and at < session.post_close:
        return "POST"
    coming = one.sessions.current_or_next(at)
    return "PRE" if coming is not None and coming.pre_open <= at else "CLOSED"
