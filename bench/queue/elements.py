"""What the intake is fed: a coordinator's elements, good, repeated, nameless and bad, from a seed."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

JOBS = "market:jobs"
BACKFILLS = tuple(f"market:backfills:T{tier}" for tier in range(3))
_BACKFILL, _NAMELESS, _BAD, _AGAIN = 0.2, 0.08, 0.08, 0.08
"""Shares of all elements; the rest is live work with an id."""


@dataclass(frozen=True, slots=True)
class Fed:
    """One element as it is pushed."""

    key: str
    """Its list."""
    raw: bytes
    serial: int
    """Stands in the element, an unknown field to whoever reads it; a repeated one has its original's."""
    id: str | None
    symbols: tuple[str, ...]
    bad: bool


def mixture(
    draws: random.Random, count: int, symbols: Sequence[str], now: datetime, first: int = 0
) -> list[Fed]:
    """Elements in the order in which they are pushed.

    Args:
        draws: Decides everything.
        count: How many.
        symbols: Of the universe.
        now: Market time; windows lie before it.
        first: The first serial; the next call goes on behind.
    """
    made: list[Fed] = []
    for serial in range(first, first + count):
        named = [fed for fed in made if fed.id is not None and not fed.bad]
        kind = draws.random()
        if kind < _AGAIN and named:
            made.append(draws.choice(named))
        elif kind < _AGAIN + _BAD:
            made.append(_bad(draws, serial, symbols, now))
        else:
            nameless = kind < _AGAIN + _BAD + _NAMELESS
            backfill = not nameless and draws.random() < _BACKFILL
            made.append(_good(draws, serial, symbols, now, nameless=nameless, backfill=backfill))
    return made


def plain(count: int, symbols: Sequence[str], now: datetime, first: int) -> list[Fed]:
    """Good live elements with an id each."""
    draws = random.Random(first)
    return [
        _good(draws, first + n, symbols, now, nameless=False, backfill=False) for n in range(count)
    ]


def _good(
    draws: random.Random,
    serial: int,
    symbols: Sequence[str],
    now: datetime,
    *,
    nameless: bool,
    backfill: bool,
) -> Fed:
    chosen = tuple(draws.sample(list(symbols), draws.randint(1, 3)))
    document: dict[str, Any] = {
        "v": 1,
        "type": draws.choice(["bars_1m", "bars_1m", "bars_eod"]),
        "symbols": chosen,
        "serial": serial,
    }
    if not backfill and draws.random() < 0.2:
        document["type"] = "quotes_l1"
    else:
        # Few windows, so that elements share batches as a coordinator's do.
        start = now.replace(minute=0, second=0, microsecond=0) - timedelta(
            hours=draws.randint(2, 9)
        )
        document |= {
            "start": start.isoformat(),
            "end": (start + timedelta(minutes=30)).isoformat(),
        }
    if draws.random() < 0.5:
        document["tier"] = f"T{draws.randrange(3)}"
    name = None if nameless else f"element-{serial}"
    if name is not None:
        document["id"] = name
    key = draws.choice(BACKFILLS) if backfill else JOBS
    return Fed(key, json.dumps(document).encode(), serial, name, chosen, bad=False)


def _bad(draws: random.Random, serial: int, symbols: Sequence[str], now: datetime) -> Fed:
    key = draws.choice((JOBS, JOBS, *BACKFILLS))
    whole = {"type": "bars_1m", "symbols": [draws.choice(list(symbols))], "serial": serial}
    past, future = (now - timedelta(hours=3)).isoformat(), (now + timedelta(days=3)).isoformat()
    faults: list[Any] = [
        {**whole, "type": "depth"},
        {**whole, "symbols": [f"GHOST{serial}"], "start": past, "end": now.isoformat()},
        {**whole, "start": past, "end": future},
        {**whole, "start": now.isoformat(), "end": past},
        {**whole, "start": "0001-01-01T00:00:00+23:59", "end": past},
        [serial],
        None,
    ]
    fault = draws.choice(faults)
    name = None
    if isinstance(fault, dict) and draws.random() < 0.5:
        name = fault["id"] = f"element-{serial}"
    raw = f'{{"serial": {serial}, broken' if fault is None else json.dumps(fault)
    return Fed(key, raw.encode(), serial, name, (), bad=True)
