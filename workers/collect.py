"""One batch of live work, top to bottom: resolve, route, fetch, parse, assess, write, advance.

Questions are put by ``Asking``, each call is an ``Exchange``; bars, evidence and the
cursor's advance are one transaction in ``Writer``. Running a batch twice changes nothing.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from statistics import median

from core import metrics
from core.bars import Bar
from core.errors import UsageError
from core.windows import Window, subtract
from core.words import Interval, Share
from db import inbox
from db.candles import Answer
from db.universe import Member
from workers.asking import Asking
from workers.context import Context
from workers.questions import Answered, Question
from workers.queues import CollectJob, Kind
from workers.renewing import Renewal
from workers.stopping import HandedBackError
from workers.suspects import family
from workers.writing import Writer

log = logging.getLogger(__name__)

_QUICK_S = 60
_PATIENCE_S = 10.0
"""Real seconds for which live work waits for a source: the next sweep asks again anyway."""
_PATIENCE_DAILY_S = 90.0
"""The same for what is asked once a session; longer than a budget of one minute."""
_RENEW_S = inbox.LEASE_S / 3
_SPARE_S = 5.0
"""Real seconds of the job's time limit that are kept for the last calls and the last write."""


def collect(context: Context, job: CollectJob) -> dict[str, int]:
    """Ask for every symbol of the batch and write what comes.

    Returns:
        How many symbols were ``asked``, ``answered``, ``failed``; ``stale`` when it came too late.

    Raises:
        HandedBackError: the process stops; the batch goes back to its queue.
        StorageError: the database stayed away.
    """
    if context.clock.now() > job.not_after:
        return _drop_stale(context, job)
    if not job.inbox:
        return _warily(context, job)
    hold = partial(inbox.hold, context.db, job.inbox, inbox.LEASE_S)
    with Renewal(_RENEW_S, hold, "leases of elements"):
        return _warily(context, job)


def _warily(context: Context, job: CollectJob) -> dict[str, int]:
    """The batch, but for symbols whose answers may kill this process: those alone, or not at all."""
    clock, suspects, alike = context.clock, context.suspects, family(job)
    left_s = clock.real_seconds((job.not_after - clock.now()).total_seconds())
    deadline = clock.monotonic() + min(left_s, job.kind.timeout_s - _SPARE_S)
    standing = suspects.look(alike, _wanted(context, job))
    done = _Done()
    once = set(standing.once)

    def forgive() -> None:
        survived = once & done.whole
        suspects.clear(alike, survived)
        once.difference_update(survived)

    _ask(context, job, standing.free, deadline, done, forgive=forgive)
    _leave_out(context, job, standing.left_out)
    for group in standing.doubted:
        with suspects.trial(alike, group, deadline - clock.monotonic()) as trial:
            if trial.mine:
                _ask(context, job, group, deadline, done, before=trial.begin)
                trial.survived = done.whole.intersection(group)
            else:
                late = _questions(context, job, group)
                done.questions += late
                done.failed += len(late)
    if job.kind is Kind.BARS_1M and done.questions and not job.inbox:
        _note_lag(context, job, done)
    if job.kind is Kind.QUOTES_L1 and done.questions and not done.reached:
        context.telemetry.count(metrics.SLOTS_MISSED, job.kind, job.tier)
    return {"asked": len(done.questions), "answered": len(done.reached), "failed": done.failed}


@dataclass(slots=True)
class _Done:
    """What became of a batch so far."""

    questions: list[Question] = field(default_factory=list[Question])
    reached: dict[str, datetime] = field(default_factory=dict[str, datetime])
    """Symbol -> how far it was answered."""
    whole: set[str] = field(default_factory=set[str])
    """Symbols that were answered to the end of their window: its last part may be the one that kills."""
    failed: int = 0


def _ask(
    context: Context,
    job: CollectJob,
    symbols: Sequence[str],
    deadline: float,
    done: _Done,
    *,
    before: Callable[[], None] | None = None,
    forgive: Callable[[], None] | None = None,
) -> None:
    """Ask for some symbols of a batch and write what comes.

    Args:
        context: The process's.
        job: The batch.
        symbols: Which of it.
        deadline: Monotonic seconds after which nobody is asked any more.
        done: Grows.
        before: Called before each request leaves.
        forgive: Called when answers have come.
    """
    interval = job.kind.capability.interval
    questions = _questions(context, job, symbols)
    asking = Asking(
        context,
        job.kind.capability,
        share=Share.LIVE,
        deadline=deadline,
        hint=job.provider if job.kind is not Kind.REREAD else None,
        only=job.provider if job.kind is Kind.REREAD else None,
        patience_s=_PATIENCE_S if job.kind.timeout_s <= _QUICK_S else _PATIENCE_DAILY_S,
        before=before,
    )
    is_new = _is_new(context, job)
    writer = Writer(context, interval, job.tier, Share.LIVE, inbox=job.inbox, is_new=is_new)

    asking.add(questions)
    left = {q.member.symbol: [q.window] if q.window else [] for q in questions}
    failed = 0
    for results in asking.results():
        for result in results:
            if isinstance(result, Answered):
                symbol, window = result.question.member.symbol, result.question.window
                # A long window is asked in parts; the symbol is answered with the last of them.
                if window is not None:
                    left[symbol] = subtract(left[symbol], [window])
                if not left[symbol]:
                    done.whole.add(symbol)
                writer.add(result, closes=not left[symbol])
                done.reached[symbol] = window.end if window else result.asked_at
            else:
                writer.put_aside(result)
                if not asking.again(result):
                    writer.add_failure(result)
                    failed += 1
            # After each: many answers of a whole session may have come at once.
            writer.flush_due()
        writer.flush_due()
        if forgive is not None:
            forgive()
    writer.flush()

    for source in sorted(writer.sources) or ["none"]:
        context.telemetry.count(metrics.JOBS_PROCESSED, job.kind, source)
    done.questions += questions
    done.failed += failed
    if failed and context.stop.requested:
        raise HandedBackError(f"stopped with {failed} of {len(questions)} symbols not reached")


