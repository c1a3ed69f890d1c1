"""``ops bars``: read bars, now or as they were known at an instant."""

import argparse
import sys
from pathlib import Path
from typing import Any, cast

from core.errors import UsageError
from core.windows import Window
from core.words import Interval
from db import calendars, reading, universe
from db.pool import Database
from ops import output
from ops.connect import database
from ops.registering import Commands
from ops.times import instant, window

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
    command.add_argument("--interval", type=interval, default=Interval.M1)
    command.add_argument(
        "--start", required=True, help="instant with Z or offset, or a session date"
    )
    command.add_argument(
        "--end", required=True, help="open end: instant, or a session date (its close)"
    )
    command.add_argument("--as-of", help="what was known at this instant (default: now)")
    command.add_argument("--provider", action="append", help="only this source; may be repeated")
    command.add_argument("--format", choices=["table", "csv", "ndjson", "parquet"], default="table")
    command.add_argument("--output", type=Path, help="file for parquet")
    command.set_defaults(run=run)


def interval(text: str) -> Interval:
    """An interval word.

    Raises:
        argparse.ArgumentTypeError: with the words that exist.
    """
    try:
        return Interval(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"interval {text!r} is unknown; expected {', '.join(Interval)}"
        ) from None


def run(options: argparse.Namespace) -> int:
    """Print the bars of the window; exit 0 even when there are none."""
    as_of = instant(options.as_of, "--as-of") if options.as_of else None
    with database() as db:
        span = symbol_window(db, options.symbols, options.start, options.end)
        rows = reading.candles(
            db, options.symbols, options.interval, span, as_of=as_of, providers=options.provider
        )
    if options.format == "parquet":
        write_parquet(rows, options.output)
    elif options.format == "csv":
        output.as_csv(rows, COLUMNS)
    elif options.format == "ndjson":
        output.ndjson(rows)
    else:
        output.table(rows, COLUMNS)
        if not rows:
            print(
                f"no bars in {span}; see `ops coverage {' '.join(options.symbols)}` for why",
                file=sys.stderr,
            )
    return 0


def symbol_window(db: Database, symbols: list[str], start: str, end: str) -> Window:
    """The window that two words mean on the symbols' calendar.

    Raises:
        UsageError: an unknown symbol, or symbols of several calendars with a bare date.
    """
    with db.transaction() as conn:
        members = universe.resolve(conn, symbols)
        unknown = [symbol for symbol in symbols if symbol not in members]
        if unknown:
            raise UsageError(
                f"symbol {', '.join(unknown)} is not in the universe; add it with `ops universe load --add FILE`, "
                "or see `ops universe show`"
            )
        names = sorted({member.calendar for member in members.values()})
        if len(names) > 1:
            raise UsageError(
                f"the symbols trade on {', '.join(names)}; ask for each calendar's symbols apart"
            )
        return window(start, end, calendars.require(conn, names)[names[0]])


def write_parquet(rows: list[dict[str, object]], path: Path | None) -> None:
    """Write rows as Parquet.

    Raises:
        UsageError: no file was named.
    """
    if path is None:
        raise UsageError("parquet is a file format; name the file with --output bars.parquet")
    # 60 MB that only this format needs.
    import pyarrow as pa  # noqa: PLC0415  # pyright: ignore[reportMissingTypeStubs]
    import pyarrow.parquet as pq  # noqa: PLC0415  # pyright: ignore[reportMissingTypeStubs]

    arrow, parquet = cast("Any", pa), cast("Any", pq)
    parquet.write_table(arrow.Table.from_pylist(rows), path)
    print(f"{len(rows)} bars -> {path}", file=sys.stderr)
