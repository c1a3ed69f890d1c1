"""``ops url``: where the database is, for psql and every other client."""

import argparse
import sys
from urllib.parse import urlsplit, urlunsplit

from core.log import mask_url
from ops.connect import database, settings
from ops.registering import Commands
from ops.shell import ops_word, psql_word


def register(commands: Commands) -> None:
    command = commands.add_parser(
        "url",
        help="where the database is, for psql and other clients",
        epilog='Example: psql "$(ops url --show-password)" -c "SELECT count(*) FROM candles"',
    )
    command.add_argument(
        "--show-password", action="store_true", help="print it whole; mind logs and screens"
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the URL, its password left out unless asked for; 1 when nobody answers there."""
    config = settings()
    with database(config):
        pass
    if options.show_password:
        print(config.database_url)
        return 0
    print(without_password(config.database_url))
    if without_password(config.database_url) != config.database_url:
        print(
            f'the password is left out; {psql_word()} "$({ops_word()} url --show-password)" connects',
            file=sys.stderr,
        )
    return 0


def without_password(url: str) -> str:
    """The URL as it can be shown and still be used by who knows the password."""
    parts = urlsplit(url)
    user, at, place = parts.netloc.rpartition("@")
    return mask_url(urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}{at}{place}")))
