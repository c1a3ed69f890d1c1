"""The breaker's rules, by hand and for all sequences of outcomes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.circuit import LONGEST_MS, RAMP, Circuit, State, open_ms, surely_bad

# Wilson's lower bound at z = 3, worked out by hand: 0.4375, 0.419, 0.375, 0.295, 0.397, 0.400.
ENOUGH = [(7, 7), (15, 20), (130, 250)]
NOT_ENOUGH = [(6, 6), (14, 20), (12, 20), (100, 200), (75, 250)]


@pytest.mark.parametrize(("bad", "calls"), ENOUGH)
def test_failures_beyond_chance_are_bad(bad: int, calls: int) -> None:
    assert surely_bad(bad, calls)


@pytest.mark.parametrize(("bad", "calls"), NOT_ENOUGH)
def test_failures_that_chance_explains_are_borne(bad: int, calls: int) -> None:
    assert not surely_bad(bad, calls)


def opened(now: float = 1000.0) -> Circuit:
    circuit = Circuit()
    circuit.record(now, 0, 10, 10)
    return circuit


def test_ten_failures_open_it_and_nine_do_not() -> None:
    circuit = Circuit()
    circuit.record(1000, 0, 9, 9)
    assert circuit.standing(1000).state is State.CLOSED
    circuit.record(1001, 0, 1, 1)
    assert circuit.standing(1001).state is State.OPEN


def test_failures_older_than_ten_seconds_do_not_count() -> None:
    circuit = Circuit()
    circuit.record(1_000, 0, 9, 9)
    circuit.record(12_000, 0, 9, 9)
    assert circuit.standing(12_000).state is State.CLOSED


def test_three_auth_errors_open_it_with_their_reason_and_a_good_call_between_does_not() -> None:
    circuit = Circuit()
    circuit.record(0, 0, 2, 2, auth=2)
    circuit.record(1, 0, 1, 0)
    circuit.record(2, 0, 1, 1, auth=1)
    assert circuit.standing(2).state is State.CLOSED
    circuit.record(3, 0, 2, 2, auth=2)
    assert circuit.standing(3).state is State.OPEN
    assert circuit.why == "auth"


def test_open_times_double_up_to_fifteen_seconds_and_jitter_only_shortens() -> None:
    assert [open_ms(n, 0.0) for n in range(1, 7)] == [1000, 2000, 4000, 8000, 15000, 15000]
    assert open_ms(1, 0.999) == 700
    assert open_ms(1000, 0.0) == LONGEST_MS


def test_a_good_probe_brings_traffic_back_in_steps() -> None:
    circuit = opened()
    assert not circuit.claim(1999, "early", 5000)
    assert circuit.claim(2000, "one", 5000)
    assert not circuit.claim(2001, "two", 5000)
    circuit.probed(2100, "one", "ok")
    shares = [circuit.standing(2100 + ms).share for ms in (0, 1999, 2000, 4999, 5000, 9999, 10_000)]
    assert shares == [0.01, 0.01, 0.10, 0.10, 0.50, 0.50, 1.0]
    assert circuit.standing(12_100).state is State.CLOSED


def test_a_bad_probe_opens_it_for_longer() -> None:
    circuit = opened()
    assert circuit.claim(2000, "one", 5000)
    circuit.probed(2010, "one", "bad", "refused")
    assert circuit.standing(2010).wait_ms == 2000
    assert circuit.why == "refused"


def test_a_probe_that_never_answers_is_given_up_and_its_late_answer_ignored() -> None:
    circuit = opened()
    assert circuit.claim(2000, "dead", 5000)
    assert not circuit.claim(6999, "next", 5000)
    assert circuit.claim(7000, "next", 5000)
    circuit.probed(7001, "dead", "ok")
    assert circuit.standing(7001).share == 0


def test_a_probe_that_was_not_sent_is_due_again_at_once() -> None:
    circuit = opened()
    assert circuit.claim(2000, "one", 5000)
    circuit.probed(2001, "one", "none")
    assert circuit.claim(2002, "two", 5000)


def test_a_ramp_in_which_nothing_succeeds_is_given_up_after_three_calls() -> None:
    circuit = opened()
    circuit.claim(2000, "one", 5000)
    circuit.probed(2001, "one", "ok")
    circuit.record(2100, circuit.version, 2, 2)
    assert circuit.standing(2100).state is State.HALF_OPEN
    circuit.record(2200, circuit.version, 1, 1)
    assert circuit.standing(2200).state is State.OPEN


def test_late_failures_of_calls_from_before_the_opening_do_not_end_a_ramp() -> None:
    circuit = opened()
    circuit.claim(2000, "one", 5000)
    circuit.probed(2001, "one", "ok")
    circuit.record(2100, 0, 30, 30)
    assert circuit.standing(2100).share == RAMP[0][1]


def test_a_minute_after_closing_the_open_time_starts_small_again() -> None:
    circuit = opened()
    circuit.claim(2000, "one", 5000)
    circuit.probed(2000, "one", "ok")
    circuit.record(30_000, circuit.version, 10, 10)
    assert circuit.standing(30_000).wait_ms == 2000
    circuit.claim(32_000, "two", 5000)
    circuit.probed(32_000, "two", "ok")
    circuit.record(102_000, circuit.version, 10, 10)
    assert circuit.standing(102_000).wait_ms == 1000


def test_on_its_own_a_process_goes_on_from_what_the_fleet_said() -> None:
    told = opened().standing(1500)
    alone = Circuit()
    alone.adopt(70_000, told)
    assert not alone.claim(70_499, "one", 5000)
    assert alone.claim(70_500, "one", 5000)


steps = st.lists(
    st.tuples(
        st.integers(1, 4000),
        st.sampled_from(["good", "bad", "auth", "trip", "claim", "ok", "fail", "none"]),
        st.integers(1, 12),
    ),
    max_size=60,
)


@given(steps)
def test_whatever_happens_the_state_is_one_of_three_and_at_most_one_probe_is_out(
    script: list[tuple[int, str, int]],
) -> None:
    circuit, now, out = Circuit(), 0.0, 0
    for elapsed, what, many in script:
        now += elapsed
        before = circuit.standing(now)
        match what:
            case "claim":
                if circuit.claim(now, f"probe{now}", 3000):
                    assert before.probe_due
                    out += 1
            case "ok" | "fail" | "none":
                verdict = {"ok": "ok", "fail": "bad", "none": "none"}[what]
                circuit.probed(now, circuit.probe, verdict)  # type: ignore[arg-type]
            case _:
                bad = 0 if what == "good" else many
                auth, trip = (many if what == "auth" else 0), ("run" if what == "trip" else "")
                circuit.record(now, circuit.version, many, bad, auth=auth, trip=trip)
                if what == "good":
                    assert circuit.standing(now).version >= before.version
        after = circuit.standing(now)
        assert 0 <= after.share <= 1
        assert (after.share == 1) == (after.state is State.CLOSED)
        assert 0 <= after.wait_ms <= LONGEST_MS
        assert after.version >= before.version
