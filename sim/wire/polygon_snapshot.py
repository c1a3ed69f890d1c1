"""Polygon's snapshot: the day, the newest minute, the last trade and quote of each ticker."""

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from sim.feed import Feed
from sim.market.day import MINUTE, UNTRADED
from sim.market.quotes import MarketQuote
from sim.market.universe import Instrument
from sim.wire.base import Reply
from sim.wire.polygon_plans import Plan

_NANO = 1_000_000_000
_LOOK_BACK_S = 15 * MINUTE
_BUILDS_A_STEP = 4
_NOTHING: dict[str, Any] = {"c": 0, "h": 0, "l": 0, "o": 0, "v": 0, "vw": 0}


def build(listed: Sequence[Instrument], feed: Feed) -> Iterator[None]:
    """Make the days that the answer needs, a few at a time."""
    for number, one in enumerate(listed):
        _ = feed.quote(one)
        if number % _BUILDS_A_STEP == 0:
            yield


def answer_many(
    listed: Sequence[Instrument], plan: Plan, status: str, request_id: str, feed: Feed
) -> Reply:
    """Every ticker that is known, in the order asked; others are left out."""
    found = [
        ticker for ticker in (_ticker(one, plan, feed) for one in listed) if ticker is not None
    ]
    body = {"count": len(found), "status": status, "request_id": request_id, "tickers": found}
    return Reply(200, orjson.dumps(body))


def answer_one(
    one: Instrument | None, plan: Plan, status: str, request_id: str, feed: Feed
) -> Reply:
    """One ticker, or that there is none."""
    ticker = None if one is None else _ticker(one, plan, feed)
    if ticker is None:
        body = {"status": "NOT_FOUND", "request_id": request_id, "message": "Ticker not found."}
        return Reply(404, orjson.dumps(body))
    return Reply(200, orjson.dumps({"request_id": request_id, "status": status, "ticker": ticker}))


def _ticker(one: Instrument, plan: Plan, feed: Feed) -> dict[str, Any] | None:
    quote = feed.quote(one)
    if quote is None:
        return None
    asked_at = max(int(feed.at), quote.ts)
    change = quote.last - quote.previous_close
    ticker: dict[str, Any] = {
        "ticker": one.symbol,
        "todaysChangePerc": round(100 * change / quote.previous_close, 6),
        "todaysChange": round(change, 4),
        "updated": asked_at * _NANO,
        "day": _day(quote),
        "min": _minute(one, feed, quote),
        "prevDay": _previous_day(one, feed),
    }
    if plan.trades:
        ticker["lastTrade"] = {
            "c": [14, 41],
            "i": str(quote.ts),
            "p": quote.last,
            "s": 100,
            "t": quote.ts * _NANO,
            "x": 4,
        }
    if plan.quotes:
        ticker["lastQuote"] = {
            "P": quote.ask,
            "S": quote.ask_size,
            "p": quote.bid,
            "s": quote.bid_size,
            "t": asked_at * _NANO,
        }
    if plan.trades or plan.quotes:
        feed.record.quotes.append(
            [
                one.symbol,
                asked_at if plan.quotes else quote.ts,
                quote.bid if plan.quotes else None,
                quote.ask if plan.quotes else None,
                quote.last if plan.trades else None,
            ]
        )
    return ticker


def _day(quote: MarketQuote) -> dict[str, Any]:
    """The regular session so far, zeros before its first trade."""
    if not quote.open or not quote.high or not quote.low:
        return dict(_NOTHING)
    mean = round((quote.high + quote.low + quote.last) / 3, 4)
    return {
        "c": quote.last,
        "h": quote.high,
        "l": quote.low,
        "o": quote.open,
        "v": int(quote.volume) if quote.volume.is_integer() else quote.volume,
        "vw": mean,
    }


def _previous_day(one: Instrument, feed: Feed) -> dict[str, Any]:
    """The session before the newest, zeros where the market begins."""
    session = one.sessions.started(feed.at)
    before = None if session is None else one.sessions.before(session)
    versions = [] if before is None else feed.market.day(one, before).daily
    if not versions:
        return dict(_NOTHING)
    bar = versions[-1]
    return {
        "c": bar.close,
        "h": bar.high,
        "l": bar.low,
        "o": bar.open,
        "v": int(bar.volume) if bar.volume.is_integer() else bar.volume,
        "vw": round((bar.high + bar.low + bar.close) / 3, 4),
    }


def _minute(one: Instrument, feed: Feed, quote: MarketQuote) -> dict[str, Any]:
    """The newest minute of the last quarter of an hour that traded, zeros where none did."""
    rows = feed.minutes(one, feed.at - _LOOK_BACK_S, feed.at + MINUTE)
    traded = [place for place, version in enumerate(rows.version) if version != UNTRADED]
    if not traded:
        return {"av": 0, **_NOTHING, "t": 0, "n": 0}
    place = traded[-1]
    volume, close = rows.volume[place], rows.close[place]
    return {
        "av": int(quote.volume),
        "t": rows.minutes[place] * 1000,
        "n": max(1, int(volume**0.5)),
        "o": rows.open[place],
        "h": rows.high[place],
        "l": rows.low[place],
        "c": close,
        "v": int(volume) if volume.is_integer() else volume,
        "vw": round((rows.high[place] + rows.low[place] + close) / 3, 4),
    }
