"""How long a fault was felt: stale looks belong to the last fault that ended before they were over."""

from chaos.freshness import Look, longest_stale, recoveries
from chaos.schedule import Fault, Kind
from chaos.strike import Struck


def _struck(kind: Kind, began_s: float, ended_s: float | None) -> Struck:
    fault = Fault(began_s, kind, "target")
    return Struck(fault, 0, hit=True, began_s=began_s, ended_s=ended_s)


def _looks(text: str) -> list[Look]:
    return [Look(float(at), char == "+") for at, char in enumerate(text)]


def test_a_fault_that_nobody_felt_took_no_time() -> None:
    assert [one.seconds for one in recoveries([_struck(Kind.KILL, 2, 2)], _looks("+++++"))] == [0.0]


def test_staleness_that_sets_in_after_the_end_counts_from_the_end() -> None:
    found = recoveries([_struck(Kind.KILL, 2, 2)], _looks("+++++--++"))
    assert [one.seconds for one in found] == [5.0]


def test_staleness_that_was_over_before_the_end_does_not_count() -> None:
    found = recoveries([_struck(Kind.PROVIDER, 1, 6)], _looks("++--+++++"))
    assert [one.seconds for one in found] == [0.0]


def test_overlapping_faults_are_timed_from_the_last_end() -> None:
    struck = [_struck(Kind.POSTGRES_STOP, 1, 2), _struck(Kind.REDIS_KILL, 3, 4)]
    assert [one.seconds for one in recoveries(struck, _looks("+------+"))] == [0.0, 3.0]


def test_the_first_minutes_of_a_market_are_no_fault() -> None:
    assert [one.seconds for one in recoveries([_struck(Kind.KILL, 2, 2)], _looks("---+++"))] == [
        0.0
    ]


def test_what_was_never_got_over_counts_until_the_last_look() -> None:
    found = recoveries([_struck(Kind.KILL, 2, 2)], _looks("+++----"))
    assert [one.seconds for one in found] == [4.0]


def test_the_longest_stale_stretch_is_told_whatever_struck() -> None:
    assert longest_stale(_looks("--++---+--+")) == 3.0
    assert longest_stale(_looks("-++")) == 0.0
