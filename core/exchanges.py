"""Which calendar an exchange trades on, by the names that people and vendors use for it."""

from core.errors import UsageError

CALENDAR_OF = {
    "NYSE": "NYSE",
    "XNYS": "NYSE",
    "NASDAQ": "NYSE",
    "XNAS": "NYSE",
    "ARCA": "NYSE",
    "ARCX": "NYSE",
    "AMEX": "NYSE",
    "XASE": "NYSE",
    "BATS": "NYSE",
    "IEX": "NYSE",
    "NSE": "NSE",
    "XNSE": "NSE",
    "BSE": "BSE",
    "XBOM": "BSE",
    "LSE": "XLON",
    "XLON": "XLON",
    "XETR": "XETR",
    "XPAR": "XPAR",
    "XAMS": "XAMS",
    "XSWX": "XSWX",
    "XTSE": "XTSE",
    "JPX": "XTKS",
    "XTKS": "XTKS",
    "HKEX": "XHKG",
    "XHKG": "XHKG",
    "XASX": "XASX",
    "CRYPTO": "24/7",
    "BINANCE": "24/7",
    "24/7": "24/7",
}
"""Exchange name or MIC -> calendar name. US venues share one set of hours."""


def calendar_of(exchange: str) -> str:
    """The calendar of an exchange.

    Raises:
        UsageError: an exchange that this table does not know.
    """
    calendar = CALENDAR_OF.get(exchange.strip().upper())
    if calendar is None:
        known = ", ".join(sorted(CALENDAR_OF))
        raise UsageError(f"exchange {exchange!r} is unknown; expected one of {known}")
    return calendar
