"""Repeats recorded as-of reads, and recomputes some of them from the plain rows."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from sim.check.probe import ALL, ONE, digest
from sim.check.stored import BarKey, Stored, StoredRow, connect
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
    whole: list[tuple[dict[str, Any], list[Any]]] = field(
        default_factory=list[tuple[dict[str, Any], list[Any]]]
    )
    """Question and answer of the reads of every source."""

    def add(self, other: "ReadFindings") -> None:
        """Take in the findings of another part."""
        self.reads += other.reads
        self.rows += other.rows
        self.changed += other.changed
        self.beyond += other.beyond
        self.examples += other.examples
        self.whole += other.whole


def repeat(url: str, path: Path) -> "ReadFindings":
    """Make every recorded read again, in as many processes as there are processors, and compare."""
    lines = list(_lines(path))
    workers = max(1, min(4, os.cpu_count() or 1))
    parts = [lines[at::workers] for at in range(workers)]
    findings = ReadFindings()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for part in pool.map(_repeat_part, [url] * workers, parts):
            findings.add(part)
    return findings


def _repeat_part(url: str, lines: list[dict[str, Any]]) -> "ReadFindings":
    findings = ReadFindings()
    with connect(url) as conn:
        for line in lines:
            question = {
                "symbols": line["symbols"],
                "interval": line["interval"],
                **{key: datetime.fromisoformat(line[key]) for key in ("start", "end", "as_of")},
            }
            rows = conn.execute(ALL if line["all"] else ONE, question).fetchall()
            findings.reads += 1
            findings.rows += len(rows)
            what = f"read of {line['symbols']} as of {line['as_of']}"
            if line["beyond"]:
                findings.beyond += 1
                findings.examples.append(f"{what} showed later knowledge")
            if digest(rows) != line["digest"]:
                findings.changed += 1
                findings.examples.append(f"{what} changed")
            if line["all"]:
                findings.whole.append((question, rows))
    return findings


def compare_with_rows(findings: "ReadFindings", stored: Stored, start: float, end: float) -> None:
    """Compare the reads of every source with what the plain rows of ``[start, end)`` say was known."""
    for question, rows in findings.whole:
        if not _agrees(rows, question, stored, start, end):
            findings.differ_from_rows += 1
            what = f"read of {question['symbols']} as of {question['as_of'].isoformat()}"
            findings.examples.append(f"{what} differs from the rows")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open() as file:
        for line in file:
            # A reader that was killed may have left half a line.
            if line.endswith("\n"):
                yield json.loads(line)


def _agrees(
    rows: list[Any], question: dict[str, Any], stored: Stored, first: float, last: float
) -> bool:
    symbol, interval = question["symbols"][0], question["interval"]
    start = max(question["start"].timestamp(), first)
    end = min(question["end"].timestamp(), last)
    shown = {
        (row[0], int(row[1].timestamp()), row[9]): (tuple(row[2:7]), row[10])
        for row in rows
        if start <= row[1].timestamp() < end
    }
    known: dict[tuple[str, int, str], tuple[Values, str]] = {}
    every = stored.bars.items() if interval == "1d" else _minute_rows(stored, symbol, start, end)
    for (kind, name, ts), revisions in every:
        if kind != interval or name != symbol or not start <= ts < end:
            continue
        newest: dict[str, StoredRow] = {}
        for row in revisions:
            if row.as_of <= question["as_of"].timestamp():
                newest[row.provider] = row
        for provider, row in newest.items():
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
