"""``python -m bench NAME``: runs one bench, prints its table, writes its JSON.

Exit codes: 0 every aim was met, 1 one was missed, 2 the command was used wrongly.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import machine
from bench.databases import server
from bench.report import Report
from bench.run import MeasureError, Run
from core.clock import SystemClock
from core.errors import GaplessError
from core.log import configure, mask

BENCHES = ("storage", "routing", "queue")
"""Folders of this package with a module ``measures``, whose ``MEASURES`` are run in order."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one bench."""
    options = _parser().parse_args(arguments)
    configure(options.log_level)
    measures = importlib.import_module(f"bench.{options.bench}.measures").MEASURES
    unknown = sorted(set(options.only or ()) - set(measures))
    if unknown:
        print(
            f"bench: {options.bench} has no measure {', '.join(unknown)}; it has {', '.join(measures)}",
            file=sys.stderr,
        )
        return 2
    clock, report = SystemClock(), Report()
    facts = machine.facts()
    started = clock.monotonic()
    try:
        with server(options.url, clock) as url:
            facts |= machine.server_facts(url)
            facts["quick"] = options.quick
            run = Run(url, report, clock, quick=options.quick, timescale=bool(facts["timescale"]))
            for name in options.only or measures:
                run.say(f"{options.bench}: {name}")
                try:
                    measures[name](run)
                except (MeasureError, GaplessError) as error:
                    report.failed(name, mask(str(error)))
    except GaplessError as error:
        print(f"bench: {mask(str(error))}", file=sys.stderr)
        return 1
    facts |= {
        "load_at_end": round(os.getloadavg()[0], 2),
        "seconds": round(clock.monotonic() - started, 1),
        "measured_at": f"{clock.now():%Y-%m-%dT%H:%M:%SZ}",
    }
    report.show(f"bench {options.bench}", facts)
    if options.json is not None:
        report.save(options.json, facts)
    return 1 if report.missed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description="Measures gapless against limits.")
    parser.add_argument("bench", choices=BENCHES)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one flat JSON object")
    parser.add_argument(
        "--quick", action="store_true", help="less of everything; says less on a busy machine"
    )
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="one measure; may be given again"
    )
    parser.add_argument(
        "--url",
        metavar="URL",
        help="a PostgreSQL, with TimescaleDB or without; databases of our own are made and dropped. "
        "Without: an embedded one",
    )
    parser.add_argument("--log-level", default="ERROR", help="of the parts that are measured")
    return parser


if __name__ == "__main__":
    sys.exit(main())
