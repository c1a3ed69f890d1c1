"""Provider calls in the process's threads: the pool that all batches share, and one batch's flights.

What waking a thread costs is what a call costs here, beside the call itself. So the thread in which a
call has ended asks the batches that wait for a place for their next one, and goes on with it; a batch's
own thread is woken only where it has to decide something, and looks up by itself now and then.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

_A = TypeVar("_A")
_R = TypeVar("_R")

_NEXT_S = 0.005
"""Longest wait for a batch that is deciding something itself."""


@dataclass(frozen=True, slots=True)
class Landing(Generic[_A, _R]):
    """A call that has ended."""

    argument: _A
    """What it was begun with."""
    returned: _R | None
    error: BaseException | None
    """What it raised, if it did."""


class CallPool:
    """The threads in which a process talks to providers, shared by its batches.

    A place is taken before budget is asked for, so that no call waits here with budget in hand.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._started = 0
        self._closed = False
        self._guard = threading.Lock()
        self._places: SimpleQueue[None] = SimpleQueue()
        self._begun: SimpleQueue[tuple[Flights[Any, Any], Any] | None] = SimpleQueue()
        self._wishes: dict[Flights[Any, Any], int] = {}
        """Batches in their turn, each with the number of its newest wish."""
        self._numbers = count()
        for _ in range(threads):
            self._places.put(None)

    def reserve(self) -> bool:
        """Take a free place, to give it back or to begin with it; False when there is none."""
        try:
            self._places.get_nowait()
        except Empty:
            return False
        return True

    def give_back(self) -> None:
        """Return a place that was not used."""
        self._places.put(None)

    def begin(self, flights: "Flights[_A, _R]", argument: _A) -> None:
        """Run a call of a batch in the place reserved before.

        Raises:
            RuntimeError: the pool is closed.
        """
        if self._closed:
            raise RuntimeError("a call was begun after its pool was closed")
        if self._started < self._threads:
            self._start_one()
        self._begun.put((flights, argument))

    def wish(self, flights: "Flights[Any, Any]") -> None:
        """Put a batch in line for places that become free; one that stands there keeps its turn."""
        with self._guard:
            self._wishes[flights] = next(self._numbers)

    def close(self) -> None:
        """Begin nothing more; calls on the wire end by their own time limit."""
        self._closed = True
        with self._guard:
            self._wishes.clear()
        for _ in range(self._threads):
            self._begun.put(None)

    def _start_one(self) -> None:
        with self._guard:
            # As many threads as places are taken: each call finds one that waits for it.
            if self._started < self._threads - self._places.qsize():
                name = f"call-{self._started}"
                threading.Thread(target=self._work, name=name, daemon=True).start()
                self._started += 1

    def _work(self) -> None:
        while (begun := self._begun.get()) is not None:
            following: tuple[Flights[Any, Any], Any] | None = begun
            while following is not None:
                flights, argument = following
                landing = flights.fly(argument)
                # Left before the batch hears of it: it looks for a place at once.
                following = self._next_or_leave()
                flights.tell(landing)
                # Nothing of a call is kept alive by a thread that waits for the next one.
                del flights, argument, landing
            del begun

    def _next_or_leave(self) -> "tuple[Flights[Any, Any], Any] | None":
        """The next call for the place that is held; without one, the place is free again."""
        while (following := self._next()) is None:
            self._places.put(None)
            # A wish that came just before was heard by nobody.
            if not self._wishes or not self.reserve():
                return None
        return following

    def _next(self) -> "tuple[Flights[Any, Any], Any] | None":
        """The next call of the batches that wait for a place, in turn."""
        for _ in range(len(self._wishes)):
            with self._guard:
                if not self._wishes:
                    return None
                flights = next(iter(self._wishes))
                heard = self._wishes[flights] = self._wishes.pop(flights)
            argument = flights.next()
            if argument is not None:
                return flights, argument
            with self._guard:
                # What it wished for while it was asked stands.
                if self._wishes.get(flights) == heard:
                    del self._wishes[flights]
        return None


class Flights(Generic[_A, _R]):
    """The calls that one batch has on the wire.

    The batch's thread begins calls while places are free and looks for those that have landed. In
    between, the pool's threads ask for its next call as soon as one of them has nothing to do.
    """

    def __init__(
        self,
        pool: CallPool,
        call: Callable[[_A], _R],
        following: Callable[[], _A | None],
        urgent: Callable[[Landing[_A, _R]], bool],
    ) -> None:
        """Describe the batch.

        Args:
            pool: Where calls run.
            call: What a call does.
            following: The batch's next call, None when it has none that could leave at once. Called
                by any thread that has a place, with ``lock`` held.
            urgent: Whether the batch's thread has to look at a landing now.
        """
        self.lock = threading.RLock()
        """Held by whoever changes what ``following`` looks at."""
        self._pool = pool
        self._call = call
        self._following = following
        self._urgent = urgent
        self._flying = 0
        self._ended: list[Landing[_A, _R]] = []
        self._broken: BaseException | None = None
        self._news: SimpleQueue[None] = SimpleQueue()

    def __len__(self) -> int:
        """Calls begun and not looked at, on the wire or landed; one more where ``following`` failed."""
        with self.lock:
            return self._flying + len(self._ended) + (self._broken is not None)

    def begin(self, argument: _A) -> None:
        """Start a call in a place that was reserved."""
        with self.lock:
            self._pool.begin(self, argument)
            self._flying += 1

    def wish(self) -> bool:
        """Take a place; when none is free, be asked by the pool's threads as soon as one is.

        Returns:
            Whether the caller holds a place now.
        """
        if self._pool.reserve():
            return True
        self._pool.wish(self)
        # One that became free just before the wish was heard would stay empty.
        return self._pool.reserve()

    def landed(self, timeout_s: float) -> list[Landing[_A, _R]]:
        """Calls that have ended since the last look.

        Args:
            timeout_s: Longest wait for news, real seconds. News are an urgent landing, or that
                nothing is on the wire.

        Raises:
            BaseException: what ``following`` raised.
        """
        with suppress(Empty):
            self._news.get(timeout=timeout_s)
            while True:
                self._news.get_nowait()
        with self.lock:
            if self._broken is not None:
                raise self._broken
            ended, self._ended = self._ended, []
        return ended

    # For the pool's threads.

    def next(self) -> _A | None:
        """Begin the next call in a place that is held; None when there is none."""
        if not self.lock.acquire(timeout=_NEXT_S):
            return None
        try:
            if self._broken is not None:
                return None
            argument = self._following()
            if argument is not None:
                self._flying += 1
        except BaseException as raised:  # noqa: BLE001 - the batch's own thread meets it
            self._broken = raised
            self._news.put(None)
            return None
        finally:
            self.lock.release()
        return argument

    def fly(self, argument: _A) -> Landing[_A, _R]:
        """Make one call."""
        returned = error = None
        try:
            returned = self._call(argument)
        except BaseException as raised:  # noqa: BLE001 - the batch decides what it means
            error = raised
        landing = Landing(argument, returned, error)
        with self.lock:
            self._ended.append(landing)
            self._flying -= 1
        return landing

    def tell(self, landing: Landing[_A, _R]) -> None:
        """Wake the batch's thread where it has to look."""
        if not self._flying or landing.error is not None or self._urgent(landing):
            self._news.put(None)
