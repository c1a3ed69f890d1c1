"""``ops coverage`` and ``ops gaps``: what is explained, and what is still missing."""

import argparse

from db import overview
from ops import output
from ops.commands.bars import interval, symbol_window
from ops.connect import database
from ops.registering import Commands
from ops.words import tier


def register(commands: Commands) -> None:
    command = commands.add_parser(
        "coverage",
        help="what is known of each stretch of some symbols",
        epilog="Example: ops coverage AAPL --start 2026-11-20 --end 2026-11-20",
    )
    command.add_argument("symbols", nargs="+", metavar="SYMBOL")
    command.add_argument("--interval", type=interval)
    command.add_argument(
        "--start", required=True, help="instant with Z or offset, or a session date"
    )
    command.add_argument(
        "--end", required=True, help="open end: instant, or a session date (its close)"
    )
    command.add_argument("--json", action="store_true")
    command.set_defaults(run=run_coverage)

    missing = commands.add_parser(
        "gaps", help="what is missing now", epilog="Example: ops gaps --tier T0"
    )
    missing.add_argument("--tier", type=tier)
    missing.add_argument("--limit", type=int, default=50)
    missing.add_argument("--json", action="store_true")
    missing.set_defaults(run=run_gaps)


def run_coverage(options: argparse.Namespace) -> int:
    """Print the stretches; exit 0 whatever they are."""
    with database() as db:
        span = symbol_window(db, options.symbols, options.start, options.end)
        with db.transaction() as conn:
            rows = overview.coverage(conn, options.symbols, span, options.interval)
    if options.json:
        output.as_json(rows)
    elif rows:
        output.table(
            rows, ["symbol", "interval", "start_ts", "end_ts", "state", "provider", "reason"]
        )
    else:
        print(
            f"nothing is known of {', '.join(options.symbols)} in {span}: never asked, or no session;"
            " `ops enqueue-backfill` asks for it"
        )
    return 0


def run_gaps(options: argparse.Namespace) -> int:
    """Print what is missing; 1 when anything is."""
    with database() as db, db.transaction() as conn:
        rows = overview.gaps(conn, options.tier, options.limit)
    if options.json:
        output.as_json(rows)
    elif rows:
        output.table(
            rows,
            [
                "symbol",
                "tier",
                "interval",
                "start_ts",
                "end_ts",
                "state",
                "attempts",
                "age_s",
                "reason",
            ],
        )
    else:
        print("no gaps: every expected minute is stored or explained")
    return 1 if rows else 0
