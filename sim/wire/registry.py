"""Every wire there is: its name, its configuration, its making."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sim.config import SourceConfig, SourceKind
from sim.market.model import Market
from sim.wire import alpaca, alphavantage, binance, finnhub, polygon, yahoo
from sim.wire.base import Wire


@dataclass(frozen=True, slots=True)
class WireKind:
    """One kind of source."""

    kind: SourceKind
    make: Callable[[SourceConfig, Market, int], Wire]
    """From its configuration, the market and the seed."""


WIRES: Mapping[str, WireKind] = {
    "yahoo": WireKind(SourceKind("yahoo", "yfinance", "ip", yahoo.read_options), yahoo.YahooWire),
    "finnhub": WireKind(
        SourceKind("finnhub", "finnhub", "key", finnhub.read_options), finnhub.FinnhubWire
    ),
    "alphavantage": WireKind(
        SourceKind("alphavantage", "alphavantage", "key", alphavantage.read_options),
        alphavantage.AlphaVantageWire,
    ),
    "alpaca": WireKind(
        SourceKind("alpaca", "alpaca", "key", alpaca.read_options), alpaca.AlpacaWire
    ),
    "polygon": WireKind(
        SourceKind("polygon", "polygon", "key", polygon.read_options), polygon.PolygonWire
    ),
    "binance": WireKind(
        SourceKind("binance", "binance", "ip", binance.read_options), binance.BinanceWire
    ),
}


def source_kinds() -> Mapping[str, SourceKind]:
    """What the config reader needs of each."""
    return {name: wire.kind for name, wire in WIRES.items()}
