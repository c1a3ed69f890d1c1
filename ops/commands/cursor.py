"""``ops cursor``: which windows of a series a source was asked for and answered."""

import argparse

from core.words import Interval
from db import cursors
from ops import knowledge, output
from ops.connect import database
from ops.registering import Commands
from ops.symbols import one
from ops.words import interval


def register(commands: Commands) -> None:
    command = commands.add_parser(
        "cursor",
        help="windows asked and answered, by source",
        epilog="Example: ops cursor AAPL 1m yfinance",
    )
    command.add_argument("symbol")
    command.add_argument(
        "interval", type=interval, help="1m or 1d; 5m, 15m and 1h are made from 1m, which is shown"
    )
    command.add_argument("provider", nargs="?", help="one source (default: all)")
    command.add_argument("--json", action="store_true")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the cursor's windows; 1 when there is no cursor."""
    asked = Interval.D1 if options.interval is Interval.D1 else Interval.M1
    with database() as db:
        wanted = knowledge.providers(db, [options.provider] if options.provider else None)
        with db.transaction() as conn:
            member = one(conn, options.symbol)
            windows = cursors.covered(conn, [member.symbol_id], asked)
    rows = [
        {"provider": source, "start": window.start, "end": window.end}
        for (_symbol_id, source), spans in sorted(windows.items(), key=lambda entry: entry[0][1])
        for window in spans
        if wanted is None or source in wanted
    ]
    if asked is not options.interval and not options.json:
        print(f"{options.interval} bars are made from 1m bars; these are the windows of 1m")
    if options.json:
        output.as_json(rows)
    elif rows:
        output.table(rows, ["provider", "start", "end"])
    else:
        others = sorted({source for _id, source in windows})
        series = f"{member.symbol} {asked}"
        if options.provider:
            said = ", ".join(others)
            print(
                f"{options.provider} has no settled answer for {series}"
                + (f"; these have: {said}" if said else "")
            )
        else:
            print(f"no source has a settled answer for {series} yet")
    return 0 if rows else 1
