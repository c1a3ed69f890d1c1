"""The scripts against models: no window is ever passed, and the breaker is the one of ``circuit``."""

import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from routing import fleet, health
from routing.circuit import Circuit
from tests.routing_scripts import Scripts

pytestmark = pytest.mark.integration

START_US = 1_790_000_000_000_000
MARKET_US = 1_700_000_000_000_000
many = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LIMITS: tuple[tuple[int, int], ...] = ((7, 1_000_000), (20, 10_000_000))
"""Units and window, market microseconds."""


def facts(cost: int) -> str:
    return json.dumps(
        {
            "recover": 120_000_000,
            "hold": 50_000,
            "limits": [
                {
                    "units": units,
                    "window": window,
                    "step": math.ceil(window / 250),
                    "cost": cost,
                    "long": False,
                }
                for units, window in LIMITS
            ],
        }
    )


def market(segments: list[list[float]], real_us: float) -> int:
    if not segments:
        return int(real_us)
    chosen = segments[0]
    for segment in segments:
        if segment[0] <= real_us:
            chosen = segment
    return math.floor(chosen[1] + (real_us - chosen[0]) * chosen[2])


steps = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 300_000), st.integers(900_000, 1_300_000)),
        st.sampled_from(["live", "live", "backfill"]),
        st.integers(1, 9),
        st.integers(1, 2),
        st.integers(-2, 3),
        st.integers(0, 9),
    ),
    min_size=5,
    max_size=80,
)
speeds = st.lists(
    st.tuples(st.integers(200_000, 3_000_000), st.sampled_from([0.5, 1.0, 8.0, 60.0])), max_size=3
)


@many
@given(steps, speeds, st.sampled_from([50_000, 150_000, 1_050_000]))
def test_arrivals_never_pass_a_window_at_any_speed_refunded_late_or_in_time(
    redis_url: str,
    script: list[tuple[int, str, int, int, int, int]],
    changes: list[tuple[int, float]],
    hold_us: int,
) -> None:
    lease = Scripts(redis_url, "market", "lease")
    lease.redis.flushall()
    segments: list[list[float]] = []
    if changes:
        segments = [[START_US, MARKET_US, 1.0]]
        for after, speed in changes:
            real = segments[-1][0] + after
            segments.append([real, market(segments, real), speed])
    keys = ["throttle", "one", "ten"]
    now, letters = START_US, "ee"
    booked: list[list[int]] = []  # granted at, latest arrival, units
    unused: dict[str, list[list[Any]]] = {
        "live-1": [],
        "live-2": [],
        "backfill-1": [],
        "backfill-2": [],
    }
    for elapsed, share, wanted, cost, back, which in script:
        now += elapsed
        wallet = f"{share}-{cost}"
        refunds: list[list[Any]] = []
        if back > 0 and unused[wallet]:
            calls, ahead, entry = unused[wallet].pop(which % len(unused[wallet]))
            given_back = min(back, calls)
            refunds = [[given_back, ahead, [0, 0], 0]]
            entry[2] -= given_back * cost
        elif back < 0 and unused[wallet]:
            # A call that arrives just now, long after it was to: its process says so in time.
            calls, ahead, entry = unused[wallet].pop(which % len(unused[wallet]))
            at = market(segments, now)
            if at < ahead + LIMITS[0][1]:
                refunds = [[1, ahead, [0, 0], 1]]
                entry[2] -= cost
                booked.append([entry[0], at, cost])
        calls, ahead, wait, code, _, _, _ = lease.at(
            now,
            keys,
            [
                facts(cost),
                json.dumps(segments),
                wanted,
                share,
                letters,
                hold_us,
                json.dumps(refunds),
            ],
        )
        letters = "aa"
        assert code in {"ok", "full", "yields"}
        assert (calls > 0) == (code == "ok")
        assert calls <= wanted
        assert code == "ok" or wait > 0
        if calls:
            latest = market(segments, now + hold_us)
            entry = [market(segments, now), latest, calls * cost]
            booked.append(entry)
            if ahead:
                unused[wallet].append([calls, ahead, entry])
    for units, window in LIMITS:
        # The worst a window can hold: all that may arrive at or after its start and was granted before its end.
        for _, start, _ in booked:
            worst = sum(
                n for granted, latest, n in booked if latest >= start and granted < start + window
            )
            assert worst <= units, f"{worst} of {units} in a window of {window / 1e6} s"


