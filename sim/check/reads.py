"""Repeats recorded as-of reads, and recomputes some of them from the plain rows."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg

from sim.check.probe import ALL, ONE, digest
from sim.check.stored import BarKey, Stored, StoredRow
from sim.check.truth import Values

_STATUS = {0: "partial", 1: "final", 2: "revised", 3: "withdrawn"}


@dataclass(slots=True)
class ReadFindings:
    """How the repeated reads compare."""

    reads: int = 0
    rows: int = 0
    changed: int = 0
    beyond: int = 0
    """Reads that showed knowledge from after their own instant."""
    differ_from_rows: int = 0
    """Reads of every source that differ from what the plain rows say was known."""
    examples: list[str] = field(default_factory=list[str])


def repeat(conn: psycopg.Connection[Any], path: Path, stored: Stored) -> ReadFindings:
    """Make every recorded read again and compare."""
    findings = ReadFindings()
    for line in _lines(path):
        question = {
            "symbols": line["symbols"],
            "interval": line["interval"],
            **{key: datetime.fromisoformat(line[key]) for key in ("start", "end", "as_of")},
        }
        rows = conn.execute(ALL if line["all"] else ONE, question).fetchall()
        findings.reads += 1
        findings.rows += len(rows)
        if line["beyond"]:
            findings.beyond += 1
            findings.examples.append(
                f"read {findings.reads} as of {line['as_of']} showed later knowledge"
            )
        if digest(rows) != line["digest"]:
            findings.changed += 1
            findings.examples.append(
                f"read {findings.reads} of {line['symbols']} as of {line['as_of']} changed"
            )
        if line["all"] and not _agrees(rows, question, stored):
            findings.differ_from_rows += 1
            findings.examples.append(
                f"read {findings.reads} of {line['symbols']} as of {line['as_of']} differs from the rows"
            )
    return findings


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open() as file:
        for line in file:
            # A reader that was killed may have left half a line.
            if line.endswith("\n"):
                yield json.loads(line)


def _agrees(rows: list[Any], question: dict[str, Any], stored: Stored) -> bool:
    shown = {(row[0], int(row[1].timestamp()), row[9]): (tuple(row[2:7]), row[10]) for row in rows}
    known: dict[tuple[str, int, str], tuple[Values, str]] = {}
    symbol, interval = question["symbols"][0], question["interval"]
    start, end = question["start"].timestamp(), question["end"].timestamp()
    for (kind, name, ts), revisions in (
        stored.bars.items() if interval == "1d" else _minute_rows(stored, symbol, start, end)
    ):
        if kind != interval or name != symbol or not start <= ts < end:
            continue
        newest: dict[str, StoredRow] = {}
        for row in revisions:
            if row.as_of <= question["as_of"].timestamp():
                newest[row.provider] = row
        for provider, row in newest.items():
            if row.status != 3:
                known[(name, ts, provider)] = (row.values, _STATUS[row.status])
    return shown == known


def _minute_rows(
    stored: Stored, symbol: str, start: float, end: float
) -> Iterator[tuple[BarKey, list[StoredRow]]]:
    first = int(start) // 60 * 60
    for ts in range(first, int(end) + 60, 60):
        key = ("1m", symbol, ts)
        if key in stored.bars:
            yield key, stored.bars[key]
