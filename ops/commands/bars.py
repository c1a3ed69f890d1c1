"""``ops bars``: read bars, now or as they were known at an instant."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.errors import UsageError
from core.words import Interval
from ops import knowledge, output
from ops.connect import database
from ops.registering import Commands
from ops.symbols import symbols_and_window
from ops.words import interval

_TABLE_ROWS = 1000
_NUMBERS = {"open", "high", "low", "close", "volume", "vwap", "trade_count"}
COLUMNS = [
    "symbol", "interval", "ts", "open", "high", "low", "close", "volume", "vwap", "trade_count",
    "provider", "status", "as_of",
]  # fmt: skip


def register(commands: Commands) -> None:
    command = commands.add_parser(
        "bars",
        help="read bars, now or as known at an instant",
        epilog="Example: ops bars AAPL --interval 1m --start 2026-11-20 --end 2026-11-20 --as-of 2026-11-20T15:00:00Z",
    )
    command.add_argument("symbols", nargs="+", metavar="SYMBOL")
    command.add_argument(
        "--interval",
        type=interval,
        default=Interval.M1,
        help=f"{', '.join(Interval)} (default 1m); 5m, 15m and 1h are made from the minutes then known",
    )
    command.add_argument(
        "--start", required=True, help="instant with Z or offset, or a session date"
    )
    command.add_argument(
        "--end", required=True, help="open end: instant, or a session date (its close)"
    )
    command.add_argument("--as-of", help="what was known at this instant (default: now)")
    command.add_argument("--provider", action="append", help="only this source; may be repeated")
    command.add_argument(
        "--all-sources", action="store_true", help="a row a source instead of the winner's"
    )
    command.add_argument(
        "--format",
        choices=["table", "csv", "ndjson", "parquet"],
        help="default: table, or what the name of --output tells",
    )
    command.add_argument("--output", type=Path, help="file; .csv and .ndjson also with .gz or .zst")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the bars of the window as they arrive; exit 0 even when there are none."""
    # pyarrow and numpy cost 60 MB, which only commands that read bars need.
    from db.reader import Reader  # noqa: PLC0415
    from ops.batch_files import layout, writer  # noqa: PLC0415

    form, compression = options.format or "table", None
    if options.output is not None:
        if options.format == "table":
            raise UsageError(
                "a table is for the screen; leave --output out, or take another --format"
            )
        form, compression = layout(options.output, options.format)
    count = 0
    with database() as db:
        symbols, span = symbols_and_window(db, options.symbols, options.start, options.end)
        as_of = knowledge.as_of(db, options.as_of)
        providers = knowledge.providers(db, options.provider)
        with Reader(db).stream_candles(
            symbols,
            options.interval,
            span.start,
            span.end,
            as_of=as_of,
            providers=providers,
            all_sources=options.all_sources,
        ) as found:
            if form == "table":
                count = print_table(found.batches)
            else:
                with writer(options.output, form, compression, found.schema) as write:
                    for batch in found.batches:
                        write(batch)
                        count += batch.num_rows
        nothing = "" if count else knowledge.why_nothing(db, symbols, options.interval, span, as_of)
    if options.output is not None:
        print(
            f"{count:,} bars as of {found.as_of.isoformat()} -> {options.output}", file=sys.stderr
        )
    elif not count:
        print(nothing, file=sys.stderr)
    return 0


def print_table(batches: Iterator[Any]) -> int:
    """Aligned columns, however many rows; the first thousand decide the widths. Returns the rows."""
    from ops.batch_files import with_texts  # noqa: PLC0415

    count = 0
    line = ""
    for batch in batches:
        for at in range(0, batch.num_rows, _TABLE_ROWS):
            rows = [
                [output.text(value) for value in row.values()]
                for row in with_texts(batch.slice(at, _TABLE_ROWS)).to_pylist()
            ]
            if not count:
                widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
                line = "  ".join(
                    f"{{:{'>' if name in _NUMBERS else '<'}{width}}}"
                    for name, width in zip(COLUMNS, widths, strict=True)
                )
                print(line.format(*COLUMNS).rstrip())
            for row in rows:
                print(line.format(*row).rstrip())
            count += len(rows)
    return count
