"""Pages that several writers ingest at once, each in an order of its own."""

import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import count
from typing import Any

from bench.storage.market import DAY, MINUTE, SOURCE, page, restated, walk
from core.bars import Bar
from core.windows import Window, runs
from core.words import Interval
from db.batches import Answer, Batch

PAGE_MINUTES, OVERLAP = 100, 10
"""Pages of a symbol overlap, as those of a provider that pads its answers do."""
_PAGES_A_BATCH = 4
_DAYS = 5
_LACKED_EVERY = 37
_RESTATED_EVERY = 19


def batches(task: Mapping[str, Any]) -> Iterator[tuple[str, Batch]]:
    """Every page of a round once, shuffled by the writer's seed, a few in a batch."""
    start = datetime.fromisoformat(task["start"])
    mixed = pages(task["symbols"], task["pages"], start, task["round"])
    if task["seed"] is not None:
        random.Random(task["seed"]).shuffle(mixed)
    for first in range(0, len(mixed), _PAGES_A_BATCH):
        # A symbol's answers may be two in one batch, as when a worker flushes late.
        some = mixed[first : first + _PAGES_A_BATCH]
        yield f"{task['round']}.{first}", Batch(SOURCE, Interval.M1, some)


def pages(symbols: int, number: int, start: datetime, round_: int) -> list[Answer]:
    """All pages of a round: the first tells the bars, the next restates some of them."""
    length = number * (PAGE_MINUTES - OVERLAP) + OVERLAP
    made: list[Answer] = []
    for symbol_id in range(1, symbols + 1):
        bars = walk(random.Random(symbol_id), start, length)
        if round_:
            bars = [bar if n % _RESTATED_EVERY else restated(bar) for n, bar in enumerate(bars)]
        made += [
            _page(symbol_id, bars[first : first + PAGE_MINUTES], start, round_)
            for first in range(0, length - OVERLAP, PAGE_MINUTES - OVERLAP)
        ]
    return made


def _page(symbol_id: int, bars: Sequence[Bar], start: datetime, round_: int) -> Answer:
    kept = [bar for bar in bars if (symbol_id + bar.ts.minute + 7 * bar.ts.hour) % _LACKED_EVERY]
    lacked = sorted({bar.ts for bar in bars} - {bar.ts for bar in kept})
    asked_at = start + (2 + round_) * DAY
    window = Window(bars[0].ts, bars[-1].ts + MINUTE)
    return Answer(symbol_id, window, asked_at, kept, asked_at, runs(lacked, MINUTE))


def steady(task: Mapping[str, Any]) -> Iterator[tuple[str, Batch]]:
    """Big pages of the same symbols, every time restated, without end."""
    start = datetime.fromisoformat(task["start"])
    for number in count():
        opened = start + number % _DAYS * DAY
        chooser = random.Random(number)
        asked_at = start + _DAYS * DAY + number * MINUTE
        answers = [
            page(symbol_id, walk(chooser, opened, task["minutes"]), asked_at=asked_at)
            for symbol_id in task["ids"]
        ]
        yield str(number), Batch(SOURCE, Interval.M1, answers)
