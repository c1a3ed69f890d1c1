"""``python -m sim``: a simulated market on localhost, from a config file or from flags.

Example: ``python -m sim --session 2024-03-05 --symbols 50 --speed 60``
"""

import argparse
import json
import sys
from datetime import UTC, datetime

from core import log
from core.errors import GaplessError
from sim.config import read_config
from sim.flags import parser, raw_config
from sim.market.model import instant
from sim.server import serve
from sim.service import Service
from sim.wire.registry import source_kinds

_LEAD_S = 300
"""A replay started by flags begins this long before the open."""


def main() -> int:
    """Start, say where everything is, serve until stopped; 2 when it can't start."""
    flags = parser().parse_args()
    log.configure(flags.log_level)
    try:
        service = Service(read_config(raw_config(flags), source_kinds()))
        _start_replay(service, flags)
        serve(service, lambda: _announce(service))
    except GaplessError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _start_replay(service: Service, flags: argparse.Namespace) -> None:
    """A day asked by flags runs from just before its open; otherwise time is the config's or real."""
    asked = flags.session or flags.bars or flags.start or flags.speed
    if asked and not service.config.segments:
        session = service.market.session
        begin = instant(flags.start, session) if flags.start else session.open - _LEAD_S
        service.replay(begin, flags.speed or 1.0)


def _announce(service: Service) -> None:
    """Endpoints as one JSON line for programs, a few words on stderr for people."""
    print(json.dumps(service.endpoints()), flush=True)
    market, session = service.market, service.market.session
    words = [
        f"{len(market.universe.instruments)} symbols",
        f"session {session.day} of {market.calendar.code}: {_text(session.open)} to {_text(session.close)}",
        f"market time {_text(service.time.timestamp())}, speed {service.time.speed:g}",
    ]
    print("\n".join([*market.notes, *words]), file=sys.stderr, flush=True)


def _text(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


if __name__ == "__main__":
    sys.exit(main())
