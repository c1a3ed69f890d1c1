"""``ops migrate``: bring the database's schema to this version."""

import argparse

from core.log import mask_url
from db.migrate import migrate
from ops.connect import settings
from ops.registering import Commands


def register(commands: Commands) -> None:
    command = commands.add_parser(
        "migrate", help="create or upgrade the schema", epilog="Example: ops migrate"
    )
    command.set_defaults(run=run)


def run(_options: argparse.Namespace) -> int:
    """Apply what is missing; running it twice, or from two places at once, applies each file once."""
    config = settings()
    applied = migrate(config.database_url)
    for name in applied:
        print(f"applied {name}")
    print(f"{mask_url(config.database_url)} is up to date ({len(applied)} applied)")
    return 0
