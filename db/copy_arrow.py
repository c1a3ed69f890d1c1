"""Rows of a query as Arrow record batches: binary COPY, decoded column by column.

No value passes through a Python object, and the server's rows stream: memory is one batch, however
long the answer. Loads pyarrow and numpy, so only readers and commands import it, never collectors.
Format: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format".
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, LiteralString, cast

import numpy as np
import pyarrow  # pyright: ignore[reportMissingTypeStubs]
from numpy.typing import NDArray

from db.pool import Connection

pa = cast("Any", pyarrow)

BATCH_ROWS = 16_384
_HEADER = 19
"""Signature, flags and the length of an empty extension; arrives in front of the first row."""
_TRAILER = b"\xff\xff"
_EPOCH_US = 946_684_800_000_000
"""2000-01-01, PostgreSQL's epoch, in microseconds since 1970."""
_EPOCH_DAYS = 10_957

_FIXED = {
    "float8": (np.dtype(">f8"), pa.float64()),
    "int8": (np.dtype(">i8"), pa.int64()),
    "int4": (np.dtype(">i4"), pa.int32()),
    "int2": (np.dtype(">i2"), pa.int16()),
    "timestamptz": (np.dtype(">i8"), pa.timestamp("us", tz="UTC")),
    "date": (np.dtype(">i4"), pa.date32()),
}
_LENGTH = np.dtype(">i4")
_PAD = bytes(8)
"""So that the place of a NULL at the very end can be looked at like any other."""

Bytes = NDArray[np.uint8]
Offsets = NDArray[np.int64]


def schema(columns: Mapping[str, str]) -> Any:
    """The Arrow schema of columns given as name to PostgreSQL type (``text`` or one of ``_FIXED``)."""
    return pa.schema(
        [
            (name, pa.string() if kind == "text" else _FIXED[kind][1])
            for name, kind in columns.items()
        ]
    )


def stream(
    conn: Connection,
    statement: LiteralString,
    parameters: Mapping[str, Any],
    columns: Mapping[str, str],
    *,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[Any]:
    """Record batches of a query in the query's order.

    Args:
        conn: In a transaction where the horizon was taken by an earlier statement.
        statement: A SELECT whose columns have exactly the names' types.
        parameters: Of the statement.
        columns: Name to PostgreSQL type, in order.
        batch_rows: At most so many rows a batch.
    """
    wanted = schema(columns)
    rows: list[bytes] = []
    first = True
    with conn.cursor().copy(
        "COPY (" + statement + ") TO STDOUT (FORMAT BINARY)", parameters
    ) as copy:
        for message in copy:
            row = bytes(message)
            if first:
                row, first = row[_HEADER:], False
            if row == _TRAILER or not row:
                continue
            rows.append(row)
            if len(rows) >= batch_rows:
                yield _decode(rows, columns, wanted)
                rows.clear()
    if rows:
        yield _decode(rows, columns, wanted)


def _decode(rows: Sequence[bytes], columns: Mapping[str, str], wanted: Any) -> Any:
    data = b"".join(rows) + _PAD
    buffer = np.frombuffer(data, np.uint8)
    ends = np.cumsum(np.fromiter(map(len, rows), np.int64, len(rows)))
    at = np.empty_like(ends)
    at[0], at[1:] = 0, ends[:-1]
    at += 2  # the row's number of fields
    arrays: list[Any] = []
    for kind in columns.values():
        lengths = _gather(buffer, at, _LENGTH).astype(np.int64)
        at += 4
        missing = lengths < 0
        lengths[missing] = 0
        if kind == "text":
            arrays.append(_texts(buffer, at, lengths, missing))
        else:
            arrays.append(_numbers(buffer, at, missing, kind))
        at += lengths
    return pa.RecordBatch.from_arrays(arrays, schema=wanted)


def _gather(buffer: Bytes, at: Offsets, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Values of one type that begin at any byte."""
    everywhere = np.ndarray((len(buffer) - dtype.itemsize + 1,), dtype, buffer, strides=(1,))
    return everywhere[at]


def _numbers(buffer: Bytes, at: Offsets, missing: NDArray[np.bool_], kind: str) -> Any:
    dtype, arrow = _FIXED[kind]
    values = _gather(buffer, at, dtype).astype(dtype.newbyteorder("="))
    if kind == "timestamptz":
        values += _EPOCH_US
    elif kind == "date":
        values += _EPOCH_DAYS
    return pa.Array.from_buffers(arrow, len(values), [_valid(missing), pa.py_buffer(values)])


def _texts(buffer: Bytes, at: Offsets, lengths: Offsets, missing: NDArray[np.bool_]) -> Any:
    ends = np.cumsum(lengths)
    total = int(ends[-1])
    begins = ends - lengths
    places = np.repeat(at - begins, lengths) + np.arange(total)
    offsets = np.zeros(len(lengths) + 1, np.int32)
    offsets[1:] = ends
    return pa.StringArray.from_buffers(
        len(lengths), pa.py_buffer(offsets), pa.py_buffer(buffer[places]), _valid(missing)
    )


def _valid(missing: NDArray[np.bool_]) -> Any:
    """Arrow's bitmap of what is there, None where everything is; ``pa.array`` would load pandas."""
    if not missing.any():
        return None
    return pa.py_buffer(np.packbits(~missing, bitorder="little"))
