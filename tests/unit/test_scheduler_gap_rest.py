"""How long a gap pass rests: rarely on large tables, never for minutes."""

from scheduler import facts
from scheduler.gap_pass import rest_s


def test_quick_passes_come_as_often_as_they_may() -> None:
    assert rest_s([0.01, 0.02]) == facts.GAP_EVERY_REAL_S


def test_slow_passes_take_a_tenth_of_the_time() -> None:
    assert rest_s([0.3, 0.4]) == 0.3 * facts.GAP_DUTY


def test_one_pass_through_a_slow_database_is_no_reason_to_rest_long() -> None:
    assert rest_s([0.02, 6.0]) == facts.GAP_EVERY_REAL_S


def test_nothing_leaves_gaps_unseen_for_minutes() -> None:
    assert rest_s([60.0]) == facts.GAP_LONGEST_REST_S
