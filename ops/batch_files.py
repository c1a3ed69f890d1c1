"""Record batches as CSV, NDJSON or Parquet: a batch at a time, to stdout or to a file that appears whole.

Loads pyarrow (60 MB), so commands import it only when they write or read such a file.
"""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from core.errors import UsageError

# By name: pyarrow brings no types.
pa: Any = import_module("pyarrow")
pc: Any = import_module("pyarrow.compute")
pcsv: Any = import_module("pyarrow.csv")
pq: Any = import_module("pyarrow.parquet")

Write = Callable[[Any], None]
"""Takes one record batch."""

FORMATS = ("csv", "ndjson", "parquet")
_SUFFIXES = {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".parquet": "parquet"}
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_GROUP_ROWS = 32_768
"""Rows of a Parquet row group: what a writer and any later reader hold in memory at once."""


def layout(path: Path, asked: str | None = None) -> tuple[str, str | None]:
    """Format and compression of a file by its name: ``bars.csv.zst`` is CSV under zstd.

    Args:
        path: Its suffixes tell.
        asked: A format that was named; None: the name must tell.

    Raises:
        UsageError: the name tells no format, or another one than was asked for.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = _COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    inner = suffixes[:-1] if compression else suffixes
    told = _SUFFIXES.get(inner[-1]) if inner else None
    found = asked or told
    if found is None:
        raise UsageError(
            f"{path} does not tell its format; name it .csv, .ndjson or .parquet "
            "(.gz and .zst compress the first two), or add --format"
        )
    if told is not None and told != found:
        raise UsageError(f"{path} is named as {told}, but --format says {found}; mend one of them")
    if found == "parquet" and compression:
        raise UsageError(f"{path}: Parquet compresses by itself; name the file .parquet")
    return found, compression


@contextmanager
def writer(path: Path | None, form: str, compression: str | None, schema: Any) -> Generator[Write]:
    """Writes batches of a schema; None is stdout.

    A file is written beside its place and moved there at the end: a run that dies leaves no half file
    under the name. ``schema`` is known before the first batch, so no rows make a file with columns.
    """
    if path is None:
        if form == "parquet":
            raise UsageError("parquet is a file format; name the file with --output bars.parquet")
        yield _text_writer(sys.stdout.buffer, form, schema)
        sys.stdout.buffer.flush()
        return
    part = path.with_name(f".{path.name}.part")
    try:
        if form == "parquet":
            with _parquet_writer(part, schema) as write:
                yield write
        else:
            with pa.output_stream(str(part), compression=compression) as sink:
                yield _text_writer(sink, form, schema)
        part.replace(path)
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)


def _text_writer(sink: BinaryIO | Any, form: str, schema: Any) -> Write:
    if form == "ndjson":
        return lambda batch: _write_ndjson(sink, batch)
    sink.write((",".join(schema.names) + "\n").encode())
    return lambda batch: _write_csv(sink, batch)


def _write_csv(sink: Any, batch: Any) -> None:
    # Through memory of ours, so that an error of the sink (a closed pipe) arrives as it is.
    block = pa.BufferOutputStream()
    pcsv.write_csv(with_texts(batch), block, pcsv.WriteOptions(include_header=False))
    sink.write(block.getvalue().to_pybytes())


def _write_ndjson(sink: Any, batch: Any) -> None:
    for at in range(0, batch.num_rows, 4096):
        rows = with_texts(batch.slice(at, 4096)).to_pylist()
        sink.write(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))


def with_texts(batch: Any) -> Any:
    """The batch with its times as ISO text with Z, microseconds only where there are any."""
    arrays = [
        _iso(column) if pa.types.is_timestamp(column.type) else _date(column)
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)


def _date(column: Any) -> Any:
    return pc.cast(column, pa.string()) if pa.types.is_date(column.type) else column


def _iso(column: Any) -> Any:
    # The cast of a naive time needs no zone database. A literal to join with would load pandas (40 MB).
    text = pc.cast(pc.cast(column, pa.timestamp("us")), pa.string())
    text = pc.binary_replace_slice(text, 10, 11, "T")
    return pc.replace_substring_regex(text, r"(\.000000)?$", "Z")


@contextmanager
def _parquet_writer(path: Path, schema: Any) -> Generator[Write]:
    waiting: list[Any] = []
    # Numbers hardly repeat: a dictionary of them costs memory here and in every reader.
    words = [field.name for field in schema if pa.types.is_string(field.type)]
    with pq.ParquetWriter(str(path), schema, compression="zstd", use_dictionary=words) as sink:

        def flush() -> None:
            if waiting:
                sink.write_table(pa.Table.from_batches(waiting, schema=schema))
                waiting.clear()

        def write(batch: Any) -> None:
            waiting.append(batch)
            if sum(one.num_rows for one in waiting) >= _GROUP_ROWS:
                flush()

        yield write
        flush()
