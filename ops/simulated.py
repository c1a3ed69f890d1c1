"""Settings that lead every provider to a simulated market, so that no call leaves this machine."""

from collections.abc import Mapping
from typing import Any

_KEY = "sim-key"
_SETTINGS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "yahoo": ("YAHOO_BASE_URL", {}),
    "finnhub": ("FINNHUB_BASE_URL", {"FINNHUB_API_KEY": _KEY, "FINNHUB_PREMIUM": "true"}),
    "alphavantage": (
        "ALPHA_VANTAGE_BASE_URL",
        {"ALPHA_VANTAGE_API_KEY": _KEY, "ALPHA_VANTAGE_PLAN": "realtime"},
    ),
    "alpaca": (
        "ALPACA_BASE_URL",
        {"ALPACA_API_KEY": _KEY, "ALPACA_SECRET_KEY": _KEY, "ALPACA_SIP_REALTIME": "true"},
    ),
    "polygon": ("POLYGON_BASE_URL", {"POLYGON_API_KEY": _KEY, "POLYGON_PLAN": "advanced"}),
    "binance": ("BINANCE_BASE_URL", {}),
}
"""By the simulator's source: the setting of its base URL; its key and a plan that includes everything."""
_LIMITS = (
    "YFINANCE_LIMITS",
    "FINNHUB_LIMITS",
    "ALPHA_VANTAGE_LIMITS",
    "ALPACA_LIMITS",
    "POLYGON_LIMITS",
    "BINANCE_LIMITS",
)


def pointed_at(endpoints: Mapping[str, Any]) -> dict[str, str]:
    """Environment in which each source of the simulator stands for its vendor.

    Args:
        endpoints: What the simulator says of itself.
    """
    settings: dict[str, str] = {}
    for name, source in endpoints["sources"].items():
        base_url, more = _SETTINGS[name]
        settings |= {base_url: source["base_url"], **more}
    return settings


def limited_to(limits: str) -> dict[str, str]:
    """The same limits for every provider, as the settings write them."""
    return dict.fromkeys(_LIMITS, limits)
