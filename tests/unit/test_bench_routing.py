"""What the routing bench makes of its logs, by hand-made ones."""

import pytest

from bench.routing import budgets, failover
from bench.routing.budgets import _Arrival, _Story
from bench.routing.callers import Event, share


def calls(*words: tuple[float, str, str]) -> list[Event]:
    return [Event(at, what, source) for at, what, source in words]


def test_failover_is_the_first_instant_from_which_nearly_all_calls_went_elsewhere() -> None:
    events = [Event(100 + n / 10, "s", "finnhub" if n < 20 else "polygon") for n in range(400)]
    # 18 of 380 later ones are 5 %: the first instants of the fault may be borne, too.
    assert failover._failover(events, 100.0, 140.0) == pytest.approx(0.0)
    events = [Event(100 + n / 10, "s", "finnhub" if n < 100 else "polygon") for n in range(200)]
    found = failover._failover(events, 100.0, 120.0)
    assert 9.4 < found < 10.0
    events = [Event(100 + n / 10, "s", "finnhub") for n in range(100)]
    assert failover._failover(events, 100.0, 110.0) == pytest.approx(10.0)


def test_probes_that_overlap_are_counted() -> None:
    events = [
        Event(1.0, "p", "finnhub", "x"),
        Event(2.0, "e", "finnhub", "x"),
        Event(3.0, "p", "finnhub", "y"),
        Event(3.5, "p", "finnhub", "z"),
        Event(3.6, "p", "polygon", "w"),
        Event(4.0, "e", "finnhub", "y"),
    ]
    assert failover._at_once(events[:3]) == 1
    assert failover._at_once(events) == 2


def test_calls_that_were_out_at_the_onset_are_those_that_left_and_did_not_come_back() -> None:
    events = calls(
        (1, "s", "finnhub"), (2, "s", "finnhub"), (2, "s", "polygon"), (3, "a", "finnhub")
    )
    assert failover._flying(events) == 1
    assert share(events, "s", "finnhub") == pytest.approx(2 / 3)
    assert share(events, "x", "finnhub") is None


def test_what_was_used_leaves_out_the_restart_the_flush_and_the_first_window() -> None:
    story = _Story(began=0.0, ended=100.0, restarted=(40.0, 50.0), flushed=70.0)
    # 8 of 10 a second, but nothing while Redis was away and after it was flushed.
    arrivals = [
        _Arrival(second + n / 10, "finnhub", False)
        for second in range(100)
        if not (40 <= second < 51 or 70 <= second < 77)
        for n in range(8)
    ]
    assert budgets._used(arrivals, story, "finnhub", 10, 1.0) == pytest.approx(0.8)
    assert budgets._used(arrivals, story, "polygon", 10, 1.0) == 0
