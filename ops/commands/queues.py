"""``ops queues``: how much work waits, in Redis and in the database."""

import argparse

from db import backfill
from ops import output
from ops.connect import database, redis_client, settings
from ops.registering import Commands
from workers.queues import depths


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
    waiting = depths(redis_client(config.redis_url))
    if options.json:
        output.as_json(
            {
                "queues": waiting,
                "backfill": {
                    str(tier): {"depth": depth, "oldest_age_s": age}
                    for tier, (depth, age) in rows.items()
                },
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
    return 0
