"""What one process concludes from its own calls."""

from routing.guard import Guard, run_allowed

USUAL_S, LIMIT_S = 0.05, 3.0


def refusal(guard: Guard, now: float) -> str | None:
    return guard.refusal(now, USUAL_S, LIMIT_S)


def test_a_run_is_four_for_a_good_source_and_longer_for_one_that_always_errs() -> None:
    assert [run_allowed(rate) for rate in (0.0, 0.02, 0.3, 0.5, 1.0)] == [4, 4, 12, 20, 20]


def test_after_a_failure_no_more_calls_go_than_make_the_run_full() -> None:
    guard = Guard()
    flying = [guard.begin(0.0) for _ in range(30)]
    assert not guard.bad(flying[0], 0.01)
    later = 0
    while refusal(guard, 0.02) is None:
        guard.begin(0.02)
        later += 1
    assert later == 3


def test_the_fourth_failure_in_a_row_trips() -> None:
    guard = Guard()
    trips = [guard.bad(guard.begin(t), t) for t in (0.0, 0.1, 0.2, 0.3)]
    assert trips == [False, False, False, True]


def test_a_good_call_ends_all_doubt() -> None:
    guard = Guard()
    for t in range(3):
        guard.bad(guard.begin(t), t)
    guard.good(guard.begin(5.0), 5.1)
    assert refusal(guard, 5.2) is None
    assert not guard.bad(guard.begin(6.0), 6.1)


def test_overdue_answers_raise_doubt_before_the_first_failure() -> None:
    guard = Guard()
    for _ in range(8):
        guard.begin(0.0)
    assert refusal(guard, 0.1) is None, "two usual latencies are no sign yet"
    assert "overdue" in (refusal(guard, 0.2) or ""), "eight are out since then, more than enough"


def test_calls_that_are_out_when_answers_become_overdue_are_among_the_few_that_may_go() -> None:
    guard = Guard()
    for _ in range(2):
        guard.begin(0.0)
    later = 0
    while refusal(guard, 0.2) is None:
        guard.begin(0.2)
        later += 1
    assert later == 2


def test_a_slow_call_among_quick_ones_raises_none() -> None:
    guard = Guard()
    guard.begin(0.0)
    for t in range(1, 40):
        guard.good(guard.begin(t / 10), t / 10 + 0.05)
        assert refusal(guard, t / 10 + 0.06) is None


def test_a_call_that_never_reports_is_forgotten() -> None:
    guard = Guard()
    guard.bad(guard.begin(0.0), 0.1)
    for _ in range(4):
        guard.begin(0.2)
    assert refusal(guard, 1.0) is not None
    assert refusal(guard, 0.2 + 2 * LIMIT_S + 1.1) is None


def test_failures_a_minute_apart_are_no_run() -> None:
    guard = Guard()
    trips = [guard.bad(guard.begin(t), t) for t in (0.0, 61.0, 122.0, 183.0, 244.0, 305.0)]
    assert not any(trips)
    assert refusal(guard, 400.0) is None


def test_runs_get_longer_where_errors_are_usual() -> None:
    guard, t = Guard(), 0.0
    for _ in range(200):
        t += 0.1
        guard.good(guard.begin(t), t)
        t += 0.1
        guard.bad(guard.begin(t), t)
    guard.good(guard.begin(t), t)
    runs = 0
    while not guard.bad(guard.begin(t), t):
        runs += 1
    assert runs >= 15


def test_a_call_without_meaning_changes_nothing() -> None:
    guard = Guard()
    for _ in range(100):
        guard.drop(guard.begin(0.0))
    assert refusal(guard, 10.0) is None
    assert guard.run == 0


def test_with_nothing_out_one_call_may_always_go() -> None:
    guard = Guard()
    for t in range(9):
        guard.bad(guard.begin(t), t)
    assert refusal(guard, 9.5) is None
    guard.begin(9.5)
    assert refusal(guard, 9.6) is not None
