"""More missing than usual: by chance it is not said, and habit is no news."""

import random

import pytest

from routing.usual import Missing, borne, lower_bound


def fed(share: float, seconds: int = 120, per_s: int = 10, seed: int = 1) -> tuple[Missing, float]:
    draws, missing, now = random.Random(seed), Missing(), 1000.0
    for _ in range(seconds * per_s):
        now += 1 / per_s
        missing.add(now, 1, int(draws.random() < share))
    return missing, now


@pytest.mark.parametrize("share", [0.0, 0.02, 0.2, 0.6, 0.95])
def test_what_is_usual_is_not_unusual(share: float) -> None:
    draws, (missing, now) = random.Random(2), fed(share)
    said = 0
    for _ in range(3000):
        now += 0.1
        missing.add(now, 1, int(draws.random() < share))
        said += missing.unusual(now)
    assert said == 0


@pytest.mark.parametrize("usual", [0.0, 0.02, 0.05])
def test_a_source_that_drops_a_third_is_noticed_within_ten_seconds(usual: float) -> None:
    draws, (missing, now) = random.Random(3), fed(usual)
    began = now
    while not missing.unusual(now):
        now += 0.1
        missing.add(now, 1, int(draws.random() < usual + 0.3))
        assert now - began < 10


def test_nothing_is_unusual_before_something_is_usual() -> None:
    missing, now = fed(0.0, seconds=10)
    assert missing.usual is None
    for _ in range(9):
        missing.add(now, 1, 1)
    assert not missing.unusual(now)


def test_a_new_habit_is_learnt_within_some_minutes() -> None:
    missing, now = fed(0.0)
    for _ in range(6000):
        now += 0.1
        missing.add(now, 1, int(_ % 2))
    assert missing.usual == pytest.approx(0.5, abs=0.1)
    assert not missing.unusual(now)


def test_what_is_borne_lies_between_the_usual_and_all() -> None:
    for hundredths in range(100):
        usual = hundredths / 100
        assert usual < borne(usual) < 1


def test_the_bound_is_below_the_share_and_rises_with_the_count() -> None:
    assert lower_bound(0, 20) == 0
    assert 0 < lower_bound(9, 30) < lower_bound(90, 300) < 0.3
