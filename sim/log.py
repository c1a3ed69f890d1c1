"""The request log: one JSON object a line, ``seq`` is the line's number."""

import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from core.errors import SettingsError


class RequestLog:
    """Appends lines and reads them back by number.

    Lines wait in memory until ``flush``; whoever owns the log flushes every second, on demand and
    at the end.
    """

    def __init__(self, path: Path | None) -> None:
        try:
            self._file: BinaryIO = tempfile.TemporaryFile() if path is None else path.open("w+b")  # noqa: SIM115 - open as long as the process
        except OSError as error:
            raise SettingsError(f"log_file {path} can't be written: {error.strerror}") from error
        self._waiting: list[bytes] = []
        self._ends = array("Q")
        self._size = 0

    def __len__(self) -> int:
        return len(self._ends)

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
            begin = self._ends[since - 1] if since else 0
            self._file.seek(begin)
            yield self._file.read(self._ends[until - 1] - begin)
            since = until

    def close(self) -> None:
        """Flush and close; nothing can be appended after."""
        self.flush()
        self._file.close()
