"""A market's day as random sources tell it: late, restated, growing, lacking, out of order.

Every batch follows from its seed and number alone. A writer process writes it; the model, which hears
of its as_of afterwards, makes the same batch once more. Nothing here looks at what is stored.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from bench.storage.market import DAY, MINUTE
from core.bars import Bar
from core.windows import Window, runs
from core.words import Interval
from db.batches import Answer, Batch

SOURCES = ("yfinance", "finnhub", "alpaca.iex")
MINUTES = 390
_STEP = timedelta(seconds=7)
_JITTER = timedelta(seconds=40)
"""Answers are written up to so much out of the order in which they were asked for."""


def batches(task: Mapping[str, Any]) -> Iterator[tuple[str, Batch]]:
    """What a process writes: without end."""
    start = datetime.fromisoformat(task["start"])
    for number in count():
        yield str(number), batch(task["seed"], number, task["ids"], start)


def batch(seed: int, number: int, ids: Sequence[int], start: datetime) -> Batch:
    """Batch ``number`` of writer ``seed``."""
    chooser = random.Random(f"{seed}/{number}")
    source = chooser.choices(SOURCES, (6, 3, 1))[0]
    # Live: many symbols, a minute or two. A page: few symbols, an hour or so.
    symbols, length = chooser.choice([(40, 1), (25, 2), (12, 15), (4, 90), (2, 240)])
    asked_at = start + DAY + number * _STEP + chooser.random() * _JITTER
    answers = [
        _answer(chooser, symbol_id, length, asked_at, start)
        for symbol_id in chooser.sample(ids, symbols)
    ]
    return Batch(source, Interval.M1, answers)


def _answer(
    chooser: random.Random, symbol_id: int, length: int, asked_at: datetime, start: datetime
) -> Answer:
    first = chooser.randrange(MINUTES - length + 1)
    times = [start + minute * MINUTE for minute in range(first, first + length)]
    bars: list[Bar] = []
    lacking: list[datetime] = []
    # A source that has lost bars lacks many at once; two such answers in a row withdraw them.
    lacks = chooser.choice([0.02, 0.02, 0.02, 0.5])
    for ts in times:
        luck = chooser.random()
        if luck < lacks:
            lacking.append(ts)
        elif luck < 0.97:
            bars.append(_bar(chooser, ts, symbol_id))
    end = times[-1] + MINUTE
    settled = chooser.choice([end, end, end, times[0], chooser.choice(times)])
    return Answer(symbol_id, Window(times[0], end), asked_at, bars, settled, runs(lacking, MINUTE))


def _bar(chooser: random.Random, ts: datetime, symbol_id: int) -> Bar:
    # Few versions, so that sources repeat themselves as often as they change their mind.
    close = 100.0 + symbol_id % 50 + ts.minute / 100 + chooser.choice([0, 0, 0, 0, 0.01, 0.02])
    return Bar(
        ts,
        close - 0.05,
        close + 0.10,
        close - 0.10,
        close,
        chooser.choice([None, 500.0, 500.0, 700.0]),
        chooser.choice([None, None, close - 0.01]),
        chooser.choice([None, 40]),
        partial=chooser.random() < 0.06,
    )
