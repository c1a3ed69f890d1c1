"""The pool of provider calls and a batch's flights in it: places, landings, errors."""

import gc
import threading
import weakref
from collections.abc import Iterator

import pytest

from workers.calls import CallPool, Flights, Landing


@pytest.fixture
def pool() -> Iterator[CallPool]:
    made = CallPool(2)
    yield made
    made.close()


def land_all(flights: Flights) -> list[Landing]:
    found: list[Landing] = []
    while flights:
        landed = flights.landed(10.0)
        assert landed, "a call did not land within ten seconds"
        found += landed
    return found


def test_there_are_as_many_places_as_threads(pool: CallPool) -> None:
    assert pool.reserve(0)
    assert pool.reserve(0)
    assert not pool.reserve(0)
    assert not pool.reserve(0.01)
    pool.give_back()
    assert pool.reserve(0)


def test_calls_in_all_places_run_at_once(pool: CallPool) -> None:
    together = threading.Barrier(2, timeout=10)
    flights: Flights[None, int] = Flights(pool)
    for _ in range(2):
        assert pool.reserve(0)
        flights.begin(lambda _: together.wait(), None)
    assert len(flights) == 2
    assert [landing.error for landing in land_all(flights)] == [None, None]
    assert len(flights) == 0


def test_a_landing_says_what_was_asked_and_what_came_of_it(pool: CallPool) -> None:
    flights: Flights[str, str] = Flights(pool)

    def call(word: str) -> str:
        if word == "bad":
            raise LookupError(word)
        return word.upper()

    for word in ("good", "bad"):
        assert pool.reserve(0)
        flights.begin(call, word)
    landed = {landing.argument: landing for landing in land_all(flights)}
    assert landed["good"] == Landing("good", "GOOD", None)
    assert landed["bad"].returned is None
    assert isinstance(landed["bad"].error, LookupError)


def test_whoever_hears_of_a_landing_finds_its_place_free(pool: CallPool) -> None:
    flights: Flights[int, int] = Flights(pool)
    assert pool.reserve(0)
    for number in range(500):
        assert pool.reserve(0)
        flights.begin(abs, number)
        land_all(flights)


def test_even_what_ends_a_thread_elsewhere_gives_its_place_back(pool: CallPool) -> None:
    flights: Flights[int, None] = Flights(pool)

    def leave(_: int) -> None:
        raise SystemExit

    for number in range(6):
        assert pool.reserve(10.0)
        flights.begin(leave, number)
    assert all(isinstance(landing.error, SystemExit) for landing in land_all(flights))
    assert pool.reserve(0)
    assert pool.reserve(0)


def test_batches_hear_of_their_own_calls_only(pool: CallPool) -> None:
    ours: Flights[str, str] = Flights(pool)
    theirs: Flights[str, str] = Flights(pool)
    for flights, word in ((ours, "ours"), (theirs, "theirs")):
        assert pool.reserve(0)
        flights.begin(str, word)
    assert [landing.returned for landing in land_all(ours)] == ["ours"]
    assert [landing.returned for landing in land_all(theirs)] == ["theirs"]


def test_a_waiting_thread_keeps_no_reply_alive(pool: CallPool) -> None:
    class Reply:
        pass

    flights: Flights[None, Reply] = Flights(pool)
    assert pool.reserve(0)
    flights.begin(lambda _: Reply(), None)
    (landing,) = land_all(flights)
    kept = weakref.ref(landing.returned)
    del landing
    # The other call shows that the thread has come round.
    assert pool.reserve(0)
    flights.begin(lambda _: Reply(), None)
    land_all(flights)
    gc.collect()
    assert kept() is None


def test_a_closed_pool_begins_nothing_and_ends_its_threads() -> None:
    pool = CallPool(2)
    flights: Flights[int, threading.Thread] = Flights(pool)
    assert pool.reserve(0)
    flights.begin(lambda _: threading.current_thread(), 1)
    (landing,) = land_all(flights)
    pool.close()
    assert landing.returned is not None
    landing.returned.join(timeout=10)
    assert not landing.returned.is_alive()
    with pytest.raises(RuntimeError, match="closed"):
        flights.begin(lambda _: threading.current_thread(), 2)
