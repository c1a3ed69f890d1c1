"""Provider calls in the process's threads: the pool that all batches share, and one batch's flights.

A call costs two hand-overs between threads and nothing else: no future, no lock of Python's own. With
hundreds of calls a second in one interpreter, those cost more than a call's own parsing.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

_A = TypeVar("_A")
_R = TypeVar("_R")


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

    A place is reserved before budget is asked for, so that no call waits here with budget in hand.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._started = 0
        self._closed = False
        self._starting = threading.Lock()
        self._places: SimpleQueue[None] = SimpleQueue()
        self._calls: SimpleQueue[tuple[Callable[[Any], Any], Any, SimpleQueue[Any]] | None] = (
            SimpleQueue()
        )
        for _ in range(threads):
            self._places.put(None)

    def reserve(self, timeout_s: float) -> bool:
        """Take a place, waiting at most so many real seconds; give it back or begin with it."""
        try:
            if timeout_s <= 0:
                self._places.get_nowait()
            else:
                self._places.get(timeout=timeout_s)
        except Empty:
            return False
        return True

    def give_back(self) -> None:
        """Return a place that was not used."""
        self._places.put(None)

    def begin(
        self, call: Callable[[_A], _R], argument: _A, landed: "SimpleQueue[Landing[_A, _R]]"
    ) -> None:
        """Run a call in the place reserved before; how it ended is put into ``landed``.

        Raises:
            RuntimeError: the pool is closed.
        """
        if self._closed:
            raise RuntimeError("a call was begun after its pool was closed")
        if self._started < self._threads:
            self._start_one()
        self._calls.put((call, argument, landed))

    def close(self) -> None:
        """Begin nothing more; calls on the wire end by their own time limit."""
        self._closed = True
        for _ in range(self._threads):
            self._calls.put(None)

    def _start_one(self) -> None:
        with self._starting:
            # As many threads as places are taken: each call finds one that waits for it.
            if self._started < self._threads - self._places.qsize():
                name = f"call-{self._started}"
                threading.Thread(target=self._work, name=name, daemon=True).start()
                self._started += 1

    def _work(self) -> None:
        while (task := self._calls.get()) is not None:
            call, argument, landed = task
            returned = error = None
            try:
                returned = call(argument)
            except BaseException as raised:  # noqa: BLE001 - whoever waits for the call decides
                error = raised
            # Free before the batch hears of it: the batch looks for a place at once.
            self._places.put(None)
            landed.put(Landing(argument, returned, error))
            # Nothing of a call is kept alive by a thread that waits for the next one.
            del task, call, argument, landed, returned, error


class Flights(Generic[_A, _R]):
    """The calls that one batch has on the wire; for the batch's own thread only."""

    def __init__(self, pool: CallPool) -> None:
        self._pool = pool
        self._count = 0
        self._landed: SimpleQueue[Landing[_A, _R]] = SimpleQueue()

    def __len__(self) -> int:
        return self._count

    def begin(self, call: Callable[[_A], _R], argument: _A) -> None:
        """Start a call in a place that was reserved."""
        self._pool.begin(call, argument, self._landed)
        self._count += 1

    def landed(self, timeout_s: float) -> list[Landing[_A, _R]]:
        """Calls that have ended since the last look; waits for the first at most real ``timeout_s``."""
        found: list[Landing[_A, _R]] = []
        try:
            found.append(self._landed.get(timeout=timeout_s))
            while True:
                found.append(self._landed.get_nowait())
        except Empty:
            self._count -= len(found)
        return found
