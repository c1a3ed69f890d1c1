"""One symbol's minutes of one session: first versions as arrays, later versions beside them."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.market.sessions import Session

MINUTE = 60
Floats = NDArray[np.float64]

UNTRADED = -1
"""In place of a version's index: no trade in that minute, or none known yet."""
PARTIAL = -2
"""In place of a version's index: the minute is still running."""


class BarVersion(NamedTuple):
    """A bar's values from ``reveal`` on, until the next version's."""

    number: int
    """0 for what is known at bar_end, then 1, 2, ...; ``PARTIAL`` while the bar grows."""
    reveal: float
    """Market instant at which a perfect collector can first know it."""
    open: float
    high: float
    low: float
    close: float
    volume: float


@dataclass(slots=True)
class Rows:
    """Consecutive minutes as columns; NaN where nothing traded."""

    minutes: list[int]
    open: list[float]
    high: list[float]
    low: list[float]
    close: list[float]
    volume: list[float]
    version: list[int]
    """Index of the version shown, ``UNTRADED`` or ``PARTIAL``."""


class Grid:
    """The rows of a day; one grid serves every symbol that has the same rows."""

    def __init__(self, session: Session, minutes: NDArray[np.int64]) -> None:
        self.session = session
        self.array = minutes
        self.minutes: list[int] = minutes.tolist()
        """Start of each row, ascending."""
        self.regular = np.zeros(len(minutes), dtype=np.bool_)
        """Rows that start in regular hours."""
        for start, end in session.segments:
            self.regular |= (minutes >= start) & (minutes < end)


@dataclass(frozen=True, slots=True)
class Columns:
    """First versions of every row of a day, NaN where nothing traded."""

    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    first: NDArray[np.int8]
    """Second within the minute of its first trade."""
    last: NDArray[np.int8]
    """Second within the minute of its last trade."""


