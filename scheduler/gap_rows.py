"""Turns gaps into backfill rows: few rows, none for what is in hand already. Pure.

What no source has answered is asked for at once. What a source answered without the bar is only in
doubt: mostly nothing traded. It waits, together with its neighbours, for the second answer that
confirms it or finds the bar.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from core.windows import Window, subtract
from core.words import Interval
from db.backfill import NewJob
from db.gaps import Gap
from db.judging import Held
from scheduler import facts


@dataclass(frozen=True, slots=True)
class Judgement:
    """What holds for all gaps of one pass."""

    now: datetime
    chunk: timedelta
    """Longest window of a row."""
    max_attempts: int
    sources: int
    """How many sources could answer in principle."""
    since: Mapping[int, datetime]
    """Symbol id to the instant from which its bars are expected."""


@dataclass(slots=True)
class Rows:
    """What is to be done about the gaps."""

    new: list[NewJob] = field(default_factory=list[NewJob])
    wider: dict[int, Window] = field(default_factory=dict[int, Window])
    """Rows that wait already, with the windows that they shall have."""
    found: int = 0
    """Bars newly found missing."""


def rows_for(
    gaps: Sequence[Gap],
    held: Iterable[Held],
    answered: Mapping[int, Sequence[Window]],
    judgement: Judgement,
) -> Rows:
    """Decide what to ask for.

    Args:
        gaps: Missing bars of one interval.
        held: Rows of that interval that are open or were given up lately.
        answered: Symbol id to the windows that some source has answered after settle.
        judgement: What holds for all of them.
    """
    in_hand: dict[int, list[Held]] = {}
    for row in held:
        in_hand.setdefault(row.symbol_id, []).append(row)
    rows = Rows()
    for gap in gaps:
        mine = in_hand.get(gap.symbol_id, [])
        fresh = subtract(_expected(gap, judgement), (row.window for row in mine))
        unsaid = subtract(fresh, answered.get(gap.symbol_id, ()))
        for run in unsaid:
            rows.found += _bars(gap.interval, run)
            _ask_now(rows, gap, run, mine, judgement)
        for run in subtract(fresh, unsaid):
            rows.found += _bars(gap.interval, run)
            _ask_again(rows, gap, run, mine, judgement)
    return rows


def _expected(gap: Gap, judgement: Judgement) -> list[Window]:
    """The part of a gap that lies in the time for which its symbol has been listed."""
    since = judgement.since.get(gap.symbol_id)
    if since is None or gap.window.start >= since:
        return [gap.window]
    if gap.interval is Interval.D1 or gap.window.end <= since:
        return []
    return [Window(since, gap.window.end)]


def _ask_now(rows: Rows, gap: Gap, run: Window, mine: Sequence[Held], judgement: Judgement) -> None:
    """Into a row that touches the run and may go now, else into rows of its own."""
    longest = min(judgement.chunk, facts.GAP_STRETCH)
    for row in mine:
        waits = row.not_before is not None and row.not_before > judgement.now
        has = rows.wider.get(row.job_id, row.window)
        touches = has.end == run.start or run.end == has.start
        if row.elastic and not waits and touches and gap.interval is Interval.M1:
            both = _hull(has, run)
            if both.length <= longest:
                rows.wider[row.job_id] = both
                return
    rows.new += [_job(gap, part, None, judgement) for part in _parts(gap, run, judgement)]


def _ask_again(
    rows: Rows, gap: Gap, run: Window, mine: Sequence[Held], judgement: Judgement
) -> None:
    """Into a row that waits nearby, an open one or one of this pass, else into one of its own."""
    if gap.interval is Interval.M1:
        for row in mine:
            has = rows.wider.get(row.job_id, row.window)
            if row.elastic and row.not_before is not None and row.not_before > judgement.now:
                both = _joined(has, run, judgement)
                if both is not None:
                    rows.wider[row.job_id] = both
                    return
        last = rows.new[-1] if rows.new else None
        if last is not None and last.symbol_id == gap.symbol_id and last.not_before is not None:
            both = _joined(last.window, run, judgement)
            if both is not None:
                rows.new[-1] = _job(gap, both, last.not_before, judgement)
                return
    wait = facts.DOUBT_WAIT_ONE if judgement.sources <= 1 else facts.DOUBT_WAIT_MANY
    not_before = judgement.now + wait
    rows.new += [_job(gap, part, not_before, judgement) for part in _parts(gap, run, judgement)]


def _joined(has: Window, run: Window, judgement: Judgement) -> Window | None:
    both = _hull(has, run)
    between = both.length - has.length - run.length
    longest = min(judgement.chunk, facts.GAP_STRETCH)
    return both if between <= facts.DOUBT_JOIN and both.length <= longest else None


def _job(gap: Gap, window: Window, not_before: datetime | None, judgement: Judgement) -> NewJob:
    return NewJob(
        symbol_id=gap.symbol_id,
        interval=gap.interval,
        window=window,
        tier=gap.tier,
        origin="gap",
        not_before=not_before,
        max_attempts=judgement.max_attempts,
    )


def _parts(gap: Gap, run: Window, judgement: Judgement) -> list[Window]:
    """A daily bar is asked for whole, however short the chunks of 1m bars."""
    return [run] if gap.interval is Interval.D1 else list(run.chunks(judgement.chunk))


def _hull(one: Window, other: Window) -> Window:
    return Window(min(one.start, other.start), max(one.end, other.end))


def _bars(interval: Interval, run: Window) -> int:
    return 1 if interval is Interval.D1 else -(-run.length // interval.delta)
