"""Rows of a file of revisions with their line numbers, streamed, whatever the format.

A line that is no row comes as the text of what is wrong with it; the rest goes on.
"""

import csv
import io
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

import orjson

from core.errors import UsageError
from db.revision_rows import COLUMNS, OPTIONAL, REQUIRED
from ops.batch_files import layout, pa, pq

Line = tuple[int, Sequence[Any] | str]
"""Line number from 1 (a row number in Parquet), and the row's cells, or why it is no row."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BATCH_ROWS = 2048


@contextmanager
def rows(path: Path, form: str | None = None) -> Generator[tuple[Iterator[Line], "Position"]]:
    """Open a file of revisions.

    Yields:
        Its rows, and how far they were read.

    Raises:
        UsageError: no such file, an unknown format, or columns are missing.
    """
    form, compression = layout(path, form)
    try:
        size = path.stat().st_size
        if form == "parquet":
            with pq.ParquetFile(str(path), buffer_size=1 << 16) as source:
                position = Position(source.metadata.num_rows)
                yield _parquet(path, source, position), position
            return
        with pa.OSFile(str(path)) as raw:
            position = Position(size, raw)
            stream = pa.CompressedInputStream(raw, compression) if compression else raw
            # What is no UTF-8 becomes visible instead of ending the read.
            text = io.TextIOWrapper(
                io.BufferedReader(stream, 1 << 20), "utf-8-sig", "backslashreplace", newline=""
            )
            yield (_csv(path, text) if form == "csv" else _ndjson(text)), position
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{path} can't be read as {form}: {reason}") from None


class Position:
    """How far a file has been read; bytes, or rows where there is no stream of bytes."""

    def __init__(self, whole: int, raw: Any = None) -> None:
        self._whole = max(whole, 1)
        self._raw = raw
        self.rows = 0

    @property
    def fraction(self) -> float:
        """Read of the file, in [0, 1]."""
        return min((self._raw.tell() if self._raw else self.rows) / self._whole, 1.0)


def _check(path: Path, names: list[str]) -> None:
    missing = [name for name in REQUIRED if name not in names]
    unknown = [name for name in names if name not in COLUMNS]
    if missing:
        more = f"; it has {', '.join(unknown)}, which mean nothing here" if unknown else ""
        raise UsageError(
            f"{path} lacks the columns {', '.join(missing)}{more}; expected what `ops export` writes: "
            f"{', '.join(REQUIRED)}, and optionally {', '.join(OPTIONAL)}"
        )


def _csv(path: Path, text: io.TextIOWrapper) -> Iterator[Line]:
    reader = csv.reader(text)
    header = [name.strip() for name in next(reader, list[str]())]
    _check(path, header)
    width = len(header)
    # What the file lacks is taken from a None behind the cells.
    pick = itemgetter(*(header.index(name) if name in header else width for name in COLUMNS))
    while True:
        line = reader.line_num + 1
        try:
            cells: list[Any] = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, f"not a line of CSV: {error}"
            continue
        if len(cells) == width:
            cells.append(None)
            yield line, pick(cells)
        elif cells:
            yield line, f"{len(cells)} cells, expected {width}: {','.join(cells)[:200]}"


def _ndjson(text: io.TextIOWrapper) -> Iterator[Line]:
    for line, row in enumerate(text, start=1):
        if not row.strip():
            continue
        try:
            found = orjson.loads(row)
        except orjson.JSONDecodeError as error:
            yield line, f"not a line of JSON: {error}: {row[:200].rstrip()}"
            continue
        if isinstance(found, dict):
            yield line, tuple(map(cast("dict[str, Any]", found).get, COLUMNS))
        else:
            yield line, f"not a JSON object: {row[:200].rstrip()}"


def _parquet(path: Path, source: Any, position: Position) -> Iterator[Line]:
    names = list(source.schema_arrow.names)
    _check(path, names)
    wanted = [name for name in names if name in COLUMNS]
    for group in range(source.num_row_groups):
        # One group at a time and no threads: a reader of them all, and each thread, keep what they had.
        for batch in source.iter_batches(
            _BATCH_ROWS, row_groups=[group], columns=wanted, use_threads=False
        ):
            there = {name: _cells(path, name, batch.column(name)) for name in wanted}
            nothing = [None] * batch.num_rows
            for cells in zip(*(there.get(name, nothing) for name in COLUMNS), strict=True):
                position.rows += 1
                yield position.rows, cells
        pa.default_memory_pool().release_unused()


def _cells(path: Path, name: str, column: Any) -> list[Any]:
    if not pa.types.is_timestamp(column.type):
        return column.to_pylist()
    if column.type.tz is None:
        raise UsageError(f"{path}: the times of {name} have no zone; expected UTC or another zone")
    # Not by pyarrow's own datetimes, which load pandas.
    return [
        None if number is None else _EPOCH + timedelta(microseconds=number)
        for number in column.cast(pa.timestamp("us")).cast(pa.int64()).to_pylist()
    ]
