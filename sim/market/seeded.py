"""Minutes invented from the seed: a random walk between levels, trades by the hour, late reports."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sim.config import MarketConfig
from sim.market.day import MINUTE, BarVersion, Columns, Floats, Grid, SymbolDay, halted_minutes
from sim.market.draws import mix, uniform, wave
from sim.market.sessions import Session
from sim.market.universe import Instrument

_SETTLED = 60
"""Seconds after bar_end from which only a late restatement changes a bar."""


@lru_cache(maxsize=4000)
def session_grid(session: Session) -> Grid:
    """The regular minutes of a session, shared by every symbol that trades in it."""
    return Grid(
        session, np.concatenate([np.arange(start, end, MINUTE) for start, end in session.segments])
    )


class SeededDays:
    """Builds any session of any instrument from the seed alone."""

    pad_s = 0
    """Seconds around regular hours in which this market has rows."""

    def __init__(
        self, config: MarketConfig, halts: Mapping[str, Sequence[tuple[float, float]]]
    ) -> None:
        self._config = config
        self._halts = halts

    def official_close(self, one: Instrument, session: Session) -> float:
        """Price of the closing auction, known without building the day."""
        return max(
            0.01, round(self._level(one, session) / self.split_factor(one.symbol, session), 2)
        )

    def split_factor(self, symbol: str, session: Session) -> float:
        """New shares for one share of the beginning, at that session."""
        factor = 1.0
        for split in self._config.splits:
            if split.symbol == symbol and split.session <= session.day:
                factor *= split.ratio
        return factor

    def previous_close(self, one: Instrument, session: Session) -> float:
        """The official close before this session, in this session's shares."""
        before = one.sessions.before(session) or session
        return max(
            0.01, round(self._level(one, before) / self.split_factor(one.symbol, session), 2)
        )

    def build(self, one: Instrument, session: Session) -> SymbolDay:
        """All minutes of one session with every version they will ever have."""
        grid = session_grid(session)
        minutes = grid.array
        random = np.random.Generator(np.random.Philox(key=mix(one.key, session.day.toordinal())))
        opened = self._open(one, session)
        closed = self.official_close(one, session)
        halted = halted_minutes(grid.minutes, self._halts.get(one.symbol, ()))
        columns, counts = _walk(one, random, minutes, opened, closed, halted)
        traded = np.flatnonzero(counts)
        volume = float(np.nansum(columns.volume))
        return SymbolDay(
            grid=grid,
            columns=columns,
            later=self._later(one, random, grid, columns, traded),
            official_close=closed if len(traded) else float("nan"),
            auction_volume=float(int(volume * (0.04 + 0.06 * random.random())))
            if len(traded)
            else 0.0,
            halted=halted,
        )

    def _level(self, one: Instrument, session: Session) -> float:
        day = float(session.day.toordinal())
        swing = (
            0.35 * wave(one.key, day / 90)
            + 0.1 * wave(one.key + 1, day / 12)
            + 0.03 * wave(one.key + 2, day)
        )
        return one.base * float(np.exp(swing))

    def _open(self, one: Instrument, session: Session) -> float:
        gap = 0.006 * (2.0 * uniform(one.key + 3, session.day.toordinal()) - 1.0)
        return max(0.01, round(self.previous_close(one, session) * (1.0 + gap), 2))

    def _later(
        self,
        one: Instrument,
        random: np.random.Generator,
        grid: Grid,
        columns: Columns,
        traded: NDArray[np.int64],
    ) -> dict[int, list[BarVersion]]:
        config = self._config
        settling = traded[random.random(len(traded)) < config.settle_share]
        restated = traded[random.random(len(traded)) < config.restate_share]
        twice = restated[random.random(len(restated)) < config.restate_twice_share]
        earliest, latest = config.restate_delay_s
        late = np.concatenate([restated, twice])
        delays = np.concatenate(
            [
                random.integers(2, config.settle_s + 1, len(settling)),
                _SETTLED + random.integers(earliest, latest + 1, len(late)),
            ]
        )
        rows = np.concatenate([settling, late])
        reveals = grid.array[rows] + MINUTE + delays
        draws = random.random((len(rows), 3))
        cancels = (
            np.concatenate([np.zeros(len(settling)), np.ones(len(late))]) * config.cancel_share
        )
        shift = random.standard_normal(len(rows)) * one.sigma
        order = np.lexsort((reveals, rows))
        later: dict[int, list[BarVersion]] = {}
        for number in order.tolist():
            row = int(rows[number])
            versions = later.setdefault(row, [])
            before = versions[-1] if versions else _first(columns, row)
            reveal = float(reveals[number])
            if versions and reveal <= before.reveal:
                reveal = before.reveal + 1.0
            size, effect, sign = draws[number].tolist()
            after = (
                _cancelled(before, size, effect)
                if sign < cancels[number] and before.volume >= 2
                else _reported_late(before, size, effect, float(shift[number]))
            )
            versions.append(BarVersion(before.number + 1, reveal, *after))
        return later