def _drop_stale(context: Context, job: CollectJob) -> dict[str, int]:
    context.telemetry.count(metrics.JOBS_STALE, job.kind, job.tier)
    if job.kind is Kind.QUOTES_L1:
        # Nothing will ever ask for it again; missing bars are found by the gap pass.
        context.telemetry.count(metrics.SLOTS_MISSED, job.kind, job.tier)
    log.info("stale job dropped", extra={"job": job.id, "not_after": job.not_after.isoformat()})
    return {"stale": len(job.symbols)}


def _questions(context: Context, job: CollectJob, symbols: Sequence[str]) -> list[Question]:
    return [
        Question(member, window)
        for member in _resolve(context, symbols)
        for window in _windows(context, job, member)
    ]


def _leave_out(context: Context, job: CollectJob, symbols: Collection[str]) -> None:
    if not symbols:
        return
    context.telemetry.count(metrics.SYMBOLS_LEFT_OUT, job.kind, job.tier, amount=len(symbols))
    log.error("symbols left out, workers died of their answers", extra={"symbols": sorted(symbols)})
    given_up = {
        row: [symbol for symbol in wanted if symbol in symbols]
        for row, wanted in (job.inbox or {}).items()
    }
    given_up = {row: names for row, names in given_up.items() if names}
    if given_up:
        names = ", ".join(sorted({name for names in given_up.values() for name in names}))
        inbox.give_up(context.db, given_up, f"workers died each time they asked for {names}")


def _resolve(context: Context, symbols: Sequence[str]) -> list[Member]:
    """Members in this order; names that left the universe since are skipped."""
    members = context.reference.resolve(symbols)
    unknown = [name for name in symbols if name not in members]
    if unknown:
        log.warning("symbols left out, the universe does not know them", extra={"symbols": unknown})
    return [members[name] for name in dict.fromkeys(symbols) if name in members]


def _wanted(context: Context, job: CollectJob) -> Sequence[str]:
    """The job's symbols; of a coordinator's job those that no other push of its elements has answered."""
    if not job.inbox:
        return job.symbols
    open_ = inbox.hold(context.db, job.inbox, inbox.LEASE_S)
    still = {
        symbol
        for row, symbols in job.inbox.items()
        for symbol in symbols
        if symbol in open_.get(row, ())
    }
    return [symbol for symbol in job.symbols if symbol in still]


def _windows(context: Context, job: CollectJob, member: Member) -> list[Window | None]:
    """What to ask for one symbol: nothing where its exchange was closed all the while."""
    if job.kind is Kind.QUOTES_L1:
        return [None]
    try:
        calendar = context.reference.calendar(member.calendar)
    except UsageError as error:
        log.warning("symbol left out: %s", error, extra={"symbol": member.symbol})
        return []
    if not job.inbox and not calendar.trading(job.window):
        return []
    return [job.window]


def _is_new(context: Context, job: CollectJob) -> Callable[[Answer, Bar], bool]:
    """Bars that ended since the sweep before this one can't have been stored earlier."""
    cadence_s = context.settings.cadence_s(job.tier, job.kind.capability)
    fresh = timedelta(seconds=cadence_s or 0)
    step = Interval.M1.delta

    def is_new(answer: Answer, bar: Bar) -> bool:
        return job.kind is Kind.BARS_1M and answer.asked_at - fresh < bar.ts + step

    return is_new


def _note_lag(context: Context, job: CollectJob, done: _Done) -> None:
    """Market now minus how far the batch's median symbol has been asked and answered."""
    behind = [
        done.reached.get(q.member.symbol, job.window.start).timestamp() for q in done.questions
    ]
    lag_s = context.clock.timestamp() - median(behind)
    context.telemetry.set(metrics.INGESTION_LAG, lag_s, Interval.M1)
