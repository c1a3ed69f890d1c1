"""Collects what sources answered and writes it, a few transactions a second, none across a call.

Per source a transaction begins with ``FLUSH_SYMBOLS`` symbols, ``MOST_BARS`` or after ``FLUSH_S``. Bars,
evidence, cursor, the coordinator's element and finished backfill rows commit together.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from core import metrics
from core.bars import Bar, Quote
from core.errors import (
    BadDataError,
    GaplessError,
    MalformedPayloadError,
    NotEntitledError,
    StorageError,
)
from core.words import Interval, Share, Tier
from db import quarantine
from db.backfill import Finish, finish
from db.candles import Answer, Batch, Failure, Payload, Refusal, write
from db.quotes import write_quotes
from workers.context import Context
from workers.in_hand import MOST_BARS
from workers.questions import Answered, Unanswered

log = logging.getLogger(__name__)

_T = TypeVar("_T")

FLUSH_SYMBOLS: Final = 100
FLUSH_S: Final = 1.0
"""Real seconds for which an answer may wait for its transaction."""
_PATIENCE_S = 30.0
"""Real seconds for which answers in hand are kept while the database is away."""


@dataclass(slots=True)
class _Buffer:
    """What one source answered and is not yet written."""

    since: float
    most_bars: int
    answers: list[Answer] = field(default_factory=list[Answer])
    quotes: list[tuple[int, Quote]] = field(default_factory=list[tuple[int, Quote]])
    failures: list[Failure] = field(default_factory=list[Failure])
    refusals: list[Refusal] = field(default_factory=list[Refusal])
    payloads: list[Payload] = field(default_factory=list[Payload])
    bars: int = 0
    closed: set[str] = field(default_factory=set[str])
    """Symbols of which nothing more is to come."""

    @property
    def full(self) -> bool:
        symbols = len(self.answers) + len(self.quotes) + len(self.failures)
        return symbols >= FLUSH_SYMBOLS or self.bars >= self.most_bars


class Writer:
    """Writes one batch's answers of one interval, or its quotes."""

    def __init__(
        self,
        context: Context,
        interval: Interval | None,
        tier: Tier,
        share: Share,
        *,
        inbox: Mapping[int, Sequence[str]] | None = None,
        is_new: Callable[[Answer, Bar], bool] = lambda _answer, _bar: False,
    ) -> None:
        """Prepare.

        Args:
            context: The process.
            interval: Of the bars; None for quotes.
            tier: Whose symbols they are, for metrics.
            share: Of the budget they were asked with: live batches write fewer bars at once.
            inbox: The coordinator's elements that are answered here: row -> symbols it wants.
            is_new: Whether a bar was missing until now, for the age at which bars get stored.
        """
        self._context = context
        self._interval = interval
        self._tier = tier
        self._most_bars = MOST_BARS[share]
        self._inbox = inbox or {}
        self._is_new = is_new
        self._buffers: dict[str, _Buffer] = {}
        self._refused: dict[str, list[Refusal]] = {}
        self._put_aside_at = context.clock.monotonic()
        self.sources: set[str] = set()
        """Sources of which something was written."""

    def add(self, result: Answered, *, closes: bool = True) -> None:
        """Take an answer; ``closes`` when the symbol is answered with it."""
        buffer = self._buffer(result.source)
        if result.judged is not None:
            buffer.answers.append(result.judged.answer)
            buffer.bars += len(result.judged.answer.bars)
            buffer.refusals += result.judged.refusals
            if result.judged.refusals:
                count = len(result.judged.refusals)
                self._context.telemetry.count(
                    metrics.QUARANTINED, result.source, "bad_row", amount=count
                )
        elif result.quote is not None:
            buffer.quotes.append((result.question.member.symbol_id, result.quote))
        if result.payload is not None:
            buffer.payloads.append(result.payload)
        if closes:
            buffer.closed.add(result.question.member.symbol)

    def put_aside(self, result: Unanswered) -> None:
        """Take what was refused of a reply, whoever answers the question in the end."""
        if not result.refusals or result.source is None:
            return
        self._refused.setdefault(result.source, []).extend(result.refusals)
        self._context.telemetry.count(
            metrics.QUARANTINED, result.source, result.error.code, amount=len(result.refusals)
        )

    def add_failure(self, result: Unanswered) -> None:
        """Take the failure as evidence, if somebody was asked."""
        asked = result if result.source is not None else result.question.blame
        window = result.question.window
        if asked is None or asked.source is None or asked.asked_at is None:
            return
        buffer = self._buffer(asked.source)
        if not asked.error.retryable and not asked.error.counts_against_health:
            # Asking again can't help: the coordinator's element is answered, by this evidence.
            buffer.closed.add(result.question.member.symbol)
        if window is None:
            return
        buffer.failures.append(
            Failure(
                result.question.member.symbol_id,
                window,
                asked.asked_at,
                _outcome(asked.error),
                asked.error.code,
                str(asked.error),
            )
        )

    def flush_due(self) -> None:
        """Write the sources whose buffer is full or has waited long enough."""
        now = self._context.clock.monotonic()
        if self._refused and now - self._put_aside_at >= FLUSH_S:
            self._write_refused()
        for source, buffer in list(self._buffers.items()):
            if buffer.full or now - buffer.since >= FLUSH_S:
                self._write(source, self._buffers.pop(source), ())

    def flush(self, finished: Sequence[Finish] = ()) -> None:
        """Write everything; ``finished`` rows commit with the last source, after all their bars."""
        self._write_refused()
        if finished and not self._buffers:
            self._patiently(lambda: self._context.db.run(lambda conn: finish(conn, *finished)))
        while self._buffers:
            source, buffer = self._buffers.popitem()
            self._write(source, buffer, () if self._buffers else finished)

    def _write_refused(self) -> None:
        """What was refused, in transactions of its own: no bar waits for it."""
        self._put_aside_at = self._context.clock.monotonic()
        db, interval_s = self._context.db, self._interval.seconds if self._interval else 0
        while self._refused:
            source, refusals = self._refused.popitem()
            self._patiently(lambda: quarantine.put(db, source, interval_s, refusals))  # noqa: B023 - called at once

    def _buffer(self, source: str) -> _Buffer:
        if source not in self._buffers:
            self._buffers[source] = _Buffer(self._context.clock.monotonic(), self._most_bars)
        return self._buffers[source]

    def _write(self, source: str, buffer: _Buffer, finished: Sequence[Finish]) -> None:
        db, telemetry = self._context.db, self._context.telemetry
        inbox = {
            row: closed
            for row, wanted in self._inbox.items()
            if (closed := [symbol for symbol in wanted if symbol in buffer.closed])
        }
        started = self._context.clock.monotonic()
        interval = self._interval
        if interval is None:
            quotes, payloads = buffer.quotes, buffer.payloads
            self._patiently(
                lambda: write_quotes(db, source, quotes, payloads=payloads, inbox=inbox)
            )
        else:
            batch = Batch(
                source=source,
                interval=interval,
                answers=buffer.answers,
                failures=buffer.failures,
                refusals=buffer.refusals,
                payloads=buffer.payloads,
                inbox=inbox,
                finished_jobs=finished,
            )
            as_of = self._patiently(lambda: write(db, batch)).as_of
            if interval is Interval.M1:
                for answer in buffer.answers:
                    for bar in answer.bars:
                        if self._is_new(answer, bar):
                            age_s = (as_of - bar.ts).total_seconds() - interval.seconds
                            telemetry.observe(metrics.GAP_SECONDS, age_s, interval, self._tier)
        elapsed_ms = 1000 * (self._context.clock.monotonic() - started)
        telemetry.observe(metrics.WRITE_BATCH, elapsed_ms)
        if buffer.answers or buffer.quotes:
            self.sources.add(source)

    def _patiently(self, write_once: Callable[[], _T]) -> _T:
        """Write, and keep the answers in hand while the database is away for a while.

        Writing is idempotent, so an outcome that was lost with the connection is no harm.
        """
        clock = self._context.clock
        give_up = clock.monotonic() + _PATIENCE_S
        while True:
            try:
                return write_once()
            except StorageError as error:
                left_s = min(give_up - clock.monotonic(), self._context.stop.remaining_s())
                if not error.retryable or left_s <= 0:
                    raise
                log.warning("write waits for the database: %s", error)
                clock.sleep(min(0.5, left_s))


def _outcome(error: GaplessError) -> str:
    """The word of ``fetch_evidence`` for a failure."""
    if isinstance(error, NotEntitledError):
        return "not_entitled"
    return "refused" if isinstance(error, (MalformedPayloadError, BadDataError)) else "failed"
