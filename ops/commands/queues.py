"""``ops queues``: how much work waits, in Redis and in the database."""

import argparse

from db import backfill
from ops import output
from ops.connect import database, redis_client, settings
from ops.registering import Commands
from workers.queues import depths
from workers.suspects import Suspects


def register(commands: Commands) -> None:
    command = commands.add_parser(
        "queues", help="waiting jobs and backfill rows", epilog="Example: ops queues --json"
    )
    command.add_argument("--json", action="store_true")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print queue depths; exit 0 whatever they are."""
    config = settings()
    # The database first: when nothing runs here, it is the one that says so.
    with database(config) as db:
        rows = backfill.depth(db)
    redis = redis_client(config.redis_url)
    waiting = depths(redis)
    left_out = Suspects(redis).all_left_out()
    if options.json:
        output.as_json(
            {
                "queues": waiting,
                "backfill": {
                    str(tier): {"depth": depth, "oldest_age_s": age}
                    for tier, (depth, age) in rows.items()
                },
                "left_out": left_out,
            }
        )
        return 0
    output.table(
        ({"queue": name, "jobs": count} for name, count in waiting.items()), ["queue", "jobs"]
    )
    print()
    output.table(
        (
            {"backfill tier": str(tier), "rows": depth, "oldest s": round(age, 1) if age else None}
            for tier, (depth, age) in rows.items()
        ),
        ["backfill tier", "rows", "oldest s"],
    )
    if left_out:
        print("\nLeft out, workers died each time they asked:")
        output.table(
            (
                {"batches": family, "symbol": symbol, "again in s": seconds}
                for family, symbols in left_out.items()
                for symbol, seconds in symbols.items()
            ),
            ["batches", "symbol", "again in s"],
        )
    return 0
