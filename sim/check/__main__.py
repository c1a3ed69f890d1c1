"""``python -m sim.check probe|verify``."""

import argparse
import json
import sys
from datetime import datetime
from pathlib import Path

from sim.check.probe import probe
from sim.check.report import Range, verify
from sim.check.stack import read_stack


def main() -> int:
    """Parse the words and run one of the two."""
    parser = argparse.ArgumentParser(prog="python -m sim.check")
    verbs = parser.add_subparsers(dest="verb", required=True)
    recording = verbs.add_parser("probe", help="record as-of reads until a market instant")
    checking = verbs.add_parser("verify", help="compare everything with the truth")
    for verb in (recording, checking):
        verb.add_argument(
            "--stack", type=Path, required=True, help="stack.json of the folder that runs"
        )
    recording.add_argument("--out", type=Path, required=True)
    recording.add_argument(
        "--until", type=datetime.fromisoformat, required=True, help="market instant"
    )
    recording.add_argument("--reads", type=int, default=10_500)
    recording.add_argument("--seed", type=int, default=1)
    checking.add_argument("--probes", type=Path)
    checking.add_argument("--json", type=Path)
    checking.add_argument("--from", dest="start", type=datetime.fromisoformat)
    checking.add_argument("--to", dest="end", type=datetime.fromisoformat)
    options = parser.parse_args()
    stack = read_stack(options.stack)
    if options.verb == "probe":
        return probe(
            stack, options.out, until=options.until, reads=options.reads, seed=options.seed
        )
    result = verify(stack, Range(options.start, options.end), options.probes)
    text = json.dumps(result, indent=2)
    if options.json:
        options.json.write_text(text + "\n")
    else:
        print(text)
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
