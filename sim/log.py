"""The request log: one JSON object a line, ``seq`` is the line's number."""

import tempfile
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from core.errors import SettingsError
from sim.runs import Run, read_runs, write_runs


class RequestLog:
    """Appends lines and reads them back by number.

    Lines wait in memory until ``flush``; whoever owns the log flushes every second, on demand and
    at the end.

    Args:
        path: Where; None: a file without a name.
        now: Market time, epoch seconds.
        kept_for: Mark of the market whose log in ``path`` is gone on with; the log of another
            market is replaced. None: always begin anew.

    Raises:
        SettingsError: the file can't be written.
    """

    def __init__(
        self, path: Path | None, now: Callable[[], float], *, kept_for: str | None = None
    ) -> None:
        self._path, self._market, self._now = path, kept_for, now
        self._waiting: list[bytes] = []
        self._ends = array("Q")
        self._size = 0
        self._runs: list[Run] = []
        kept = None if path is None or kept_for is None else read_runs(path, kept_for)
        try:
            if path is None:
                self._file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
            else:
                self._file = path.open("w+b" if kept is None else "r+b")
            if kept is not None:
                self._go_on(kept)
            self._runs.append(Run(now()))
            self._write_runs()
        except OSError as error:
            raise SettingsError(f"log_file {path} can't be written: {error.strerror}") from error

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def runs(self) -> tuple[Run, ...]:
        """Who wrote this log and when, oldest first; the last one is ours."""
        return tuple(self._runs)

    def append(self, row: dict[str, Any]) -> None:
        """Number a row and keep it."""
        row["seq"] = len(self._ends)
        line = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
        self._size += len(line)
        self._ends.append(self._size)
        self._waiting.append(line)

    def flush(self) -> None:
        """Write what waits to the file."""
        if self._waiting:
            lines, self._waiting = self._waiting, []
            self._file.seek(0, 2)
            self._file.write(b"".join(lines))
            self._file.flush()

    def read(self, since: int, stop: int) -> Iterator[bytes]:
        """Lines ``since <= seq < stop``, in pieces of whole lines."""
        self.flush()
        stop = min(stop, len(self._ends))
        while since < stop:
            until = min(stop, since + 500)
            begin = self._begin(since)
            self._file.seek(begin)
            yield self._file.read(self._ends[until - 1] - begin)
            since = until

    def first_at(self, instant: float) -> int:
        """Number of the first line that was answered at or after a market instant."""
        self.flush()
        low, high = 0, len(self._ends)
        while low < high:
            middle = (low + high) // 2
            if self._line(middle)["answered"] < instant:
                low = middle + 1
            else:
                high = middle
        return low

    def close(self) -> None:
        """Flush and close; nothing can be appended after."""
        if self._file.closed:
            return
        self.flush()
        self._file.close()
        self._runs[-1].ended = self._now()
        self._write_runs()

    def _go_on(self, runs: list[Run]) -> None:
        """Find the lines of earlier runs; half a line, which a killed run may leave, is cut off."""
        whole = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            self._ends.append(whole)
        self._file.truncate(whole)
        self._size, self._runs = whole, runs
        last = runs[-1] if runs else None
        if last is not None and last.ended is None:
            answered = self._line(len(self._ends) - 1)["answered"] if self._ends else last.began
            last.ended = max(last.began, answered)

    def _line(self, number: int) -> dict[str, Any]:
        begin = self._begin(number)
        self._file.seek(begin)
        return orjson.loads(self._file.read(self._ends[number] - begin))

    def _begin(self, number: int) -> int:
        return self._ends[number - 1] if number else 0

    def _write_runs(self) -> None:
        if self._path is not None and self._market is not None:
            write_runs(self._path, self._market, self._runs)
