"""Makes a batch ready outside of the transaction, whose locks nobody should hold longer for it.

Series come in key order, so that every writer locks in the same order. What series share (window,
settled until, asked at) travels once; a series names its own by number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any

from core.windows import Window
from db import evidence
from db.batches import Answer, Batch, Series
from db.evidence import multirange

_Shape = tuple[
    datetime, datetime, datetime | None, datetime | None, datetime | None, datetime | None
]
"""Hull of the series; start, cut, end of the ask and when it was asked, None where nobody answered."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A batch, ready to be written."""

    batch: Batch
    series: Sequence[Series]
    """In key order."""
    advances: Sequence[Mapping[str, Any]]
    """Parameters of the statements that lock and advance: an answer of each series, then its next."""
    payloads: Sequence[evidence.PackedPayload]
    notes: Sequence[evidence.Note]


def prepare(batch: Batch) -> Plan:
    """Check a batch and put it in order.

    Raises:
        UsageError: a bar lies outside of its answer's window, or bars are not ascending.
    """
    series = _in_key_order(batch)
    notes = [
        note
        for one in series
        for answer in one.answers
        if answer.lacking
        for note in _lacking_notes(answer)
    ]
    notes += evidence.failure_notes(batch.failures)
    notes += evidence.refusal_notes(batch.refusals, batch.interval.delta)
    return Plan(batch, series, _advances(batch, series), evidence.pack(batch.payloads), notes)


def _in_key_order(batch: Batch) -> list[Series]:
    interval = batch.interval
    found: dict[int, Series] = {}
    for given in batch.answers:
        given.check(interval)
        answer = given.in_whole_bars(interval)
        symbol_id = answer.symbol_id
        one = Series(symbol_id, answer.window, (answer,))
        earlier = found.setdefault(symbol_id, one)
        if earlier is not one:
            found[symbol_id] = _joined(earlier, answer)
    # Series of which the batch only says that they were asked in vain, or answered with rubbish.
    for failure in batch.failures:
        found.setdefault(failure.symbol_id, Series(failure.symbol_id, failure.window, ()))
    for refusal in batch.refusals:
        bar = Window(refusal.ts, refusal.ts + interval.delta)
        found.setdefault(refusal.symbol_id, Series(refusal.symbol_id, bar, ()))
    return [found[symbol_id] for symbol_id in sorted(found)]


def _joined(series: Series, answer: Answer) -> Series:
    hull = Window(
        min(series.window.start, answer.window.start), max(series.window.end, answer.window.end)
    )
    answers = sorted((*series.answers, answer), key=attrgetter("asked_at"))
    return Series(series.symbol_id, hull, tuple(answers))


def _advances(batch: Batch, series: Sequence[Series]) -> list[dict[str, Any]]:
    """One answer of a series at a time, for a statement may touch a row once only."""
    first = _advance(batch, series, 0)
    depth = max((len(one.answers) for one in series), default=0)
    return [first] + [
        _advance(batch, [one for one in series if at < len(one.answers)], at)
        for at in range(1, depth)
    ]


def _advance(batch: Batch, series: Sequence[Series], at: int) -> dict[str, Any]:
    shapes: dict[_Shape, int] = {}
    numbers: list[int] = []
    last: _Shape | None = None
    number = 0
    for one in series:
        shape = _shape(one, at)
        if shape != last:
            # Most often it is the one before; comparing is cheaper than hashing.
            last = shape
            number = shapes.setdefault(shape, len(shapes) + 1)
        numbers.append(number)
    lacking: Sequence[str | None] = ()
    if any(one.answers and one.answers[at].lacking for one in series):
        lacking = [
            multirange(one.answers[at].settled_lacking())
            if one.answers and one.answers[at].lacking
            else None
            for one in series
        ]
    columns = list(zip(*shapes, strict=True)) or [()] * 6
    return {
        "interval_s": batch.interval.seconds,
        "source": batch.source,
        "ids": [one.symbol_id for one in series],
        # An array that ends early is filled up with NULL, which means the first shape.
        "numbers": numbers if len(shapes) > 1 else [],
        "starts": list(columns[0]),
        "ends": list(columns[1]),
        "ask_starts": list(columns[2]),
        "ask_cuts": list(columns[3]),
        "ask_ends": list(columns[4]),
        "asked": list(columns[5]),
        "lacking": list(lacking),
    }


def _shape(series: Series, at: int) -> _Shape:
    hull = series.window
    if not series.answers:
        return hull.start, hull.end, None, None, None, None
    answer = series.answers[at]
    ask, until = answer.window, answer.settled_until
    start, end = ask.start, ask.end
    cut = start if until <= start else min(end, until)
    return hull.start, hull.end, start, cut, end, answer.asked_at


def _lacking_notes(answer: Answer) -> list[evidence.Note]:
    return [
        evidence.Note(
            answer.symbol_id,
            answer.window,
            answer.asked_at,
            "lacked",
            settled=settled,
            lacking=lacking,
        )
        for settled, lacking in ((True, answer.settled_lacking()), (False, answer.open_lacking()))
        if lacking
    ]
