"""Backfill rows: claim, ask, ask the next source for what lacks, finish together with the bars.

A row in ``backfill_jobs`` is the truth, the queue's job a hint. Rows are claimed for ``LEASE_S`` and
the claim is renewed meanwhile; a row whose worker died comes back when its claim runs out.
"""

import logging
import random
import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Final

from core import metrics
from core.bars import Bar
from core.errors import UsageError
from core.windows import Window
from core.words import Capability, Interval, Share, Tier
from db import backfill as table
from db.backfill import Finish, Job
from db.candles import Answer
from workers.asking import Asking
from workers.context import Context
from workers.questions import Answered
from workers.queues import BACKFILL_TIMEOUT_S, BackfillJob
from workers.renewing import Renewal
from workers.rows import Series, group
from workers.verdict import Findings, Verdict, judge
from workers.writing import Writer

log = logging.getLogger(__name__)

LEASE_S: Final = 10.0
"""Real seconds for which a claim holds without a word from its worker."""
_SPARE_S = 30.0
"""Real seconds of the job's time limit that are kept for the last calls and the last write."""
_CALL_S = 6.0
"""Longest call, real seconds."""
_PATIENCE_S = 20.0
"""Real seconds for which rows hold a place while no source takes a call."""
_GATHER_S = 0.25
"""Real seconds for which an ended row may wait for others to commit with."""
_PAUSE_MIN_S = 0.2
_PATIENCE_ALONE_S = 2.0
"""The same for a row whose last worker died: others of them wait for its turn to end."""
_HANDED_ON_S = 60.0
"""Real seconds for which a row that this version can't answer is left to others."""
_CAPABILITY = {Interval.M1: Capability.BARS_1M, Interval.D1: Capability.BARS_EOD}


def backfill(context: Context, job: BackfillJob) -> dict[str, int]:
    """Claim the rows that are free and see each through to its next state.

    Returns:
        How many rows were ``claimed`` and how many came to each state.

    Raises:
        StorageError: the database stayed away; the claims run out by themselves.
    """
    deadline = context.clock.monotonic() + BACKFILL_TIMEOUT_S - _SPARE_S
    counts = Counter(claimed=0)
    doubted = table.left_by_the_dead(context.db, job.ids)
    _work_off(context, job.tier, [row for row in job.ids if row not in doubted], deadline, counts)
    for row in doubted:
        # Two at once would die together, and both would have spent an attempt.
        with context.suspects.turn(0) as mine:
            if not mine:
                # Not claimed, so no attempt is spent; the leader pushes them again.
                break
            _work_off(context, job.tier, [row], deadline, counts, _PATIENCE_ALONE_S)
    return dict(counts)


def _work_off(
    context: Context,
    tier: Tier,
    ids: Sequence[int],
    deadline: float,
    counts: Counter[str],
    patience_s: float = _PATIENCE_S,
) -> None:
    """Claim rows and see them through, as many at once as the tier may have."""
    limit = context.settings.backfill_max_concurrency(tier)
    waiting = list(ids)
    while waiting and not context.stop.requested and context.clock.monotonic() < deadline:
        # A new owner each time: what an earlier claim still reports then changes nothing.
        owner = uuid.uuid4().hex
        rows = table.claim(context.db, waiting, owner, LEASE_S, limit)
        if not rows:
            break
        claimed = {row.job_id for row in rows}
        # Rows beyond the tier's concurrency get their turn when these have ended.
        waiting = [row for row in waiting if row not in claimed]
        counts["claimed"] += len(rows)
        renew = partial(table.heartbeat, context.db, sorted(claimed), owner, LEASE_S)
        with Renewal(LEASE_S / 3, renew, "claims"):
            counts.update(_see_through(context, tier, rows, owner, deadline, patience_s))


def _see_through(
    context: Context,
    tier: Tier,
    rows: Sequence[Job],
    owner: str,
    deadline: float,
    patience_s: float,
) -> list[str]:
    """Bring claimed rows to their next state; returns the states."""
    able, unable = _askable(context, rows, owner)
    if unable:
        context.db.run(lambda conn: table.finish(conn, *unable))
    states = [end.state for end in unable]
    for alike in _alike(able):
        states += _Run(context, tier, alike, owner, deadline, patience_s).work()
    return states


