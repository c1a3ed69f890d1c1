"""Parts run side by side; one that fails in a known way is tried again, any other ends the process."""

import threading

import pytest

from core.clock import SystemClock
from core.errors import StorageError, UsageError
from scheduler.loop import Loop, Part

CLOCK = SystemClock()


def run(*parts: Part) -> Loop:
    loop = Loop(parts, CLOCK)
    loop.start()
    return loop


def test_a_part_goes_on_after_an_error_that_may_pass(wait_until):
    calls: list[int] = []

    def step() -> float:
        calls.append(1)
        if len(calls) < 3:
            raise StorageError("the database is away")
        return 60.0

    part = Part("work", step)
    loop = run(part)
    wait_until(lambda: len(calls) == 3)
    wait_until(lambda: not loop.troubled())
    loop.stop()
    loop.join(["work"], 1.0)
    assert loop.failure is None


def test_a_part_in_trouble_is_named(wait_until):
    def step() -> float:
        raise StorageError("the database is away")

    loop = run(Part("work", step))
    wait_until(lambda: loop.troubled() == ["work"])
    loop.stop()


@pytest.mark.parametrize("error", [UsageError("not to be mended by waiting"), ValueError("a bug")])
def test_any_other_error_stops_every_part(error, wait_until):
    def fail() -> float:
        raise error

    resting = threading.Event()

    def rest() -> float:
        resting.set()
        return 60.0

    loop = run(Part("rests", rest), Part("fails", fail))
    wait_until(lambda: loop.stopping)
    loop.join(["rests", "fails"], 2.0)
    assert loop.failure is error
    assert resting.is_set()


def test_a_woken_part_steps_at_once(wait_until):
    calls: list[int] = []

    def step() -> float:
        calls.append(1)
        return 60.0

    part = Part("work", step)
    loop = run(part)
    wait_until(lambda: calls)
    part.wake.set()
    wait_until(lambda: len(calls) == 2)
    loop.stop()
