"""The closing page of the demo: what happened, what the checker found, what to try next."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ops.demo.options import DemoOptions
from ops.demo.watch import Snapshot
from ops.shell import ops_word
from ops.stack_file import shown
from ops.words import counted

MUST_BE_ZERO = (
    "missing",
    "wrong",
    "duplicate",
    "lookahead",
    "false_confirmed_empty",
    "limit_violations",
    "restated_missed",
)
MIN_SPEED = 130.0
_COMMAND_WIDTH = 42


def show(
    result: dict[str, Any],
    options: DemoOptions,
    seen: Snapshot,
    killed: Sequence[str],
    slowed: Sequence[float],
    logs: Path,
) -> int:
    """Print the page; 0 when everything that must be zero is zero.

    Args:
        result: What the checker found.
        options: What was asked for.
        seen: The last look of the run, so that page and panel say the same of gaps.
        killed: Processes that the demo killed.
        slowed: Speeds that the machine forced.
        logs: Where the processes' talk is.
    """
    bad = [name for name in MUST_BE_ZERO if result[name] != 0]
    line = "-" * 72
    print(f"\n{line}\nWhat happened on {options.session}\n{line}")
    print(
        f"  {result['expected']:,} expected bars: {result['present']:,} stored, "
        f"{result['confirmed_empty']:,} confirmed empty, {result['missing']:,} missing"
    )
    print(
        f"  {result['requests']:,} requests to providers, {result['limit_violations']} over a limit"
    )
    print(
        f"  {seen.found_missing:,} bars found missing in between, {seen.explained:,} explained since; "
        f"{result['revised']:,} later versions stored"
    )
    if result["stale_revision"]:
        print(
            f"  the market restated {counted(result['stale_revision'], 'bar')} after we last asked: we could not "
            "know, so that is not counted as wrong"
        )
    print(
        f"  {result['as_of_reads']:,} as-of reads repeated at the end, {result['lookahead']} saw the future or changed"
    )
    for name in killed:
        print(f"  {name} was killed with SIGKILL in mid-session")
    if result.get("failover_seconds") is not None:
        print(f"  failover took {result['failover_seconds']:.2f} s of real time at the most")
    print(f"  {result['speed']:.0f} market seconds a second, {result['seconds']:.0f} s in all")
    if slowed:
        print(f"  the market was slowed to {min(slowed):.0f}x: this machine keeps that pace")
    if options.speed is None and result["speed"] < MIN_SPEED:
        print(f"  below the {MIN_SPEED:.0f}x that two cores should keep")
    print(f"{line}\nThe checker's verdict")
    for name in MUST_BE_ZERO:
        print(f"  {'ok ' if result[name] == 0 else 'BAD'} {name.replace('_', ' ')}: {result[name]}")
    for example in result.get("examples", [])[:10]:
        print(f"      {example}")
    print(line)
    if bad == ["limit_violations"] and not options.budgets:
        print(
            "As asked, limits were ignored: the checker counted every request over them, and nothing else is wrong."
        )
        return 1
    if bad:
        words = ", ".join(name.replace("_", " ") for name in bad)
        print(f"The demo found trouble: {words}. The logs are in {shown(logs)}.")
        return 1
    print(
        "Every expected minute is explained, and every read as of an instant is what was known then."
    )
    return 0


def try_next() -> None:
    """Print what to type after a demo whose servers have been stopped."""
    ops = ops_word()
    print("Try next:")
    for words, why in (
        ("demo --symbols 20 --keep", "a small day to look around in; it says what to type"),
        ("demo --seed 7 --symbols 600", "another market, twice as big"),
        ("up --sim", "collect from a market that trades round the clock"),
        ("up", "collect a sample universe from Yahoo; needs internet"),
    ):
        print(f"  {f'{ops} {words}':<{_COMMAND_WIDTH}}  {why}")