class _Run:
    """Rows of one interval and one provider hint, from claim to next state."""

    def __init__(
        self,
        context: Context,
        tier: Tier,
        rows: Sequence[Job],
        owner: str,
        deadline: float,
        patience_s: float,
    ) -> None:
        first = rows[0]
        self._context = context
        self._tier = tier
        self._owner = owner
        self._chunk = timedelta(minutes=context.settings.backfill_chunk_minutes)
        capability = _CAPABILITY[first.interval]
        pinned = first.provider if first.origin == "reread" else None
        self._asking = Asking(
            context,
            capability,
            share=Share.BACKFILL,
            deadline=deadline,
            hint=None if pinned else first.provider,
            only=pinned,
            timeout_s=_CALL_S,
            patience_s=patience_s,
        )
        eligible = frozenset(context.router.eligible(capability))
        self._eligible = eligible & {pinned} if pinned else eligible
        self._series = group(
            rows,
            {row.calendar: context.reference.calendar(row.calendar) for row in rows},
            self._chunk,
        )
        self._gaps: dict[int, list[Window]] = {}
        for row in rows:
            if row.origin == "gap":
                self._gaps.setdefault(row.symbol_id, []).append(row.window)
        self._writer = Writer(context, first.interval, tier, Share.BACKFILL, is_new=self._is_new)
        self._settle = timedelta(0)
        self._states: list[str] = []
        self._ended: list[Finish] = []
        self._ended_since = 0.0

    def work(self) -> list[str]:
        """See every row through; returns the state that each came to."""
        for series in self._series:
            self._asking.add(series.first_questions(self._eligible, self._chunk))
            self._go_on(series)
        for results in self._asking.results():
            for result in results:
                if isinstance(result, Answered):
                    self._take(result)
                else:
                    self._writer.put_aside(result)
                    if not self._asking.again(result):
                        self._writer.add_failure(result)
                        self._series[result.question.tag].failed(result)
                self._go_on(self._series[result.question.tag])
            self._commit(_GATHER_S)
        self._commit(0.0)
        for source in sorted(self._writer.sources) or ["none"]:
            self._context.telemetry.count(metrics.JOBS_PROCESSED, "backfill", source)
        return self._states

    def _take(self, result: Answered) -> None:
        assert result.judged is not None, "bars were asked for"
        answer = result.judged.answer
        self._writer.add(result)
        self._settle = result.judged.settle
        self._series[result.question.tag].answered(result.source, answer)

    def _go_on(self, series: Series) -> None:
        """Ask the next source for what lacks, or end the rows when there is nothing to ask."""
        questions = series.next_questions(self._eligible)
        self._asking.add(questions)
        if questions or not series.ended:
            return
        if not self._ended:
            self._ended_since = self._context.clock.monotonic()
        for row in series.rows:
            found = series.findings(row)
            spread = random.random()  # noqa: S311 - keeps rows apart, guards nothing
            verdict = judge(
                found,
                self._eligible,
                frozenset(row.answered_by),
                row.attempts,
                self._settle,
                spread,
            )
            self._ended.append(self._finish(row, found, verdict))

    def _finish(self, row: Job, found: Findings, verdict: Verdict) -> Finish:
        clock, state = self._context.clock, verdict.state
        if state == "pending" and verdict.spent:
            # The database parks a row after its last attempt.
            last = row.attempts >= self._context.settings.backfill_max_attempts
            state = "failed" if last else state
        if state != "pending":
            self._context.telemetry.count(metrics.BACKFILL_COMPLETED, self._tier, state)
        self._states.append(state)
        pause_s = clock.real_seconds(verdict.pause_s) if verdict.pause_s else 0.0
        return Finish(
            job_id=row.job_id,
            lease_owner=self._owner,
            state=verdict.state,
            reason=verdict.reason,
            next_try_in_s=max(pause_s, _PAUSE_MIN_S) if verdict.pause_s else 0.0,
            not_before=verdict.not_before,
            answered_by=tuple(sorted(found.answered_by)),
            spent=verdict.spent,
        )

    def _commit(self, gather_s: float) -> None:
        """Write what came in; ended rows commit with the last of their bars."""
        now = self._context.clock.monotonic()
        if gather_s == 0.0 or (self._ended and now - self._ended_since >= gather_s):
            ended, self._ended = self._ended, []
            self._writer.flush(ended)
        else:
            self._writer.flush_due()

    def _is_new(self, answer: Answer, bar: Bar) -> bool:
        return any(window.contains(bar.ts) for window in self._gaps.get(answer.symbol_id, ()))


def _askable(context: Context, rows: Sequence[Job], owner: str) -> tuple[list[Job], list[Finish]]:
    """Rows that can be asked for and judged, and what becomes of the others.

    A row whose calendar nobody published fails; one whose symbol is left out waits, and one of an
    interval that this version doesn't collect goes back as it was, for a newer one.
    """
    able: list[Job] = []
    unable: list[Finish] = []
    left_out = _left_out(context, rows)
    for row in rows:
        if row.interval not in _CAPABILITY:
            reason = f"no {row.interval} bars are collected by this version"
            back = Finish(
                row.job_id, owner, "pending", reason, next_try_in_s=_HANDED_ON_S, spent=False
            )
            unable.append(back)
            continue
        left_s = left_out.get((row.interval, row.symbol))
        if left_s is not None:
            reason = f"workers died each time they asked for {row.symbol}; see `ops queues`"
            unable.append(
                Finish(
                    row.job_id, owner, "pending", reason, next_try_in_s=float(left_s), spent=False
                )
            )
            continue
        try:
            context.reference.calendar(row.calendar)
            able.append(row)
        except UsageError as error:
            unable.append(Finish(row.job_id, owner, "failed", str(error)))
    return able, unable


def _left_out(context: Context, rows: Sequence[Job]) -> dict[tuple[Interval, str], int]:
    """Intervals and symbols that live batches leave out -> real seconds until they don't."""
    found: dict[tuple[Interval, str], int] = {}
    for interval in {row.interval for row in rows} & _CAPABILITY.keys():
        symbols = sorted({row.symbol for row in rows if row.interval is interval})
        standing = context.suspects.look(_CAPABILITY[interval].value, symbols)
        found |= {(interval, symbol): left_s for symbol, left_s in standing.left_out.items()}
    return found


def _alike(rows: Sequence[Job]) -> list[list[Job]]:
    """Rows by interval, provider and whether they are pinned to it."""
    groups: dict[tuple[str, str | None, bool], list[Job]] = {}
    for row in rows:
        key = (row.interval, row.provider, row.origin == "reread")
        groups.setdefault(key, []).append(row)
    return list(groups.values())
