"""``ops export`` and ``ops import``: every revision of a selection to a file, and back."""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from core.errors import UsageError
from core.exchanges import calendar_of
from core.words import Interval, Tier
from ops import knowledge
from ops.connect import database
from ops.progress import Progress
from ops.registering import Commands
from ops.symbols import chosen, symbols_and_window
from ops.times import instant
from ops.words import interval

if TYPE_CHECKING:
    from db.pool import Database
    from db.revision_rows import Revision

_BATCH_ROWS = 5_000
"""Rows of a transaction of an import, and about 10 MB of memory."""


def register(commands: Commands) -> None:
    out = commands.add_parser(
        "export",
        help="write every revision of a selection to a file",
        epilog="Example: ops export SPY BAC --output bars.parquet   (or bars.csv.zst, bars.ndjson.gz)",
    )
    out.add_argument("symbols", nargs="*", metavar="SYMBOL", help="none: all")
    out.add_argument("--interval", type=interval, action="append", help="1m or 1d (default: both)")
    out.add_argument("--start", help="instant with Z or offset, or a session date")
    out.add_argument("--end", help="open end: instant, or a session date (its close)")
    out.add_argument("--provider", action="append", help="only this source; may be repeated")
    out.add_argument("--as-of", help="leave out what was learnt after this instant (default: now)")
    out.add_argument("--output", type=Path, help="file (default: stdout); its name tells format")
    out.add_argument("--format", choices=["csv", "ndjson", "parquet"])
    out.set_defaults(run=run_export)

    take = commands.add_parser(
        "import",
        help="take revisions in from a file that export wrote",
        epilog="Example: ops import bars.parquet --create-symbols",
    )
    take.add_argument("file", type=Path, help=".csv or .ndjson, also with .gz or .zst, or .parquet")
    take.add_argument("--format", choices=["csv", "ndjson", "parquet"])
    take.add_argument(
        "--create-symbols", action="store_true", help="add symbols that the universe lacks"
    )
    take.add_argument(
        "--tier", choices=list(Tier), default=Tier.T2, type=Tier, help="of new symbols"
    )
    take.add_argument("--exchange", default="NYSE", help="of new symbols (default: NYSE)")
    take.add_argument(
        "--as-news",
        action="store_true",
        help="restore nothing: as_of is now even where a series has no rows yet",
    )
    take.add_argument(
        "--rejects", type=Path, help="side file for bad rows (default: FILE.rejected.csv)"
    )
    take.set_defaults(run=run_import)


def run_export(options: argparse.Namespace) -> int:
    """Stream the revisions; the file appears under its name when it is whole."""
    # pyarrow costs 60 MB, which only a transfer needs.
    from db.revision_export import Selection, export  # noqa: PLC0415
    from ops.batch_files import layout, writer  # noqa: PLC0415

    form, compression = options.format or "csv", None
    if options.output is not None:
        form, compression = layout(options.output, options.format)
    rows = 0
    with database() as db:
        symbols, start, end = _chosen(db, options)
        as_of = knowledge.as_of(db, options.as_of)
        selection = Selection(
            symbols or None,
            options.interval or (Interval.M1, Interval.D1),
            start,
            end,
            knowledge.providers(db, options.provider),
        )
        progress = Progress("export", db.clock)
        with (
            export(db, selection, as_of) as found,
            writer(options.output, form, compression, found.schema) as write,
        ):
            for done, batches in enumerate(found.parts):
                for batch in batches:
                    write(batch)
                    rows += batch.num_rows
                    progress.tell(done / found.symbols, rows)
    where = options.output or "stdout"
    progress.done(f"{rows:,} revisions as of {found.as_of.isoformat()} -> {where}")
    return 0


def _chosen(db: "Database", options: argparse.Namespace) -> tuple[list[str], Any, Any]:
    if options.start and options.end and options.symbols:
        symbols, window = symbols_and_window(db, options.symbols, options.start, options.end)
        return symbols, window.start, window.end
    with db.transaction() as conn:
        symbols = [member.symbol for member in chosen(conn, options.symbols)]
    # Without symbols there is no calendar, so a bare date means nothing here.
    return (
        symbols,
        instant(options.start, "--start") if options.start else None,
        instant(options.end, "--end") if options.end else None,
    )


def run_import(options: argparse.Namespace) -> int:
    """Import a file; 1 when rows were rejected. The same file again adds nothing."""
    from db.revision_import import Importer, NewSymbols  # noqa: PLC0415
    from db.revision_rows import COLUMNS, BadRowError, parse  # noqa: PLC0415
    from ops.revision_files import rows  # noqa: PLC0415

    path: Path = options.file
    if not path.is_file():
        raise UsageError(f"{path} is no file; expected what `ops export --output` wrote")
    create = None
    if options.create_symbols:
        create = NewSymbols(options.tier, calendar_of(options.exchange), options.exchange)
    batch: list[Revision] = []
    read = 0
    with (
        _Rejects(options.rejects or path.with_name(f"{path.name}.rejected.csv")) as rejects,
        database() as db,
        rows(path, options.format) as (lines, position),
        Importer(db, create, options.as_news) as importer,
    ):
        progress = Progress("import", db.clock)
        for line, row in lines:
            read += 1
            if isinstance(row, str):
                rejects.add(line, row, None)
                continue
            try:
                batch.append(parse(line, row))
            except BadRowError as error:
                rejects.add(line, str(error), dict(zip(COLUMNS, row, strict=True)))
            if len(batch) >= _BATCH_ROWS:
                rejects.of(batch, importer.add(batch))
                batch.clear()
                progress.tell(position.fraction, read)
        if batch:
            rejects.of(batch, importer.add(batch))
    counts = importer.counts
    progress.done(
        f"{read:,} rows: {counts.restored:,} restored as they were known, {counts.learnt:,} as new knowledge, "
        f"{counts.known:,} known already, {rejects.count:,} rejected"
    )
    if rejects.count:
        print(f"rejected rows, with line and reason: {rejects.path}", file=sys.stderr)
    return 1 if rejects.count else 0


class _Rejects:
    """The side file: made when the first bad row comes; that of an earlier run goes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._file: Any = None
        self._writer: Any = None

    def __enter__(self) -> "_Rejects":
        self.path.unlink(missing_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def of(self, batch: "Sequence[Revision]", refused: Sequence[tuple[int, str]]) -> None:
        """Rows of a batch that the database refused, by line."""
        if not refused:
            return
        by_line = {revision.line: revision for revision in batch}
        for line, reason in sorted(refused):
            self.add(line, reason, asdict(by_line[line]))

    def add(self, line: int, reason: str, row: dict[str, Any] | None) -> None:
        """One bad row."""
        if self._file is None:
            self._file = self.path.open("w", encoding="utf-8", newline="")
            self._writer = csv.writer(self._file)
            self._writer.writerow(["line", "reason", "row"])
        self._writer.writerow([line, reason, "" if row is None else json.dumps(row, default=str)])
        self.count += 1
