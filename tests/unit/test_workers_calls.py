"""The pool of provider calls and a batch's flights in it: places, turns, landings, errors."""

import gc
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from workers.calls import CallPool, Flights, Landing


class Batch:
    """Asks for its words, one a call, as a batch's own thread does."""

    def __init__(self, pool: CallPool, call: Callable[[Any], Any], words: list[Any]) -> None:
        self.waiting = deque(words)
        self.landed: list[Landing[Any, Any]] = []
        self.urgent: set[Any] = set()
        self.flights: Flights[Any, Any] = Flights(
            pool, call, self.following, lambda landing: landing.argument in self.urgent
        )
        self.pool = pool

    def following(self) -> Any:
        return self.waiting.popleft() if self.waiting else None

    def hand_out(self) -> None:
        with self.flights.lock:
            while self.waiting and self.flights.wish():
                self.flights.begin(self.waiting.popleft())

    def look(self, seconds: float = 10.0) -> list[Any]:
        found = self.flights.landed(seconds)
        self.landed += found
        return [landing.argument for landing in found]

    def run(self) -> list[Landing[Any, Any]]:
        self.hand_out()
        while self.flights or self.waiting:
            assert self.look() or self.flights or self.waiting, "nothing landed in ten seconds"
        return self.landed


@pytest.fixture
def pool() -> Iterator[CallPool]:
    made = CallPool(2)
    yield made
    made.close()


def test_there_are_as_many_places_as_threads(pool: CallPool) -> None:
    assert pool.reserve()
    assert pool.reserve()
    assert not pool.reserve()
    pool.give_back()
    assert pool.reserve()


def test_calls_in_all_places_run_at_once_and_no_more(pool: CallPool) -> None:
    together = threading.Barrier(2, timeout=10)
    running: list[int] = []
    most: list[int] = []

    def call(number: int) -> None:
        running.append(number)
        most.append(len(running))
        together.wait()
        running.remove(number)

    landed = Batch(pool, call, list(range(20))).run()
    assert [landing.error for landing in landed] == [None] * 20
    assert max(most) == 2


def test_every_call_lands_once_with_what_it_returned_or_raised(pool: CallPool, wait_until) -> None:
    def call(number: int) -> int:
        if number % 7 == 0:
            raise LookupError(number)
        return -number

    landed = Batch(pool, call, list(range(1, 400))).run()
    assert sorted(landing.argument for landing in landed) == list(range(1, 400))
    for landing in landed:
        if landing.argument % 7 == 0:
            assert isinstance(landing.error, LookupError)
            assert landing.returned is None
        else:
            assert (landing.returned, landing.error) == (-landing.argument, None)
    for _ in range(2):
        wait_until(pool.reserve, what="both places are free")


def test_calls_go_on_without_the_batchs_own_thread(pool: CallPool, wait_until) -> None:
    done: list[int] = []
    batch = Batch(pool, done.append, list(range(50)))
    batch.hand_out()
    # Nobody looks, and all of them are asked.
    wait_until(lambda: len(done) == 50)
    assert len(batch.run()) == 50


def test_batches_that_wait_for_places_take_turns() -> None:
    pool = CallPool(1)
    let_go = threading.Event()
    order: list[str] = []

    def call(word: str) -> None:
        let_go.wait(timeout=10)
        order.append(word)

    batches = [Batch(pool, call, [f"{name}{n}" for n in range(3)]) for name in "abc"]
    for batch in batches:
        batch.hand_out()
    let_go.set()
    for batch in batches:
        batch.run()
    # The first one held the only place before the others came.
    assert order == ["a0", "a1", "b0", "c0", "a2", "b1", "c1", "b2", "c2"]
    pool.close()


def test_an_urgent_landing_is_heard_while_others_fly(pool: CallPool) -> None:
    slow = threading.Event()
    batch = Batch(pool, lambda word: word == "slow" and slow.wait(timeout=10), ["slow", "urgent"])
    batch.urgent = {"urgent"}
    batch.hand_out()
    assert batch.look() == ["urgent"]
    assert not slow.is_set()
    slow.set()
    assert batch.look() == ["slow"]


