"""The schedule of faults: the same for the same seed, mixed, and fair to its targets."""

from collections import Counter
from itertools import permutations

import pytest

from chaos.schedule import PROCESSES, Kind, schedule


def test_the_same_seed_gives_the_same_schedule() -> None:
    assert schedule(7, 12, 1.5, 24.0) == schedule(7, 12, 1.5, 24.0)
    assert schedule(7, 12, 1.5, 24.0) != schedule(8, 12, 1.5, 24.0)


def test_a_schedule_is_pinned_so_that_a_seed_means_the_same_in_every_version() -> None:
    lines = [str(fault) for fault in schedule(1, 12, 1.5, 24.0)[:3]]
    assert lines == [
        "  5.56 s pause collect-t1 for 4.00 s",
        "  5.68 s kill intake for 9.00 s at=rlc_inbox",
        "  8.98 s postgres_stop postgres for 1.55 s",
    ]


@pytest.mark.parametrize("last_s", [4.5, 24.0])
@pytest.mark.parametrize("seed", range(20))
def test_faults_lie_in_their_time_and_find_their_target_alive(seed: int, last_s: float) -> None:
    faults = schedule(seed, 12, 1.5, last_s)
    assert [fault.at_s for fault in faults] == sorted(fault.at_s for fault in faults)
    for fault in faults:
        assert fault.at_s >= 1.5
        assert fault.ends_s <= last_s + 0.01
    for one, other in permutations(faults, 2):
        slowed_and_cut = {one.kind, other.kind} == {Kind.CUT, Kind.DELAY}
        if one.target == other.target and one.at_s <= other.at_s and not slowed_and_cut:
            assert other.at_s > one.ends_s


def test_every_run_has_deaths_in_slow_transactions_sooner_or_later() -> None:
    inside = 0
    for seed in range(20):
        faults = schedule(seed, 12, 1.5, 24.0)
        slow = [one for one in faults if one.kind is Kind.DELAY and one.target == "postgres-link"]
        assert slow
        inside += sum(
            any(one.at_s <= other.at_s <= one.ends_s for one in slow)
            for other in faults
            if other.kind in (Kind.KILL, Kind.POSTGRES_STOP, Kind.CUT)
        )
    assert inside >= 20


@pytest.mark.parametrize("seed", range(20))
def test_every_run_kills_a_collector_a_backfill_worker_and_an_intake_as_they_write(
    seed: int,
) -> None:
    ambushes = [one for one in schedule(seed, 12, 1.5, 24.0) if "at" in one.detail]
    assert {one.kind for one in ambushes} == {Kind.KILL}
    assert Counter(one.detail["at"] for one in ambushes) == {"candles_intraday": 2, "rlc_inbox": 1}
    assert {one.target.partition("-")[0] for one in ambushes} >= {"backfill", "intake"}


def test_every_kind_is_at_least_a_twentieth_and_every_process_is_struck() -> None:
    faults = [fault for seed in range(150) for fault in schedule(seed, 12, 1.5, 24.0)]
    kinds = Counter(fault.kind for fault in faults)
    assert min(kinds[kind] for kind in Kind) >= 0.05 * len(faults)
    signalled = (Kind.KILL, Kind.PAUSE, Kind.TERM)
    struck = {one.target for one in faults if one.kind in signalled and "at" not in one.detail}
    assert struck == set(PROCESSES)