def test_a_full_window_is_free_again_when_it_has_passed_and_not_before(redis_url: str) -> None:
    lease = Scripts(redis_url, "market", "lease")

    def ask(now: int, wanted: int, letters: str = "aa", share: str = "live") -> tuple[int, str]:
        keys = ["throttle", "one", "ten"]
        calls, _, _, code, _, _, _ = lease.at(
            now, keys, [facts(1), "[]", wanted, share, letters, 50_000, "[]"]
        )
        return calls, code

    assert ask(START_US, 9, "ee") == (7, "ok")
    assert ask(START_US + 1_049_999, 1) == (0, "full")
    assert ask(START_US + 1_055_000, 9) == (7, "ok")
    assert ask(START_US + 2_200_000, 9) == (6, "ok"), "20 in ten seconds"


def test_an_unknown_window_is_said_to_be_lost_and_can_begin_full(redis_url: str) -> None:
    lease = Scripts(redis_url, "market", "lease")
    keys = ["throttle", "one", "ten"]

    def ask(now: int, letters: str) -> str:
        return lease.at(now, keys, [facts(1), "[]", 1, "live", letters, 50_000, "[]"])[3]

    assert ask(START_US, "aa") == "lost"
    assert ask(START_US, "ff") == "full"
    assert ask(START_US + 10_000_000, "aa") == "full"
    assert ask(START_US + 10_200_000, "aa") == "ok"


def test_what_is_leased_while_the_server_s_clock_is_behind_counts_from_its_newest_time(
    redis_url: str,
) -> None:
    lease = Scripts(redis_url, "market", "lease")
    keys = ["throttle", "one", "ten"]

    def ask(now: int, wanted: int) -> int:
        return lease.at(now, keys, [facts(1), "[]", wanted, "live", "ee", 50_000, "[]"])[0]

    assert ask(START_US, 3) == 3
    assert ask(START_US - 30_000_000, 9) == 4
    assert ask(START_US + 500_000, 9) == 0
    assert ask(START_US + 1_060_000, 9) == 7


def test_a_lease_by_a_process_that_missed_a_change_of_speed_expires_all_the_same(
    redis_url: str,
) -> None:
    lease = Scripts(redis_url, "market", "lease")
    keys = ["throttle", "one", "ten"]
    quick = [[START_US, START_US, 100.0]]

    def ask(now: int, wanted: int, segments: list[list[float]], refunds: list[Any]) -> list[Any]:
        words = [facts(1), json.dumps(segments), wanted, "live", "ee", 50_000, json.dumps(refunds)]
        return lease.at(now, keys, words)

    calls, ahead, *_ = ask(START_US, 9, quick, [])
    assert calls == 7
    assert ask(START_US, 9, quick, [])[3] == "full"
    calls, behind, *_ = ask(START_US + 10, 9, [], [[2, ahead, [0, 0], 0]])
    assert (calls, behind) == (2, 0), "granted, but not to be refunded"
    assert ask(START_US + 20_000_000, 9, [], [])[0] == 7, "nothing stays counted for ever"


def test_a_429_pauses_for_as_long_as_asked_and_shrinks_once_a_burst(redis_url: str) -> None:
    throttle = Scripts(redis_url, "market", "throttle")
    lease = Scripts(redis_url, "market", "lease")
    keys = ["throttle", "one", "ten"]

    def ask(now: int, wanted: int = 9) -> tuple[int, str]:
        calls, _, _, code, _, _, _ = lease.at(
            now, keys, [facts(1), "[]", wanted, "live", "ee", 50_000, "[]"]
        )
        return calls, code

    for after in (0, 10_000, 20_000):
        throttle.at(
            START_US + after, ["throttle"], ["[]", 5_000_000, 1_000_000, 0.5, 0.1, 120_000_000]
        )
    assert ask(START_US + 5_000_000) == (0, "paused")
    # Half of 7 units, and 5 s of the 120 s in which a whole share grows back: floor(7 * 0.5417) = 3.
    assert ask(START_US + 5_020_001) == (3, "ok")
    assert ask(START_US + 66_000_000) == (7, "ok")


ONE_WINDOW = {"units": 40, "window": 1_000_000, "step": 4000, "cost": 1, "long": False}


def test_backfill_yields_until_refused_live_work_had_its_chance(redis_url: str) -> None:
    lease = Scripts(redis_url, "market", "lease")
    words = json.dumps({"recover": 1, "hold": 50_000, "limits": [ONE_WINDOW]})

    def ask(now: int, share: str, wanted: int) -> tuple[int, str]:
        calls, _, _, code, _, _, _ = lease.at(
            now, ["throttle", "one"], [words, "[]", wanted, share, "e", 50_000, "[]"]
        )
        return calls, code

    assert ask(START_US, "live", 40) == (40, "ok")
    assert ask(START_US + 900_000, "live", 1) == (0, "full")
    # The forty leave the window 1.05 s after they were leased (up to a bucket of 4 ms later); then
    # live work has 0.1 s to come back.
    assert ask(START_US + 1_140_000, "backfill", 1) == (0, "yields")
    assert ask(START_US + 1_170_000, "backfill", 1) == (1, "ok")
    assert ask(START_US + 1_180_000, "live", 40) == (39, "ok")
    assert ask(START_US + 1_190_000, "backfill", 1) == (0, "yields"), "live work wants more"
    assert ask(START_US + 2_300_000, "live", 10) == (10, "ok")
    assert ask(START_US + 2_400_000, "backfill", 1) == (1, "ok"), "and has all that it wants"


