"""``ops exporter``: Prometheus metrics of the whole fleet."""

import argparse
from pathlib import Path

from core.log import configure
from db.live_settings import LiveSettings
from ops.registering import Commands


def register(commands: Commands) -> None:
    command = commands.add_parser(
        "exporter",
        help="serve the fleet's metrics for Prometheus",
        epilog="Example: METRICS_PORT=9108 ops exporter",
    )
    command.add_argument(
        "--port-file", type=Path, help="write the port that was opened to this file"
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM."""
    from ops.exporter import export  # noqa: PLC0415 - loads the router

    live = LiveSettings(application="gapless-exporter")
    configure(live.current().log_level)
    return export(live, options.port_file)
