"""What commands print: aligned tables for people, JSON and CSV for programs."""

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, cast


def text(value: object) -> str:
    """A cell: times as ISO with Z, floats without noise, None as ``-``."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return (
            f"{value:%Y-%m-%dT%H:%M:%S}{f'.{value.microsecond:06d}' if value.microsecond else ''}Z"
        )
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, list | tuple):
        return ",".join(text(item) for item in cast("Sequence[object]", value)) or "-"
    return str(value)


def table(
    rows: Iterable[Mapping[str, object]],
    columns: Sequence[str],
    below: Sequence[Sequence[str]] = (),
) -> None:
    """Aligned columns with a header; numbers to the right.

    Args:
        rows: What stands in the columns, by their names.
        columns: In their order.
        below: For each row, lines to print below it as they are.
    """
    body = [
        list(rows_values) for rows_values in ([row.get(name) for name in columns] for row in rows)
    ]
    cells = [[text(value) for value in row] for row in body]
    widths = [
        max([len(name), *(len(row[index]) for row in cells)]) for index, name in enumerate(columns)
    ]
    right = [
        bool(body) and all(isinstance(row[i], int | float) or row[i] is None for row in body)
        for i in range(len(columns))
    ]
    for number, line in enumerate([list(columns), *cells], start=-1):
        parts = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ]
        print("  ".join(parts).rstrip())
        for more in below[number] if 0 <= number < len(below) else ():
            print(more)


def as_json(value: Any) -> None:
    """One JSON document; times as ISO with Z."""
    print(json.dumps(value, default=_plain, indent=2))


def ndjson(rows: Iterable[Mapping[str, object]]) -> None:
    """One JSON object a line."""
    for row in rows:
        print(json.dumps(row, default=_plain))


def as_csv(rows: Iterable[Mapping[str, object]], columns: Sequence[str]) -> None:
    """CSV with a header; None is empty, floats keep every digit."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row.get(name)) for name in columns])


def _cell(value: object) -> object:
    if value is None:
        return ""
    return _plain(value) if isinstance(value, date) else value


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return text(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, set | frozenset | tuple):
        return list(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return str(value)
