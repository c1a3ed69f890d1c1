"""``python -m chaos``: breaks a whole running gapless by seed, and judges what is left.

Exit codes: 0 every seed kept every promise, 1 one did not, 2 the command was used wrongly.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from chaos import results
from chaos.mutations import MUTATIONS
from chaos.run import Outcome, run
from chaos.schedule import Fault, Kind, schedule
from chaos.world import Plan
from core.clock import SystemClock
from core.errors import GaplessError
from core.log import configure, mask
from core.settings import load
from ops.embedded.home import Home

_FIRST_S = 1.5
_LONG_S = 10.0
_CALM_S = 1.0
"""Real seconds of the replay after which the first fault may begin, and that follow the last."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run seeds, or one."""
    options = _parser().parse_args(arguments)
    if options.timeline is not None:
        for number, fault in enumerate(_faults(options, options.timeline)):
            print(f"{number:3} {fault}")
        return 0
    if options.minimise is not None:
        return _minimise(options)
    if options.mutations:
        return _mutations(options)
    if options.one is not None:
        return _one(options)
    return _campaign(options)


def _campaign(options: argparse.Namespace) -> int:
    known = results.read(options.results) if options.results else []
    done = {row["seed"] for row in known}
    seeds = [s for s in range(options.first, options.first + options.seeds) if s not in done]
    rows = [row for row in known if options.first <= row["seed"] < options.first + options.seeds]
    if rows:
        print(f"{len(rows)} seeds are done already, by {options.results}", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="gapless-chaos-") as scratch,
        ThreadPoolExecutor(options.lanes) as pool,
    ):
        free: SimpleQueue[str] = SimpleQueue()
        for number in range(options.lanes):
            free.put(f"{options.lane}-{number}")

        def work(seed: int) -> None:
            lane = free.get()
            try:
                row = _apart(options, seed, lane, Path(scratch))
            finally:
                free.put(lane)
            rows.append(row)
            if options.results:
                results.append(options.results, row)
            _say(row)

        list(pool.map(work, seeds))
    flat = results.summary(rows) | {"speed": options.speed, "lanes": options.lanes}
    _show(flat)
    if options.json:
        options.json.write_text(json.dumps(flat, indent=2) + "\n")
    return 1 if flat["failed_seeds"] else 0


def _minimise(options: argparse.Namespace) -> int:
    """Leave faults out one by one while the seed goes on failing; what is left is what it takes."""
    seed = options.minimise
    kept = list(range(len(_faults(options, seed))))
    with tempfile.TemporaryDirectory(prefix="gapless-chaos-") as scratch:
        for number in list(kept):
            fewer = [one for one in kept if one != number]
            options.only = ",".join(map(str, fewer))
            row = _apart(options, seed, options.lane, Path(scratch))
            Path(scratch, f"{seed}.json").unlink(missing_ok=True)
            if row["bad"]:
                kept = fewer
            print(f"without {number}: {', '.join(row['bad']) or 'ok'}", flush=True)
    print(f"seed {seed} takes:")
    for number, fault in enumerate(_all_faults(options, seed)):
        if number in kept:
            print(f"{number:3} {fault}")
    return 1


def _mutations(options: argparse.Namespace) -> int:
    """Switch off each safety in turn; a run that does not fail within the seeds has missed it."""
    caught: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="gapless-chaos-") as scratch:
        for name in [options.mutation] if options.mutation else sorted(MUTATIONS):
            options.mutation, caught[name] = name, None
            for seed in range(options.first, options.first + options.seeds):
                row = _apart(options, seed, options.lane, Path(scratch))
                Path(scratch, f"{seed}.json").unlink(missing_ok=True)
                print(
                    f"{name}, seed {seed}: {', '.join(row['bad']) or row['trouble'] or 'ok'}",
                    flush=True,
                )
                if row["bad"]:
                    caught[name] = {"seed": seed, "by": row["bad"]}
                    for line in row["examples"][:3]:
                        print(f"    {line}", flush=True)
                    break
    missed = [name for name, by in caught.items() if by is None]
    print(f"{len(caught) - len(missed)} of {len(caught)} mutations caught")
    if options.json:
        flat = {"mutations": len(caught), "missed": missed, **caught}
        options.json.write_text(json.dumps(flat, indent=2) + "\n")
    return 1 if missed else 0


