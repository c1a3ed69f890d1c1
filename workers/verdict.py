"""Decides what becomes of a backfill row after its sources were asked. Pure.

A minute that a source lacks is confirmed empty by a second source, or by the only source a second
time. So a row is done when everything in it is present or was said to be empty by all who could know.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from core.errors import DeadlineExceededError, GaplessError, NoRouteError
from core.windows import Window

SECOND_OPINION: Final = timedelta(minutes=15)
"""Market time between two answers of the only eligible source that together confirm emptiness."""
_FIRST_S = 15.0
_LONGEST_S = 900.0
"""Market seconds of the first and of the longest pause after failures."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What was learnt about one row in this run."""

    lacking: Sequence[Window]
    """Settled trading time in the row that no source asked so far had."""
    unsettled: Sequence[Window]
    """Trading time that lacked, but may still come."""
    answered_by: frozenset[str]
    """Sources that said so of all that lacks, in this run or an earlier one."""
    answered_now: frozenset[str]
    """Sources that answered in this run."""
    unanswered: bool
    """Whether a part of the row got no answer at all."""
    asked: bool
    """Whether any source was asked, with whatever success."""
    error: GaplessError | None
    """Why somebody did not answer."""
    asked_at: datetime | None
    """Market time of the last answer; None when there was none."""
    missing: int = 0
    """Bars in ``lacking``."""
    expected: int = 0
    """Bars that the calendar expects in the row; 0 where it does not speak of it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The row's next state."""

    state: Literal["done", "pending", "failed"]
    reason: str
    pause_s: float = 0.0
    """Market seconds until the row may be tried again."""
    not_before: datetime | None = None
    """Market time before which trying again is pointless."""
    spent: bool = True
    """Whether this counts as an attempt; not when nobody was asked."""


def judge(
    found: Findings,
    eligible: Set[str],
    answered_before: Set[str],
    attempts: int,
    settle: timedelta,
    spread: float,
) -> Verdict:
    """Decide.

    Args:
        found: What this run learnt.
        eligible: Sources that could answer in principle.
        answered_before: Sources whose answer of an earlier run lacked bars.
        attempts: How often the row was tried, this time included.
        settle: How long after its end a bar may still come.
        spread: In [0, 1), random: keeps rows that failed together from coming back together.
    """
    pause_s = min(_FIRST_S * 2.0 ** max(attempts - 1, 0), _LONGEST_S) * (0.5 + spread)
    if found.unanswered:
        return _not_answered(found, pause_s)
    if found.lacking:
        names = ", ".join(sorted(found.answered_by)) or "a part of the sources"
        others = ", ".join(sorted(eligible - found.answered_by))
        if others:
            why = f": {found.error}" if found.error else ""
            return Verdict("pending", f"lacking at {names}; no answer from {others}{why}", pause_s)
        again = found.answered_by & found.answered_now & answered_before
        if len(found.answered_by) >= 2 or again or found.asked_at is None:
            return Verdict("done", _emptiness(found, names))
        return Verdict(
            "pending",
            f"lacking at {names}, the only source: to be asked a second time",
            not_before=found.asked_at + SECOND_OPINION,
        )
    if found.unsettled:
        until = max(window.end for window in found.unsettled) + settle
        return Verdict("pending", "asked before it settled", not_before=until)
    return Verdict("done", "filled" if found.asked_at is not None else "no trading time in it")


def _emptiness(found: Findings, names: str) -> str:
    """What a done row says that still lacks bars: most of it may have been filled."""
    if found.missing < found.expected:
        rest = f"{found.missing:,} of {found.expected:,} bars"
        return f"filled, but for {rest}: empty by the word of {names}"
    return f"empty by the word of {names}"


def _not_answered(found: Findings, pause_s: float) -> Verdict:
    error = found.error
    if error is None or isinstance(error, DeadlineExceededError):
        return Verdict("pending", "not reached in time", spent=False)
    reason = f"{error.code}: {error}"
    if not error.retryable and not error.counts_against_health:
        return Verdict("failed", reason)
    if isinstance(error, NoRouteError) and error.retry_at is not None:
        return Verdict("pending", reason, not_before=error.retry_at, spent=found.asked)
    return Verdict("pending", reason, pause_s, spent=found.asked)