def _walk(
    one: Instrument,
    random: np.random.Generator,
    minutes: NDArray[np.int64],
    opened: float,
    closed: float,
    halted: frozenset[int],
) -> tuple[Columns, NDArray[np.int64]]:
    """First versions: a bridge of log returns from open to close, trades by a U-shaped day."""
    n = len(minutes)
    x = (np.arange(n) + 0.5) / n
    shape = 0.6 + 1.6 * np.exp(-12.0 * x) + np.exp(-10.0 * (1.0 - x))
    shape /= shape.mean()
    counts: NDArray[np.int64] = np.asarray(random.poisson(one.rate * shape), dtype=np.int64)
    if halted:
        counts[np.isin(minutes, list(halted))] = 0
    steps = random.standard_normal(n) * one.sigma * np.sqrt(shape)
    total = np.concatenate([[0.0], np.cumsum(steps)])
    share = np.arange(n + 1) / n
    price = opened * np.exp(total - share * total[-1] + share * np.log(closed / opened))
    start, stop = price[:-1], price[1:]
    reach = np.abs(random.standard_normal((2, n))) * one.sigma * 0.6
    high = np.maximum(start, stop) * (1.0 + reach[0])
    low = np.minimum(start, stop) * (1.0 - reach[1])
    opens, highs, lows, closes = (
        _priced(values, stop, counts) for values in (start, high, low, stop)
    )
    size = np.ceil(counts * 60.0 * np.exp(0.7 * random.standard_normal(n)))
    volume = np.where(counts > 0, np.maximum(size, 1.0), np.nan)
    trades = np.maximum(counts, 1)
    first = np.floor(60.0 * (1.0 - random.random(n) ** (1.0 / trades))).astype(np.int8)
    rest = np.where(trades > 1, random.random(n) ** (1.0 / np.maximum(trades - 1, 1)), 0.0)
    last = first + np.floor((59 - first) * rest).astype(np.int8)
    return Columns(opens, highs, lows, closes, volume, first, last), counts


def _priced(values: Floats, only: Floats, counts: NDArray[np.int64]) -> Floats:
    """Whole cents; the one price of a minute with one trade, NaN without."""
    prices: Floats = np.where(counts == 1, only, values)
    return np.where(counts > 0, np.maximum(np.round(prices, 2), 0.01), np.nan)


def _first(columns: Columns, row: int) -> BarVersion:
    values = (columns.open, columns.high, columns.low, columns.close, columns.volume)
    return BarVersion(0, 0.0, *(column[row].item() for column in values))


def _reported_late(
    before: BarVersion, size: float, effect: float, shift: float
) -> tuple[float, float, float, float, float]:
    """A trade reported after the fact: always volume, half the time a new close, else maybe an extreme."""
    volume = before.volume + max(1.0, float(int(before.volume * (0.01 + 0.12 * size))))
    price = max(0.01, round(before.close * (1.0 + shift), 2))
    if effect < 0.5:
        return before.open, max(before.high, price), min(before.low, price), price, volume
    if effect < 0.75:
        return before.open, max(before.high, price), min(before.low, price), before.close, volume
    return before.open, before.high, before.low, before.close, volume


def _cancelled(
    before: BarVersion, size: float, effect: float
) -> tuple[float, float, float, float, float]:
    """A trade busted: volume goes, and sometimes the extreme that it made."""
    volume = before.volume - max(1.0, float(int((before.volume - 1) * 0.3 * size)))
    high, low = before.high, before.low
    if effect < 0.3:
        high = max(before.open, before.close)
    elif effect < 0.6:
        low = min(before.open, before.close)
    return before.open, high, low, before.close, volume
