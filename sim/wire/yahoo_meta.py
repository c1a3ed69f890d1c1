"""The ``meta`` block of a chart and the words that charts and quotes share."""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from sim.market.quotes import MarketQuote
from sim.market.sessions import Session, Sessions
from sim.market.universe import Instrument

VALID_RANGES = ("1d", "5d", "1mo", "3mo", "6mo", "1y", "2y", "5y", "10y", "ytd", "max")
_FIRST_TRADE = 1_041_431_400
# Code, full name and currency by calendar.
_EXCHANGES = {
    "XNYS": ("NYQ", "NYSE", "USD"),
    "XBOM": ("NSI", "NSE", "INR"),
    "XLON": ("LSE", "LSE", "GBP"),
    "XTKS": ("JPX", "Tokyo", "JPY"),
    "XHKG": ("HKG", "HKSE", "HKD"),
    "24/7": ("CCC", "CCC", "USD"),
}


def exchange_words(one: Instrument) -> tuple[str, str, str]:
    """Yahoo's code and name of the exchange, and the currency."""
    code = one.sessions.code
    return _EXCHANGES.get(code, (code, code, "USD"))


def is_coin(one: Instrument) -> bool:
    """Whether it trades round the clock, as Yahoo's cryptocurrencies do."""
    return one.sessions.code == "24/7"


def zone_at(sessions: Sessions, at: float) -> tuple[str, int]:
    """Short name and offset in seconds of the exchange's zone at an instant."""
    return _zone(sessions.timezone, int(at // 3600))


@lru_cache(maxsize=4096)
def _zone(name: str, hour: int) -> tuple[str, int]:
    moment = datetime.fromtimestamp(hour * 3600, ZoneInfo(name))
    offset = moment.utcoffset()
    return moment.tzname() or name, int(offset.total_seconds()) if offset else 0


def current_session(sessions: Sessions, at: float) -> Session | None:
    """The session of the local day, or the next one once its extended hours are over."""
    started = sessions.started(at)
    if started is not None and at < started.post_close:
        return started
    return sessions.current_or_next(at) or started


def periods(sessions: Sessions, session: Session, at: float) -> dict[str, dict[str, Any]]:
    """Extended and regular hours of one session, in Yahoo's form."""
    name, offset = zone_at(sessions, at)

    def period(start: int, end: int) -> dict[str, Any]:
        return {"timezone": name, "start": start, "end": end, "gmtoffset": offset}

    return {
        "pre": period(session.pre_open, session.open),
        "regular": period(session.open, session.close),
        "post": period(session.close, session.post_close),
    }


def chart_meta(
    one: Instrument,
    quote: MarketQuote,
    at: float,
    *,
    interval: str,
    span: str,
    previous_close: float,
    shown: Sequence[Session],
    extended: bool,
) -> dict[str, Any]:
    """Everything that Yahoo says of a chart beside its rows.

    Args:
        one: Whose chart.
        quote: As shown at ``at``.
        at: Market instant shown. Offsets are those of this instant, not of the rows: so does Yahoo.
        interval: ``1m`` or ``1d``.
        span: The ``range`` asked, empty for a window.
        previous_close: Close before the chart's first row.
        shown: Sessions of the window, for ``tradingPeriods`` of intraday charts.
        extended: Whether extended hours were asked.
    """
    sessions = one.sessions
    name, offset = zone_at(sessions, at)
    code, full_name, currency = exchange_words(one)
    current = current_session(sessions, at)
    meta: dict[str, Any] = {
        "currency": currency,
        "symbol": one.symbol,
        "exchangeName": code,
        "fullExchangeName": full_name,
        "instrumentType": "CRYPTOCURRENCY" if is_coin(one) else "EQUITY",
        "firstTradeDate": _FIRST_TRADE,
        "regularMarketTime": quote.ts,
        "hasPrePostMarketData": sessions.code == "XNYS",
        "gmtoffset": offset,
        "timezone": name,
        "exchangeTimezoneName": sessions.timezone,
        "regularMarketPrice": quote.last,
        "fiftyTwoWeekHigh": round(one.base * 1.6, 2),
        "fiftyTwoWeekLow": round(one.base * 0.6, 2),
        "regularMarketDayHigh": quote.high,
        "regularMarketDayLow": quote.low,
        "regularMarketVolume": int(quote.volume),
        "longName": f"{one.symbol} (simulated)",
        "shortName": f"{one.symbol} (simulated)",
        "chartPreviousClose": previous_close,
        "priceHint": 2,
        "currentTradingPeriod": periods(sessions, current, at) if current else {},
        "dataGranularity": interval,
        "range": span,
        "validRanges": VALID_RANGES,
    }
    if interval == "1m":
        meta["previousClose"] = quote.previous_close
        meta["scale"] = 3
        days = [periods(sessions, session, at) for session in shown]
        if extended:
            meta["tradingPeriods"] = {
                part: [[day[part]] for day in days] for part in ("pre", "post", "regular")
            }
        else:
            meta["tradingPeriods"] = [[day["regular"]] for day in days]
    return meta