def test_a_failure_is_heard_while_others_fly(pool: CallPool) -> None:
    slow = threading.Event()

    def call(word: str) -> None:
        if word == "bad":
            raise LookupError(word)
        slow.wait(timeout=10)

    batch = Batch(pool, call, ["slow", "bad"])
    batch.hand_out()
    assert batch.look() == ["bad"]
    slow.set()
    assert batch.look() == ["slow"]


def test_whoever_hears_of_the_last_landing_finds_its_place_free(pool: CallPool) -> None:
    assert pool.reserve()
    for number in range(300):
        Batch(pool, abs, [number]).run()
        assert pool.reserve()
        pool.give_back()


def test_even_what_ends_a_thread_elsewhere_gives_its_place_back(pool: CallPool, wait_until) -> None:
    def leave(_: int) -> None:
        raise SystemExit

    landed = Batch(pool, leave, list(range(6))).run()
    assert all(isinstance(landing.error, SystemExit) for landing in landed)
    for _ in range(2):
        wait_until(pool.reserve, what="both places are free")


def test_what_fails_in_finding_the_next_call_is_raised_to_the_batch(pool: CallPool) -> None:
    def fail() -> str:
        raise ZeroDivisionError

    flights: Flights[str, str] = Flights(pool, str, fail, lambda _: False)
    assert flights.wish()
    assert flights.wish()
    assert not flights.wish()
    flights.begin("first")
    flights.begin("second")

    def look_until_it_raises() -> None:
        while True:
            flights.landed(10.0)

    with pytest.raises(ZeroDivisionError):
        look_until_it_raises()
    # The others are not harmed.
    assert len(Batch(pool, str, ["a", "b", "c"]).run()) == 3


def test_a_failure_in_finding_the_next_call_counts_while_nothing_flies(wait_until) -> None:
    pool = CallPool(1)

    def fail() -> str:
        raise ZeroDivisionError

    go = threading.Event()
    other = Batch(pool, lambda _: go.wait(10), [1])
    other.hand_out()
    flights: Flights[str, str] = Flights(pool, str, fail, lambda _: False)
    assert not flights.wish(), "the other batch has the only place"
    assert not flights

    go.set()

    wait_until(lambda: len(flights) == 1, what="the batch is told to look")
    with pytest.raises(ZeroDivisionError):
        flights.landed(10.0)
    pool.close()


def test_a_wish_made_while_the_batch_is_asked_is_heard(wait_until) -> None:
    pool = CallPool(1)
    asked: list[None] = []

    def following() -> str | None:
        asked.append(None)
        if len(asked) == 1:
            assert not flights.wish(), "the place is held by whoever asks"
            return None
        return "second" if len(asked) == 2 else None

    flights: Flights[str, str] = Flights(pool, str, following, lambda _: False)
    assert flights.wish()
    assert not flights.wish()
    flights.begin("first")
    wait_until(lambda: len(asked) >= 3, what="the second call has ended too")
    assert [landing.argument for landing in flights.landed(10.0)] == ["first", "second"]
    pool.close()


def test_a_waiting_thread_keeps_no_reply_alive(pool: CallPool, wait_until) -> None:
    class Reply:
        pass

    batch = Batch(pool, lambda _: Reply(), [1])
    (landing,) = batch.run()
    kept = weakref.ref(landing.returned)
    batch.landed.clear()
    del landing, batch

    def gone() -> bool:
        gc.collect()
        return kept() is None

    wait_until(gone, what="the reply is let go")


def test_a_closed_pool_begins_nothing_and_ends_its_threads() -> None:
    pool = CallPool(2)
    (landing,) = Batch(pool, lambda _: threading.current_thread(), [1]).run()
    pool.close()
    assert landing.returned is not None
    landing.returned.join(timeout=10)
    assert not landing.returned.is_alive()
    with pytest.raises(RuntimeError, match="closed"):
        Batch(pool, str, [1]).hand_out()
