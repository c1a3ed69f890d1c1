"""What becomes of a backfill row after its sources were asked."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from core.errors import (
    BadRequestError,
    DeadlineExceededError,
    NoRouteError,
    ProviderUnavailableError,
)
from core.windows import Window
from workers.verdict import SECOND_OPINION, Findings, Verdict, judge

NOW = datetime(2024, 3, 5, 16, 0, tzinfo=UTC)
HOLE = Window(datetime(2024, 3, 5, 15, 0, tzinfo=UTC), datetime(2024, 3, 5, 15, 3, tzinfo=UTC))
SETTLE = timedelta(seconds=60)

CLEAN = Findings(
    lacking=(),
    unsettled=(),
    answered_by=frozenset(),
    answered_now=frozenset({"a"}),
    unanswered=False,
    asked=True,
    error=None,
    asked_at=NOW,
)


def decide(
    found: Findings,
    *,
    eligible: frozenset[str] = frozenset({"a", "b"}),
    before: frozenset[str] = frozenset(),
    attempts: int = 1,
) -> Verdict:
    return judge(found, eligible, before, attempts, SETTLE, 0.5)


def lacking(*answered: str, **changes) -> Findings:
    names = frozenset(answered)
    return replace(CLEAN, lacking=(HOLE,), answered_by=names, answered_now=names, **changes)


def test_a_filled_row_is_done() -> None:
    assert decide(CLEAN).state == "done"


def test_what_two_sources_lack_is_done() -> None:
    verdict = decide(lacking("a", "b"))

    assert verdict.state == "done"
    assert "a, b" in verdict.reason


def test_a_row_that_was_mostly_filled_says_how_much_of_it_is_empty() -> None:
    assert decide(lacking("a", "b", missing=3, expected=120)).reason == (
        "filled, but for 3 of 120 bars: empty by the word of a, b"
    )
    assert decide(lacking("a", "b", missing=3, expected=3)).reason == "empty by the word of a, b"


def test_the_only_source_is_asked_a_second_time_fifteen_minutes_later() -> None:
    verdict = decide(lacking("a"), eligible=frozenset({"a"}))

    assert verdict.state == "pending"
    assert verdict.not_before == NOW + timedelta(minutes=15) == NOW + SECOND_OPINION


def test_the_second_word_of_the_only_source_is_enough() -> None:
    verdict = decide(lacking("a"), eligible=frozenset({"a"}), before=frozenset({"a"}), attempts=2)

    assert verdict.state == "done"


def test_a_second_source_that_fails_is_tried_again_later() -> None:
    found = lacking("a", error=ProviderUnavailableError("b is down"))

    verdict = decide(found)

    assert verdict.state == "pending"
    assert verdict.pause_s > 0
    assert "b is down" in verdict.reason


def test_one_word_of_an_earlier_run_and_one_of_this_are_two() -> None:
    found = replace(lacking("b"), answered_by=frozenset({"a", "b"}))

    assert decide(found, before=frozenset({"a"}), attempts=2).state == "done"


def test_what_has_not_settled_is_asked_when_it_has() -> None:
    verdict = decide(replace(CLEAN, unsettled=(HOLE,)))

    assert verdict.state == "pending"
    assert verdict.not_before == HOLE.end + SETTLE


def test_a_question_that_nobody_can_answer_is_given_up() -> None:
    error = BadRequestError("older than 30 days")

    verdict = decide(replace(CLEAN, unanswered=True, error=error, asked_at=None))

    assert verdict.state == "failed"
    assert "older than 30 days" in verdict.reason


def test_an_outage_spends_no_attempt_where_nobody_was_asked() -> None:
    found = replace(
        CLEAN,
        unanswered=True,
        asked=False,
        asked_at=None,
        error=NoRouteError("bars_1m", {"a": "open", "b": "open"}),
    )

    verdict = decide(found)

    assert (verdict.state, verdict.spent) == ("pending", False)
    assert verdict.pause_s > 0


def test_a_budget_that_frees_later_is_waited_for() -> None:
    free_at = NOW + timedelta(hours=8)
    error = NoRouteError("bars_1m", {"a": "daily quota"}, retry_at=free_at)

    verdict = decide(replace(CLEAN, unanswered=True, asked=False, asked_at=None, error=error))

    assert (verdict.state, verdict.not_before) == ("pending", free_at)


def test_rows_that_a_stop_or_the_deadline_left_over_come_back_at_once() -> None:
    error = DeadlineExceededError("no time left")

    verdict = decide(replace(CLEAN, unanswered=True, asked=False, asked_at=None, error=error))

    assert (verdict.state, verdict.spent, verdict.pause_s) == ("pending", False, 0.0)


@pytest.mark.parametrize(("attempts", "pause_s"), [(1, 15), (2, 30), (5, 240), (7, 900), (30, 900)])
def test_pauses_grow_to_a_quarter_of_an_hour(attempts: int, pause_s: float) -> None:
    found = replace(CLEAN, unanswered=True, asked_at=None, error=ProviderUnavailableError("down"))

    verdict = decide(found, attempts=attempts)

    assert verdict.pause_s == pause_s
    assert verdict.spent


def test_time_without_trading_needs_no_answer() -> None:
    verdict = decide(replace(CLEAN, asked=False, asked_at=None, answered_now=frozenset()))

    assert verdict.state == "done"
    assert "no trading" in verdict.reason
