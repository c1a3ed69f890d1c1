"""Bars from files: ``<folder>/<SYMBOL>/<date>.csv`` by the minute, ``<folder>/<SYMBOL>/daily.csv`` by day.

A header names the columns: ``ts,open,high,low,close,volume``, with ts the start of the minute (ISO
8601 with Z or an offset); in ``daily.csv`` ``session`` takes the place of ts, an ISO date. Empty
prices are an absent bar, an empty volume is unknown. Daily bars are never made from minutes.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Generic, TypeVar, cast

from core.clock import Clock
from core.errors import (
    BadRequestError,
    MalformedPayloadError,
    ProviderUnavailableError,
    SymbolNotFoundError,
)
from core.sessions import Calendar
from core.settings import Settings
from core.windows import Window
from core.words import Capability
from providers.base import (
    Call,
    Limit,
    NotConfigured,
    Page,
    Raw,
    Request,
    Spec,
    check_request,
    chunks,
)
from providers.rows import Reject, daily_bars, minute_bars

_PRICES = ("open", "high", "low", "close", "volume")
_DAILY = "daily.csv"
_SPAN_1M, _SPAN_1D = timedelta(days=31), timedelta(days=36_525)
_DAY = timedelta(days=1)
_MARK = re.compile(rb"^#file (.*)\n", re.MULTILINE)
"""The line that names a file in a payload of several; no line of a bar file begins so."""

_Key = TypeVar("_Key", int, date)


def build(settings: Settings, clock: Clock) -> "CsvFolder":
    """The provider over the folder that the settings name.

    Raises:
        NotConfigured: no folder is named, or it does not exist.
    """
    if not settings.csv_dir:
        raise NotConfigured("CSV_DIR is not set; name a folder with <SYMBOL>/<date>.csv in it")
    folder = Path(settings.csv_dir)
    if not folder.is_dir():
        raise NotConfigured(f"CSV_DIR {folder} is no folder; create it or name another")
    return CsvFolder(folder, clock)


class CsvFolder:
    """A folder of bar files, a source like any other; reading it costs no budget."""

    name = "csv"

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._specs = {
            capability: Spec(
                capability,
                batch=1,
                span=span,
                lookback=None,
                settle=timedelta(0),
                cost={},
                partial="never",
                adjustment="raw",
                pad=timedelta(0),
                timeout_s=10.0,
            )
            for capability, span in (
                (Capability.BARS_1M, _SPAN_1M),
                (Capability.BARS_EOD, _SPAN_1D),
            )
        }

    def limits(self) -> tuple[Limit, ...]:
        """Files have none."""
        return ()

    def specs(self) -> Mapping[Capability, Spec]:
        return self._specs

    def plan(self, request: Request) -> list[Call]:
        """See ``Provider.plan``; a symbol that is no plain file name is a bad request."""
        spec = check_request(self.name, self._specs, request, self._clock.now())
        for symbol in request.symbols:
            if Path(symbol).name != symbol or symbol in {"", ".", ".."} or "\0" in symbol:
                raise BadRequestError(
                    f"csv can't look for {symbol!r}: the name of a folder is expected; rename it"
                )
        windows = list(cast("Window", request.window).chunks(spec.span))
        return [
            Call(self.name, request.capability, "file", (symbol,), window, {})
            for window in windows
            for (symbol,) in chunks(request.symbols, 1)
        ]

    def send(self, call: Call, timeout_s: float) -> Raw:  # noqa: ARG002 - a file does not hang
        """Read the files that the window can touch; a day without a file has no bars.

        Raises:
            SymbolNotFoundError: the symbol has no folder, or no ``daily.csv`` for daily bars.
            ProviderUnavailableError: a file can't be read.
        """
        symbol = call.symbols[0]
        folder = self._folder / symbol
        daily = call.capability is Capability.BARS_EOD
        parts: list[bytes] = []
        try:
            if not folder.is_dir():
                raise SymbolNotFoundError(f"csv has no folder {symbol} in {self._folder}")
            for name in [_DAILY] if daily else _file_names(cast("Window", call.window)):
                path = folder / name
                if path.is_file():
                    parts.append(f"#file {symbol}/{name}\n".encode() + path.read_bytes())
        except OSError as error:
            raise ProviderUnavailableError(
                f"csv can't read {error.filename or folder}: {error.strerror}"
            ) from error
        if daily and not parts:
            raise SymbolNotFoundError(f"csv has no {symbol}/{_DAILY} in {self._folder}")
        return Raw(200, b"\n".join(parts), {})

    def parse(self, call: Call, raw: Raw, sessions: Calendar | None) -> Page:
        """See ``Provider.parse``; a bad row is a reject that names file and line.

        Raises:
            MalformedPayloadError: a file is no text, or has no header with the columns.
        """
        symbol, window = call.symbols[0], cast("Window", call.window)
        if call.capability is Capability.BARS_1M:
            minutes = _read(call, raw, "ts", _epoch)
            bars, refused = minute_bars(symbol, minutes.rows, window, sessions, minutes.places)
            return Page(bars={symbol: bars}, rejects=[*minutes.rejects, *refused])
        days = _read(call, raw, "session", date.fromisoformat)
        bars, refused = daily_bars(symbol, days.rows, window, sessions, days.places)
        return Page(bars={symbol: bars}, rejects=[*days.rejects, *refused])

    def close_rested(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Table(Generic[_Key]):
    """Rows in file order, where each key was written last, and rows without a key."""

    rows: list[tuple[_Key, object, object, object, object, object]]
    places: dict[_Key, str]
    rejects: list[Reject]


def _read(call: Call, raw: Raw, column: str, convert: Callable[[str], _Key]) -> _Table[_Key]:
    table: _Table[_Key] = _Table([], {}, [])
    for place, words in _records(raw.body, (column, *_PRICES)):
        try:
            key = convert(words[0])
        except ValueError as error:
            # Nobody can say when it was: it is told at the window's start.
            when = cast("Window", call.window).start
            reason = f"{place}: {column} is {words[0]!r}: {error}"
            table.rejects.append((call.symbols[0], when, reason))
            continue
        first, high, low, last, volume = map(_cell, words[1:])
        table.rows.append((key, first, high, low, last, volume))
        table.places[key] = place
    return table


def _records(body: bytes, columns: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """File and line, and the words of the columns in their order, of every row of every file."""
    _, *pieces = _MARK.split(body)
    for name, content in zip(pieces[::2], pieces[1::2], strict=True):
        file = name.decode()
        try:
            reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
            header = [word.strip() for word in next(reader, list[str]())]
            places = [header.index(column) for column in columns]
            for words in reader:
                if words:
                    filled = words + [""] * (len(header) - len(words))
                    yield f"{file} line {reader.line_num}", [filled[n].strip() for n in places]
        except (ValueError, csv.Error) as error:
            raise MalformedPayloadError(
                f"csv can't read {file}: {error}; expected UTF-8 with the header {','.join(columns)}"
            ) from error


def _file_names(window: Window) -> list[str]:
    """Files are named by session date, which can lie a day beside the UTC date."""
    first, last = window.start.date() - _DAY, window.end.date() + _DAY
    return [f"{first + _DAY * n}.csv" for n in range((last - first).days + 1)]


def _epoch(word: str) -> int:
    moment = datetime.fromisoformat(word)
    if moment.tzinfo is None:
        raise ValueError("it has no zone; end it with Z")
    return int(moment.timestamp())


def _cell(word: str) -> object:
    if not word:
        return None
    try:
        return float(word)
    except ValueError:
        return word
