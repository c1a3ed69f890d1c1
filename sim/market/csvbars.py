"""Recorded bars as a market: ``<dir>/<SYMBOL>/<date>.csv``, columns ts,open,high,low,close,volume."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path

import numpy as np

from core.errors import SettingsError
from core.words import Tier
from sim.config import MarketConfig, SymbolSpec
from sim.market.day import MINUTE, Columns, Grid, SymbolDay, halted_minutes
from sim.market.sessions import Session, sessions_of
from sim.market.universe import Instrument, Universe, instrument

_COLUMNS = ["ts", "open", "high", "low", "close", "volume"]
# Exchanges whose hours are tried when nobody names the exchange, the first of equals wins.
_CANDIDATES = ("24/7", "XNYS", "XBOM", "XLON", "XTKS", "XHKG")


@dataclass(frozen=True, slots=True)
class _Row:
    ts: int
    open: float
    high: float
    low: float
    close: float
    volume: float


class CsvDays:
    """Reads a symbol's session from its file; a session without one has minutes and no trades."""

    pad_s = 12 * 3600
    """Files hold rows outside regular hours too; they are served, not expected."""

    def __init__(self, folder: Path, halts: Mapping[str, Sequence[tuple[float, float]]]) -> None:
        self._folder = folder
        self._halts = halts

    def build(self, one: Instrument, session: Session) -> SymbolDay:
        """The file's rows, and an untraded row for each regular minute that it lacks."""
        path = self._folder / one.symbol / f"{session.day.isoformat()}.csv"
        found = {row.ts: row for row in _read(path)} if path.is_file() else {}
        halted = halted_minutes(sorted(found), self._halts.get(one.symbol, ()))
        rows = {ts: row for ts, row in found.items() if ts not in halted}
        regular = [m for start, end in session.segments for m in range(start, end, MINUTE)]
        minutes = sorted({*regular, *rows})
        nan = float("nan")
        empty = _Row(0, nan, nan, nan, nan, nan)
        table = [rows.get(minute, empty) for minute in minutes]
        columns = Columns(
            np.array([row.open for row in table]),
            np.array([row.high for row in table]),
            np.array([row.low for row in table]),
            np.array([row.close for row in table]),
            np.array([row.volume for row in table]),
            np.full(len(minutes), 1, dtype=np.int8),
            np.full(len(minutes), 58, dtype=np.int8),
        )
        traded = [minute for minute in regular if minute in rows]
        return SymbolDay(
            grid=Grid(session, np.array(minutes, dtype=np.int64)),
            columns=columns,
            later={},
            official_close=rows[traded[-1]].close if traded else nan,
            auction_volume=0.0,
            halted=halted,
        )

    def split_factor(self, symbol: str, session: Session) -> float:
        """Recorded bars carry their own splits: always 1."""
        del symbol, session
        return 1.0

    def previous_close(self, one: Instrument, session: Session) -> float:
        """Close of the newest earlier file of the symbol; the session's first open where there is none."""
        earlier = [day for day in _days_of(self._folder / one.symbol) if day < session.day]
        for day in reversed(earlier):
            before = one.sessions.on(day)
            if before is not None:
                close = self.build(one, before).official_close
                if not math.isnan(close):
                    return close
        columns = self.build(one, session).columns
        traded = columns.open[~np.isnan(columns.open)]
        return traded[0].item() if len(traded) else one.base


def csv_universe(config: MarketConfig) -> tuple[Universe, date, list[str]]:
    """Who takes part, the session of the run, and what was inferred (to be printed).

    Raises:
        SettingsError: no file for the session, or a universe.csv that can't be read.
    """
    folder = config.dir or Path()
    listed = _listed(folder / "universe.csv")
    names = sorted(child.name for child in folder.iterdir() if child.is_dir())
    days = {name: _days_of(folder / name) for name in names}
    every = sorted({day for found in days.values() for day in found})
    if not every:
        raise SettingsError(f"{folder} holds no <SYMBOL>/<date>.csv")
    session = config.session or every[-1]
    taking_part = [name for name in names if session in days[name]]
    if not taking_part:
        raise SettingsError(
            f"no symbol in {folder} has a file for {session}; there are files for "
            f"{', '.join(day.isoformat() for day in every)}"
        )
    notes: list[str] = []
    instruments: list[Instrument] = []
    for name in taking_part:
        spec = listed.get(name)
        if spec is None:
            exchange = config.calendar or _infer(folder / name / f"{session}.csv", session, notes)
            spec = SymbolSpec(name, Tier.T0, exchange)
        one = instrument(spec, config.seed)
        if one.sessions.on(session) is None:
            raise SettingsError(
                f"{session} is no session of {spec.exchange}, the exchange of {name}"
            )
        instruments.append(replace(one, spread=0.0003))
    return Universe(sorted(instruments, key=lambda one: one.tier)), session, notes