def test_backfill_spreads_what_it_takes_over_the_window(redis_url: str) -> None:
    lease = Scripts(redis_url, "market", "lease")
    words = json.dumps({"recover": 1, "hold": 50_000, "limits": [ONE_WINDOW]})

    def ask(now: int) -> int:
        return lease.at(now, ["throttle", "one"], [words, "[]", 9, "backfill", "e", 50_000, "[]"])[
            0
        ]

    taken = [ask(START_US + step * 10_000) for step in range(210)]
    tenths = [sum(taken[step : step + 10]) for step in range(0, 210, 10)]
    assert max(tenths) <= 8, "no more than two slots of 4 within 0.1 s"
    assert sum(taken) >= 72, "nothing is lost by it: 40 in 1.05 s"


def test_what_live_work_used_stays_its_own_for_a_tenth_of_the_window(redis_url: str) -> None:
    lease = Scripts(redis_url, "market", "lease")
    keys = ["throttle", "one", "ten"]

    def ask(now: int, share: str, wanted: int = 9) -> int:
        return lease.at(now, keys, [facts(1), "[]", wanted, share, "ee", 50_000, "[]"])[0]

    assert ask(START_US, "live", 6) == 6
    assert ask(START_US + 900_000, "backfill") == 1
    assert ask(START_US + 1_060_000, "backfill") == 0, (
        "six of seven are kept for live work's return"
    )
    assert ask(START_US + 1_070_000, "live", 6) == 6


PAIR_KEYS = ["retries", "pair"]
MODEL = json.dumps(dict(fleet.rules()))


def samples(**words: Any) -> str:
    base = dict.fromkeys(["good", "failed", "calls", "bad", "auth", "lat_n", "cmp_n"], 0)
    base |= dict.fromkeys(["trip", "off", "error", "probe", "verdict", "why"], "")
    return json.dumps(base | {"ver": 0, "ln_ms": 0.0, "lat": 0.0, "cmp": 0.0, "full": 0.0} | words)


moves = st.lists(
    st.tuples(
        st.one_of(st.integers(1, 5000), st.integers(5000, 70_000)),
        st.sampled_from(
            ["good", "bad", "mixed", "auth", "trip", "stale", "claim", "ok", "fail", "none"]
        ),
        st.integers(1, 12),
        st.floats(0, 0.99),
    ),
    min_size=1,
    max_size=60,
)


BACK_FOR_A_MINUTE = [
    (1000, "bad", 12, 0.0),
    (2000, "claim", 1, 0.0),
    (10, "ok", 1, 0.0),
    (10_000, "good", 1, 0.0),
    (60_000, "bad", 12, 0.0),
]


