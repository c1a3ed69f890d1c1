"""Bars from files: ``<folder>/<SYMBOL>/<date>.csv``, and ``<folder>/<SYMBOL>/daily.csv`` for daily bars.

Columns ``ts,open,high,low,close,volume``; ts is the start of the minute in UTC (for daily bars the
session date). A folder that somebody else fills is a source like any other.
"""

import csv
import io
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import cast

from core.clock import Clock
from core.errors import MalformedPayloadError, ProviderUnavailableError, SymbolNotFoundError
from core.sessions import Calendar
from core.settings import Settings
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
from providers.rows import DailyRow, Row, daily_bars, minute_bars

_COLUMNS = ["ts", "open", "high", "low", "close", "volume"]
_DAY = timedelta(days=1)


def build(settings: Settings, clock: Clock) -> "CsvFolder":
    """The provider over the folder that the settings name.

    Raises:
        NotConfigured: no folder is named, or it does not exist.
    """
    if not settings.csv_dir:
        raise NotConfigured("no folder: set CSV_DIR to one with <SYMBOL>/<date>.csv in it")
    folder = Path(settings.csv_dir)
    if not folder.is_dir():
        raise NotConfigured(f"CSV_DIR {folder} is no folder; create it or name another")
    return CsvFolder(folder, clock)


class CsvFolder:
    """A folder of bar files; reading it costs nobody's budget."""

    name = "csv"

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._specs = {
            capability: Spec(
                capability,
                batch=1,
                span=timedelta(days=31 if capability is Capability.BARS_1M else 36_500),
                lookback=None,
                settle=timedelta(0),
                cost={},
                partial="never",
                adjustment="raw",
                pad=timedelta(0),
                timeout_s=3.0,
            )
            for capability in (Capability.BARS_1M, Capability.BARS_EOD)
        }

    def limits(self) -> tuple[Limit, ...]:
        """Files have none."""
        return ()

    def specs(self) -> Mapping[Capability, Spec]:
        return self._specs

    def plan(self, request: Request) -> list[Call]:
        """See ``Provider.plan``."""
        spec = check_request(self.name, self._specs, request, self._clock.now())
        windows = list(request.window.chunks(spec.span)) if request.window else []
        return [
            Call(self.name, request.capability, "file", (symbol,), window, {})
            for window in windows
            for (symbol,) in chunks(request.symbols, 1)
        ]

    def send(self, call: Call, timeout_s: float) -> Raw:  # noqa: ARG002 - a file does not hang
        """Read the files that the window touches; a day without a file has no bars.

        Raises:
            SymbolNotFoundError: the symbol has no folder.
            ProviderUnavailableError: a file can't be read.
        """
        folder = self._folder / call.symbols[0]
        # A symbol is no path: nothing outside of the folder is ever read.
        if folder.parent != self._folder or not folder.is_dir():
            raise SymbolNotFoundError(f"csv has no folder for {call.symbols[0]}")
        parts: list[bytes] = []
        for path in self._files(folder, call):
            try:
                parts.append(b"# " + path.name.encode() + b"\n" + path.read_bytes())
            except FileNotFoundError:
                continue
            except OSError as error:
                raise ProviderUnavailableError(
                    f"csv file {path} can't be read: {error.strerror}"
                ) from error
        return Raw(200, b"\n".join(parts), {})

    def parse(self, call: Call, raw: Raw, sessions: Calendar | None) -> Page:
        """See ``Provider.parse``.

        Raises:
            MalformedPayloadError: names file and line.
        """
        symbol, window = call.symbols[0], call.window
        assert window is not None, "a file call has a window"
        rows = _rows(call, raw.body.decode("utf-8-sig", "replace"))
        if call.capability is Capability.BARS_1M:
            minutes = cast("list[Row]", rows)
            bars, rejects = minute_bars(symbol, minutes, window, sessions)
        else:
            bars, rejects = daily_bars(symbol, cast("list[DailyRow]", rows), window, sessions)
        return Page(bars={symbol: bars}, rejects=rejects)

    def close(self) -> None: ...

    def _files(self, folder: Path, call: Call) -> list[Path]:
        assert call.window is not None, "a file call has a window"
        if call.capability is Capability.BARS_EOD:
            return [folder / "daily.csv"]
        # Files are named by session date, which can lie a day beside the UTC date.
        first, last = call.window.start.date() - _DAY, call.window.end.date() + _DAY
        days = [first + _DAY * offset for offset in range((last - first).days + 1)]
        return [folder / f"{day.isoformat()}.csv" for day in days]


def _rows(call: Call, text: str) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    file, line = "", 0
    for words in csv.reader(io.StringIO(text)):
        line += 1
        if words and words[0].startswith("# "):
            file, line = words[0][2:], 0
            continue
        if not words or words == _COLUMNS:
            continue
        if len(words) != len(_COLUMNS):
            raise MalformedPayloadError(
                f"csv {call.symbols[0]}/{file} line {line} has {len(words)} columns; expected {','.join(_COLUMNS)}"
            )
        start = _start(call, words[0], f"{call.symbols[0]}/{file} line {line}")
        rows.append((start, *(_cell(word) for word in words[1:])))
    return rows


def _start(call: Call, word: str, where: str) -> int | date:
    try:
        if call.capability is Capability.BARS_EOD:
            return date.fromisoformat(word[:10])
        moment = datetime.fromisoformat(word)
    except ValueError as error:
        raise MalformedPayloadError(
            f"csv {where}: ts is {word!r}; expected ISO 8601 in UTC"
        ) from error
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())


def _cell(word: str) -> object:
    if not word:
        return None
    try:
        return float(word)
    except ValueError:
        return word
