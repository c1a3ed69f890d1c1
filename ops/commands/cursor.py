"""``ops cursor``: which windows of a series a source was asked for and answered."""

import argparse

from core.errors import UsageError
from core.words import Interval
from db import cursors, universe
from ops import output
from ops.commands.bars import interval
from ops.connect import database
from ops.registering import Commands


def register(commands: Commands) -> None:
    command = commands.add_parser(
        "cursor",
        help="windows asked and answered, by source",
        epilog="Example: ops cursor AAPL 1m yfinance",
    )
    command.add_argument("symbol")
    command.add_argument("interval", type=interval)
    command.add_argument("provider", nargs="?", help="one source (default: all)")
    command.add_argument("--json", action="store_true")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the cursor's windows; 1 when there is no cursor."""
    with database() as db, db.transaction() as conn:
        found = universe.resolve(conn, [options.symbol])
        if options.symbol not in found:
            raise UsageError(
                f"symbol {options.symbol} is not in the universe; see `ops universe show`"
            )
        windows = cursors.covered(
            conn, [found[options.symbol].symbol_id], Interval(options.interval)
        )
    rows = [
        {"provider": source, "start": window.start, "end": window.end}
        for (_symbol_id, source), spans in sorted(windows.items(), key=lambda entry: entry[0][1])
        for window in spans
        if options.provider in (None, source)
    ]
    if options.json:
        output.as_json(rows)
    elif rows:
        output.table(rows, ["provider", "start", "end"])
    else:
        who = options.provider or "no source"
        asked = ", ".join(sorted({source for _id, source in windows})) or "nobody yet"
        print(
            f"{who} has no settled answer for {options.symbol} {options.interval}; answered: {asked}"
        )
    return 0 if rows else 1
