"""Who is traded: symbols with tier, exchange and how lively they are."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.errors import SettingsError
from core.words import Tier
from sim.config import MarketConfig, SymbolSpec
from sim.market.draws import key_of, uniform
from sim.market.sessions import Sessions, sessions_of

KNOWN = (
    "AAPL", "MSFT", "NVDA", "AMZN", "GOOGL", "META", "TSLA", "SPY", "QQQ", "JPM", "V", "XOM", "UNH", "WMT", "PG",
    "BAC", "JNJ", "HD", "KO", "PEP",
)  # fmt: skip
"""Names that people try first. They lead every invented universe; their prices are invented all the same."""
_CONSONANTS, _VOWELS = "BCDFGHJKLMNPRSTVWXYZ", "AEIOU"
# Trades per minute, lowest and highest of each tier: T0 all but always trades, T2 often does not.
_RATES = {Tier.T0: (14.0, 60.0), Tier.T1: (3.5, 9.0), Tier.T2: (0.15, 2.5)}


@dataclass(frozen=True, slots=True)
class Instrument:
    """One symbol and what its market is made of."""

    symbol: str
    tier: Tier
    exchange: str
    sessions: Sessions
    key: int
    """Seed of everything random about it."""
    rate: float
    """Mean trades per regular minute."""
    base: float
    """Middle of its price level before splits."""
    sigma: float
    """Standard deviation of a minute's log return."""
    spread: float
    """Typical bid-ask spread as a share of the price."""


class Universe:
    """The instruments by symbol, T0 first."""

    def __init__(self, instruments: Iterable[Instrument]) -> None:
        self.instruments: Sequence[Instrument] = tuple(instruments)
        self._by_symbol: Mapping[str, Instrument] = {one.symbol: one for one in self.instruments}

    def get(self, symbol: str) -> Instrument | None:
        return self._by_symbol.get(symbol)

    def calendars(self) -> list[Sessions]:
        """Each calendar once, the most used first."""
        found: dict[str, tuple[int, Sessions]] = {}
        for one in self.instruments:
            count, _ = found.get(one.sessions.code, (0, one.sessions))
            found[one.sessions.code] = (count + 1, one.sessions)
        return [sessions for _, sessions in sorted(found.values(), key=lambda pair: -pair[0])]


def seeded_universe(config: MarketConfig) -> Universe:
    """The listed symbols, or invented ones where the config lists none."""
    specs = config.universe or tuple(_invent(config))
    return Universe(instrument(spec, config.seed) for spec in sorted(specs, key=lambda s: s.tier))


def instrument(spec: SymbolSpec, seed: int) -> Instrument:
    """Give a listed symbol its character, from the seed and its name alone."""
    key = key_of(seed, spec.symbol)
    low, high = _RATES[spec.tier]
    liveliness = uniform(key, 1)
    return Instrument(
        symbol=spec.symbol,
        tier=spec.tier,
        exchange=spec.exchange,
        sessions=sessions_of(spec.exchange),
        key=key,
        rate=float(low * (high / low) ** liveliness),
        base=float(12.0 * 40.0 ** uniform(key, 2)),
        sigma=0.0004 + 0.0006 * uniform(key, 3),
        spread=0.0002
        + 0.004 * (1.0 - liveliness) * (spec.tier is not Tier.T0)
        + 0.0002 * uniform(key, 4),
    )


def _invent(config: MarketConfig) -> Iterable[SymbolSpec]:
    total = sum(config.symbols.values())
    names = _names(config.seed, total)
    exchanges = sorted(config.exchanges)
    bounds = np.cumsum([config.exchanges[name] for name in exchanges])
    for tier in Tier:
        for _ in range(config.symbols.get(tier.value, 0)):
            name = next(names)
            draw = uniform(key_of(config.seed, "exchange"), key_of(name)) * float(bounds[-1])
            yield SymbolSpec(
                name, tier, exchanges[int(np.searchsorted(bounds, draw, side="right"))]
            )


def _names(seed: int, count: int) -> Iterator[str]:
    """The known names, then invented ones in an order of the seed's own; each name once."""
    pairs = [first + second for first in _CONSONANTS for second in _VOWELS]
    fours = len(pairs) ** 2
    most = fours * (1 + len(_CONSONANTS))
    if count > most:
        raise SettingsError(f"{count} symbols asked; expected at most {most}")
    yield from KNOWN
    chooser = np.random.Generator(np.random.Philox(key=key_of(seed, "names")))
    order: list[int] = chooser.permutation(fours).tolist()
    for tail in ("", *_CONSONANTS):
        for number in order:
            name: str = pairs[number // len(pairs)] + pairs[number % len(pairs)] + tail
            if name not in KNOWN:
                yield name
