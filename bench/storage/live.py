"""A minute of 1,000 series at once, as a live sweep writes it, minute after minute."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from bench.report import Aim, at_most
from bench.run import Place, Run
from bench.storage import peer
from bench.storage.market import MINUTE, SETTLE, SOURCE, first_open, reply, walk
from bench.storage.sources import provider_id_of
from core.bars import Bar
from core.windows import Window, floor_to
from core.words import Interval
from db.candles import Answer, Batch, write

SERIES = 1_000
_PAST_MINUTES = 30
_FIRST_ID = 1_000
_ASKED_AFTER = timedelta(seconds=2)
"""How long after a bar's end the sweep asks for it."""


@dataclass(frozen=True, slots=True)
class _Minute:
    """One batch for each side, ready made."""

    batch: Batch
    rows: Sequence[peer.Row]


def measure(run: Run) -> None:
    """One bar a series; then with the bar before asked again, as settling wants it; then with replies."""
    with run.place() as place:
        market = _Market(run, place)
        plain = run.size(60, 20)
        market.compare(
            "live_batch_ratio",
            f"live batch, {SERIES:,} series x 1 bar with cursors",
            plain,
            market.one_bar,
            at_most(2.5),
        )
        some = run.size(20, 10)
        market.compare(
            "live_reask_ratio",
            "the same with the bar before asked again (2 bars, 1 new)",
            some,
            market.two_bars,
        )
        market.compare(
            "live_payloads_ratio",
            f"the same as the first with {SERIES:,} raw replies",
            some,
            market.with_replies,
        )


class _Market:
    """Two lots of 1,000 symbols whose ids interleave: ours, and the peer's."""

    def __init__(self, run: Run, place: Place) -> None:
        self._run = run
        self._place = place
        self._open = first_open(run.clock)
        chooser = random.Random(1)
        minutes = _PAST_MINUTES + run.size(60 + 20 + 20, 20 + 10 + 10)
        self._bars = {
            symbol_id: walk(chooser, self._open, minutes)
            for symbol_id in range(_FIRST_ID, _FIRST_ID + 2 * SERIES, 2)
        }
        self._minute = _PAST_MINUTES
        past = _open_and_past(self._bars, self._open)
        write(place.db, Batch(SOURCE, Interval.M1, past))
        self._provider_id = provider_id_of(place.owner)
        fresh = {"provider_id": self._provider_id, "minutes": 400}
        others = run.size(2_000, 300) // 2
        peer.fill(place.owner, range(1, others // 2), self._open, days=3, **fresh)
        peer.fill(place.owner, range(9_000, 9_000 + others), self._open, days=3, **fresh)
        twins = [symbol_id + 1 for symbol_id in self._bars]
        peer.fill(
            place.owner,
            twins,
            self._open,
            days=1,
            minutes=_PAST_MINUTES,
            provider_id=self._provider_id,
        )
        # The statistics that autovacuum would have made of such a past by now.
        place.owner.execute("ANALYZE")

    def compare(
        self,
        key: str,
        what: str,
        minutes: int,
        make: Callable[[int], _Minute],
        aim: Aim | None = None,
    ) -> None:
        """So many consecutive minutes of both sides."""
        watch = self._run.stopwatch()
        for number in range(minutes):
            minute = make(self._minute)
            self._minute += 1
            watch.alternate(
                number,
                live=lambda minute=minute: write(self._place.db, minute.batch),
                copy=lambda minute=minute: peer.copy(self._place.owner, minute.rows),
            )
        self._run.report.ratio(
            key, what, 1000 * watch.median("live"), 1000 * watch.median("copy"), "ms", aim
        )

    def one_bar(self, minute: int) -> _Minute:
        """The newest bar alone, which the source may still change."""
        return self._make(minute, minute)

    def two_bars(self, minute: int) -> _Minute:
        """From the minute before on, which is known and now settled."""
        return self._make(minute - 1, minute)

    def with_replies(self, minute: int) -> _Minute:
        """The newest bar, each with the bytes that it came from."""
        made = self._make(minute, minute)
        replies = [reply(answer) for answer in made.batch.answers]
        return replace(made, batch=replace(made.batch, payloads=replies))

    def _make(self, first: int, last: int) -> _Minute:
        asked_at = self._open + (last + 1) * MINUTE + _ASKED_AFTER
        answers = [
            _answer(symbol_id, bars[first : last + 1], asked_at)
            for symbol_id, bars in self._bars.items()
        ]
        rows = [
            row
            for symbol_id, bars in self._bars.items()
            for row in peer.rows(
                symbol_id + 1,
                bars[last : last + 1],
                as_of=asked_at,
                asked_at=asked_at,
                provider_id=self._provider_id,
            )
        ]
        return _Minute(Batch(SOURCE, Interval.M1, answers), rows)


def _open_and_past(bars: dict[int, list[Bar]], opened: datetime) -> list[Answer]:
    asked_at = opened + _PAST_MINUTES * MINUTE + _ASKED_AFTER
    return [
        _answer(symbol_id, found[:_PAST_MINUTES], asked_at) for symbol_id, found in bars.items()
    ]


def _answer(symbol_id: int, bars: Sequence[Bar], asked_at: datetime) -> Answer:
    window = Window(bars[0].ts, bars[-1].ts + MINUTE)
    return Answer(symbol_id, window, asked_at, bars, floor_to(asked_at - SETTLE, MINUTE))