@many
@given(moves)
@example(BACK_FOR_A_MINUTE)
def test_the_fleet_s_breaker_is_the_one_of_the_pure_rules(
    redis_url: str, script: list[tuple[int, str, int, float]]
) -> None:
    sync = Scripts(redis_url, "circuit", "sync")
    probe = Scripts(redis_url, "circuit", "probe")
    sync.redis.flushall()
    model, now, tokens = Circuit(), 1_790_000_000_000, 0
    for elapsed, what, count, jitter in script:
        now += elapsed
        sent = ""
        match what:
            case "claim":
                tokens += 1
                won = probe.at(now, PAIR_KEYS[1:], [MODEL, f"t{tokens}", 3000])
                assert bool(won) == model.claim(now, f"t{tokens}", 3000)
            case "ok" | "fail" | "none":
                verdict = {"ok": "ok", "fail": "bad", "none": "none"}[what]
                token = model.probe or "nobody"
                sent = samples(probe=token, verdict=verdict, why="refused")
                model.probed(now, token, verdict, "refused", jitter)  # type: ignore[arg-type]
            case _:
                bad = {"good": 0, "mixed": count // 2}.get(what, count)
                auth, trip = (count if what == "auth" else 0), ("run" if what == "trip" else "")
                version = model.version - (what == "stale")
                sent = samples(ver=version, calls=count, bad=bad, auth=auth, trip=trip)
                model.record(now, version, count, bad, auth=auth, trip=trip, jitter=jitter)
        (state, ver, share, wait, why, *_), *_ = json.loads(
            sync.at(now, PAIR_KEYS, [MODEL, repr(jitter), 0, 0, sent])
        )[1]
        said = model.standing(now)
        assert (state, ver, share, wait, why) == (
            said.state,
            said.version,
            said.share,
            pytest.approx(said.wait_ms, abs=1),
            said.why,
        )


def test_the_terms_of_health_move_as_the_pure_functions_say(redis_url: str) -> None:
    sync = Scripts(redis_url, "circuit", "sync")
    now = 1_790_000_000_000

    def terms(at: int, sent: str) -> list[float]:
        return json.loads(sync.at(at, PAIR_KEYS, [MODEL, "0", 0, 0, sent]))[1][0][5:8]

    first = samples(good=6, failed=4, lat_n=10, lat=5.0, cmp_n=10, cmp=9.0, ln_ms=6 * math.log(80))
    expected = [health.blend(1.0, mean, 10) for mean in (0.5, 0.6, 0.9)]
    assert terms(now, first) == pytest.approx(expected)
    relaxed = [health.relax(term, 12.0) for term in expected]
    assert terms(now + 12_000, "") == pytest.approx(relaxed)
    again = health.blend(health.relax(expected[1], 30.0), 0.0, 3)
    assert terms(now + 30_000, samples(failed=3))[1] == pytest.approx(again)


def test_usual_latency_is_a_slow_mean_once_twenty_calls_tell(redis_url: str) -> None:
    sync = Scripts(redis_url, "circuit", "sync")
    now = 1_790_000_000_000

    def usual_ms(at: int, count: int, ms: float) -> float:
        sent = samples(good=count, lat_n=count, lat=float(count), ln_ms=count * math.log(ms))
        return json.loads(sync.at(at, PAIR_KEYS, [MODEL, "0", 0, 0, sent]))[1][0][8]

    assert usual_ms(now, 19, 50) == 0
    assert usual_ms(now + 100, 1, 50) == pytest.approx(50)
    # Ten times slower for three seconds: 1 % of the way to 500 ms on a logarithmic scale.
    assert usual_ms(now + 3100, 300, 500) == pytest.approx(
        50 * 10 ** (1 - math.exp(-0.01)), rel=1e-3
    )


def test_a_plan_without_the_capability_turns_it_off_at_once_and_one_symbol_does_not(
    redis_url: str,
) -> None:
    sync = Scripts(redis_url, "circuit", "sync")
    now = 1_790_000_000_000

    def off_ms(key: str, at: int, **words: Any) -> float:
        row = json.loads(sync.at(at, ["retries", key], [MODEL, "0", 0, 0, samples(**words)]))[1][0]
        return row[10]

    assert off_ms("never", now, off="no access") == 6 * 3600 * 1000
    assert off_ms("worked", now, good=1, lat_n=1, lat=1.0) == 0
    assert [off_ms("worked", now + i, off="no access") for i in (1, 2, 3)] == [
        0,
        0,
        6 * 3600 * 1000,
    ]


def test_retries_are_a_fifth_of_the_calls_beside_a_trickle(redis_url: str) -> None:
    sync = Scripts(redis_url, "circuit", "sync")
    now = 1_790_000_000_000

    def granted(at: int, calls: int, wanted: int) -> int:
        return json.loads(sync.at(at, ["retries"], [MODEL, "0", calls, wanted]))[0]

    assert granted(now, 0, 100) == 10, "what a quiet fleet may spend"
    assert granted(now, 0, 100) == 0
    assert granted(now, 500, 1000) == 100
    assert granted(now + 4000, 0, 100) == 4, "one more a second"
    granted(now + 4000, 500, 0)
    assert granted(now + 34_000, 0, 1000) == 50, "half of it fades in thirty seconds"


def test_a_redis_that_came_back_without_its_last_leases_counts_as_spent_once(
    redis_url: str,
) -> None:
    lease = Scripts(redis_url, "market", "lease")
    lease.redis.flushall()
    keys = ["throttle", "one", "ten"]

    def ask(now: int, wanted: int, known: int) -> tuple[int, str, int]:
        calls, _, _, code, _, _, number = lease.at(
            now, keys, [facts(1), "[]", wanted, "live", "ee", 50_000, "[]", known]
        )
        return calls, code, number

    assert ask(START_US, 1, 0) == (1, "ok", 1)
    assert ask(START_US + 10, 1, 1) == (1, "ok", 2)
    # Somebody knows of lease 5, which Redis no longer does: what else was leased is anybody's guess.
    assert ask(START_US + 20, 1, 5)[:2] == (0, "full")
    assert ask(START_US + 30, 1, 2)[:2] == (0, "full"), "whoever asks"
    assert ask(START_US + 12_000_000, 1, 6)[:2] == (1, "ok"), "and only once"