def _apart(options: argparse.Namespace, seed: int, lane: str, scratch: Path) -> dict[str, Any]:
    """One seed in a process of its own: what it leaves behind ends with it."""
    out = scratch / f"{seed}.json"
    words = [sys.executable, "-m", "chaos", "--one", str(seed), "--lane", lane, "--out", str(out)]
    for name in ("symbols", "minutes", "speed", "faults"):
        words += [f"--{name}", str(getattr(options, name))]
    if options.mutation:
        words += ["--mutation", options.mutation]
    if options.kinds:
        words += ["--kinds", options.kinds]
    if options.only is not None:
        words += ["--only", options.only]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if out.exists():
        row = json.loads(out.read_text())
    else:
        said = (done.stderr.strip().splitlines() or ["no word"])[-1]
        row = asdict(_untold(seed, f"exit {done.returncode}: {mask(said)}"))
    return row | {"code": results.code_digest()}


def _one(options: argparse.Namespace) -> int:
    configure("ERROR")
    clock = SystemClock()
    plan = Plan(options.one, options.symbols, options.minutes, options.speed, options.mutation)
    faults = _faults(options, options.one)
    home = Home(load().gapless_home, clock=clock).within(options.lane)
    try:
        outcome = run(plan, faults, home, clock)
    except GaplessError as error:
        outcome = _untold(options.one, mask(str(error)))
    if options.out:
        options.out.write_text(outcome.to_json() + "\n")
    else:
        _say(asdict(outcome))
    return 0 if outcome.ok else 1


def _faults(options: argparse.Namespace, seed: int) -> tuple[Fault, ...]:
    faults = _all_faults(options, seed)
    if options.only is None:
        return faults
    chosen = {int(number) for number in options.only.split(",") if number}
    return tuple(fault for number, fault in enumerate(faults) if number in chosen)


def _all_faults(options: argparse.Namespace, seed: int) -> tuple[Fault, ...]:
    return schedule(seed, options.faults, *_span(options), _only_kinds(options))


def _only_kinds(options: argparse.Namespace) -> list[Kind]:
    return [Kind(word) for word in options.kinds.split(",")] if options.kinds else []


def _span(options: argparse.Namespace) -> tuple[float, float]:
    """When the first fault may begin and by when the last has ended, real seconds of the replay."""
    return _FIRST_S, options.minutes * 60 / options.speed - _CALM_S


def _untold(seed: int, trouble: str) -> Outcome:
    return Outcome(seed, 0, {}, [], [], [], {}, [], 0.0, 0.0, 0.0, trouble=trouble)


def _say(row: dict[str, Any]) -> None:
    hit = sum(row["hits"].values())
    if not row["bad"] and row["trouble"] is None:
        counts = row["counts"]
        print(
            f"seed {row['seed']}: ok, {hit} faults, {counts['expected']} bars expected, "
            f"{counts['requests']} requests, drained in {row['drain_s']} s"
            f"{' for ' + row['waited_for'][0] if row['drain_s'] > _LONG_S else ''}, {row['seconds']} s "
            f"({', '.join(f'{name} {seconds}' for name, seconds in row['phases'].items())})",
            flush=True,
        )
        return
    print(f"seed {row['seed']}: FAILED {', '.join(row['bad']) or row['trouble']}", flush=True)
    for line in (*row["timeline"], *row["examples"][:12]):
        print(f"    {line}", flush=True)
    print(f'    again: make chaos ARGS="--one {row["seed"]}"', flush=True)


def _show(flat: dict[str, Any]) -> None:
    width = max(map(len, flat))
    print("-" * (width + 14))
    for name, value in flat.items():
        print(f"{name:<{width}}  {value}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="chaos", description="Breaks a running gapless by seed.")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--first", type=int, default=1, metavar="SEED")
    parser.add_argument("--one", type=int, metavar="SEED", help="this seed only, in this process")
    parser.add_argument("--timeline", type=int, metavar="SEED", help="print its schedule and end")
    parser.add_argument(
        "--minimise", type=int, metavar="SEED", help="find the faults that it takes"
    )
    parser.add_argument("--kinds", metavar="KIND,KIND", help=f"only {', '.join(Kind)}")
    parser.add_argument("--only", metavar="N,N", help="of the schedule, these faults only")
    parser.add_argument("--lanes", type=int, default=1, help="worlds at a time")
    parser.add_argument("--symbols", type=int, default=40)
    parser.add_argument(
        "--minutes", type=int, default=25, help="of market time, replayed and judged"
    )
    parser.add_argument("--speed", type=float, default=60.0, help="market seconds a second")
    parser.add_argument("--faults", type=int, default=12, help="a seed")
    parser.add_argument(
        "--mutation", choices=sorted(MUTATIONS), help="switch one safety off: the run has to fail"
    )
    parser.add_argument(
        "--mutations", action="store_true", help="switch each safety off in turn: each has to fail"
    )
    parser.add_argument("--results", type=Path, metavar="FILE", help="keep and resume a campaign")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one flat JSON object")
    parser.add_argument("--lane", default="chaos", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