def _infer(path: Path, session: date, notes: list[str]) -> str:
    minutes = [row.ts for row in _read(path)]
    scores: list[tuple[float, float, str]] = []
    for code in _CANDIDATES:
        found = sessions_of(code).on(session)
        if found is not None:
            inside, expected = _inside(minutes, found), _expected(found)
            scores.append((inside / expected, inside / max(1, len(minutes)), code))
    if not scores:
        raise SettingsError(
            f"{session} is no session of {', '.join(_CANDIDATES)}; name the calendar"
        )
    best = max(scores, key=lambda score: (round(score[0], 3), round(score[1], 3)))
    notes.append(
        f"{path.parent.name}: exchange {best[2]} inferred from the bars' hours "
        f"({best[0]:.0%} of its minutes are there, {best[1]:.0%} of the bars lie in them)"
    )
    return best[2]


def _inside(minutes: Sequence[int], session: Session) -> int:
    return sum(session.regular(minute) for minute in minutes)


def _expected(session: Session) -> int:
    return sum((end - start) // MINUTE for start, end in session.segments)


def _listed(path: Path) -> dict[str, SymbolSpec]:
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        table = csv.DictReader(file)
        absent = {"symbol", "exchange", "tier"} - set(table.fieldnames or ())
        if absent:
            raise SettingsError(f"{path} lacks the column(s) {', '.join(sorted(absent))}")
        specs: dict[str, SymbolSpec] = {}
        for row in table:
            if row["tier"] not in {tier.value for tier in Tier}:
                raise SettingsError(
                    f"{path} line {table.line_num}: tier {row['tier']!r}; expected T0, T1 or T2"
                )
            if row["symbol"] in specs:
                raise SettingsError(
                    f"{path} line {table.line_num}: {row['symbol']} stands there twice"
                )
            specs[row["symbol"]] = SymbolSpec(row["symbol"], Tier(row["tier"]), row["exchange"])
        return specs


def _days_of(folder: Path) -> list[date]:
    found: list[date] = []
    for path in folder.glob("????-??-??.csv"):
        try:
            found.append(date.fromisoformat(path.stem))
        except ValueError:
            continue
    return sorted(found)


def _read(path: Path) -> list[_Row]:
    with path.open(newline="") as file:
        table = csv.reader(file)
        header = next(table, None) or []
        if header != _COLUMNS:
            raise SettingsError(
                f"{path} starts with {','.join(header)!r}; expected {','.join(_COLUMNS)!r}"
            )
        rows: list[_Row] = []
        for cells in table:
            row = _parsed(path, table.line_num, cells)
            if rows and row.ts <= rows[-1].ts:
                raise SettingsError(
                    f"{path} line {table.line_num}: {cells[0]} does not follow the row before it"
                )
            rows.append(row)
        return rows


def _parsed(path: Path, line: int, cells: Sequence[str]) -> _Row:
    try:
        stamp = datetime.fromisoformat(cells[0])
        numbers = [float(cell) for cell in cells[1:]]
        row = _Row(int(stamp.timestamp()), *numbers)
    except (ValueError, TypeError, IndexError) as error:
        raise SettingsError(
            f"{path} line {line}: {','.join(cells)!r} is no bar: {error}"
        ) from error
    if (
        stamp.tzinfo is None
        or row.ts % MINUTE
        or not all(math.isfinite(number) for number in numbers)
    ):
        raise SettingsError(
            f"{path} line {line}: {','.join(cells)!r}; expected a whole minute with Z and finite numbers"
        )
    return row