@dataclass(frozen=True)
class SymbolDay:
    """What one symbol did in one session."""

    grid: Grid
    columns: Columns
    later: Mapping[int, Sequence[BarVersion]]
    """By row: the versions after the first, reveal ascending."""
    official_close: float
    """Price of the closing auction; NaN when nothing traded all day."""
    auction_volume: float
    halted: frozenset[int] = frozenset()
    """Minutes without trades by order of the exchange."""

    @property
    def session(self) -> Session:
        """The trading day."""
        return self.grid.session

    @property
    def minutes(self) -> list[int]:
        """Start of each row, ascending."""
        return self.grid.minutes

    @cached_property
    def changed(self) -> list[int]:
        """Rows that have later versions, ascending."""
        return sorted(self.later)

    @cached_property
    def whole_volumes(self) -> bool:
        """Whether every volume is a whole number, as shares are and coins are not."""
        traded = self.columns.volume[~np.isnan(self.columns.volume)]
        return bool(np.all(traded == np.floor(traded)))

    @cached_property
    def last_traded(self) -> NDArray[np.int16]:
        """By row: the newest regular row at or before it that traded, -1 before the first."""
        rows = np.arange(len(self.minutes), dtype=np.int16)
        traded = ~np.isnan(self.columns.close) & self.grid.regular
        return np.maximum.accumulate(np.where(traded, rows, np.int16(-1)))

    @cached_property
    def running(self) -> "Running":
        """High, low and volume of the regular session so far, by row, from first versions."""
        regular, columns = self.grid.regular, self.columns
        return Running(
            high=np.fmax.accumulate(np.where(regular, columns.high, np.nan)),
            low=np.fmin.accumulate(np.where(regular, columns.low, np.nan)),
            volume=np.cumsum(np.where(regular, np.nan_to_num(columns.volume), 0.0)),
        )

    @cached_property
    def regular_open(self) -> float:
        """Open of the first regular minute that traded, NaN when none did."""
        traded = np.flatnonzero(self.grid.regular & ~np.isnan(self.columns.open))
        return self.columns.open[traded[0]].item() if len(traded) else float("nan")

    def row_of(self, minute: int) -> int | None:
        """Row that starts at ``minute``, None when there is none."""
        number = bisect_left(self.minutes, minute)
        return number if number < len(self.minutes) and self.minutes[number] == minute else None

    def versions(self, row: int) -> list[BarVersion]:
        """All versions of a row, also those still to come; empty for an untraded minute."""
        columns = self.columns
        volume = columns.volume[row].item()
        if volume != volume:
            return []
        first = BarVersion(
            0,
            self.minutes[row] + MINUTE,
            columns.open[row].item(),
            columns.high[row].item(),
            columns.low[row].item(),
            columns.close[row].item(),
            volume,
        )
        return [first, *self.later.get(row, ())]

    def version_at(self, row: int, at: float) -> BarVersion | None:
        """What is known of a row at ``at``; None when nothing is."""
        if at < self.minutes[row] + MINUTE:
            return self.partial(row, at)
        known = [version for version in self.versions(row) if version.reveal <= at]
        return known[-1] if known else None

    def partial(self, row: int, at: float) -> BarVersion | None:
        """A running minute's bar at ``at``, in steps of one second; None before its first trade.

        Price goes from the open to one extreme, to the other, to the close, in straight lines from
        the first to the last trade; volume grows evenly.
        """
        columns = self.columns
        volume = columns.volume[row].item()
        elapsed = int(at - self.minutes[row])
        first, last = columns.first[row].item(), columns.last[row].item()
        if volume != volume or elapsed < first or elapsed < 0:
            return None
        opened, closed = columns.open[row].item(), columns.close[row].item()
        high, low = columns.high[row].item(), columns.low[row].item()
        path = (opened, low, high, closed) if closed >= opened else (opened, high, low, closed)
        done = 3.0 if last <= first else min(1.0, (elapsed - first) / (last - first)) * 3.0
        leg = min(2, int(done))
        between = round(path[leg] + (path[leg + 1] - path[leg]) * (done - leg), 4)
        price = closed if done >= 3.0 else min(max(between, low), high)
        seen = (*path[: leg + 1], price)
        grown = volume if elapsed >= last else volume * (elapsed - first + 1) / (last - first + 2)
        if self.whole_volumes:
            grown = float(max(1, int(grown)))
        return BarVersion(
            PARTIAL, float(self.minutes[row] + elapsed), opened, max(seen), min(seen), price, grown
        )

    def rows(self, start: float, end: float, at: float) -> Rows:
        """Rows that start in ``[start, end)`` as known at ``at``; the running one only once it traded."""
        low, high = bisect_left(self.minutes, start), bisect_left(self.minutes, end)
        closed = bisect_right(self.minutes, at - MINUTE)
        stop = max(low, min(high, closed))
        columns = self.columns
        volume: list[float] = columns.volume[low:stop].tolist()
        rows = Rows(
            self.minutes[low:stop],
            columns.open[low:stop].tolist(),
            columns.high[low:stop].tolist(),
            columns.low[low:stop].tolist(),
            columns.close[low:stop].tolist(),
            volume,
            [0 if value == value else UNTRADED for value in volume],
        )
        for row in self.changed[bisect_left(self.changed, low) : bisect_left(self.changed, stop)]:
            shown = None
            for version in self.later[row]:
                if version.reveal > at:
                    break
                shown = version
            if shown is not None:
                _put(rows, row - low, shown)
        if low <= closed < high and self.minutes[closed] <= at:
            running = self.partial(closed, at)
            if running is not None:
                rows.minutes.append(self.minutes[closed])
                rows.version.append(PARTIAL)
                for column, value in zip(
                    (rows.open, rows.high, rows.low, rows.close, rows.volume),
                    running[2:],
                    strict=True,
                ):
                    column.append(value)
        return rows

    @cached_property
    def daily(self) -> list[BarVersion]:
        """The session's own bar: regular minutes and the closing auction, a version for each change."""
        regular = np.flatnonzero(self.grid.regular & ~np.isnan(self.columns.volume))
        if not len(regular):
            return []
        columns = self.columns
        high, low, volume = columns.high.copy(), columns.low.copy(), columns.volume.copy()
        changes = sorted(
            (max(float(version.reveal), float(self.session.close)), version.reveal, row, version)
            for row in self.changed
            if self.grid.regular[row]
            for version in self.later[row]
        )
        versions: list[BarVersion] = []
        reveals = sorted({float(self.session.close), *(change[0] for change in changes)})
        done = 0
        for reveal in reveals:
            while done < len(changes) and changes[done][0] <= reveal:
                _, _, row, version = changes[done]
                high[row], low[row], volume[row] = version.high, version.low, version.volume
                done += 1
            bar = (
                self.regular_open,
                max(high[regular].max().item(), self.official_close),
                min(low[regular].min().item(), self.official_close),
                self.official_close,
                volume[regular].sum().item() + self.auction_volume,
            )
            if not versions or versions[-1][2:] != bar:
                versions.append(BarVersion(len(versions), reveal, *bar))
        return versions


@dataclass(frozen=True, slots=True)
class Running:
    """Figures of the regular session so far, by row."""

    high: Floats
    low: Floats
    volume: Floats


def _put(rows: Rows, place: int, version: BarVersion) -> None:
    rows.version[place] = version.number
    rows.open[place], rows.high[place] = version.open, version.high
    rows.low[place], rows.close[place] = version.low, version.close
    rows.volume[place] = version.volume


def halted_minutes(minutes: Sequence[int], halts: Sequence[tuple[float, float]]) -> frozenset[int]:
    """Minutes that lie wholly or partly inside a halt ``[start, end)``."""
    return frozenset(m for m in minutes for start, end in halts if m < end and m + MINUTE > start)
