"""What a worker process is made of, handed to every job; ``wiring`` builds it."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from redis import Redis

from core.clock import Clock
from core.settings import Settings
from core.telemetry import Telemetry
from db.pool import Database
from routing.router import Router
from workers.reference import Reference
from workers.second_opinion import SecondOpinion
from workers.stopping import Stop

_P = ParamSpec("_P")
_T = TypeVar("_T")


class CallPool:
    """The threads in which a process talks to providers, shared by its batches.

    A place is reserved before budget is asked for, so that no call waits here with budget in hand.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="call")
        self._places = threading.BoundedSemaphore(threads)

    def reserve(self, timeout_s: float) -> bool:
        """Take a place, waiting at most so many real seconds; give it back or submit with it."""
        if timeout_s <= 0:
            return self._places.acquire(blocking=False)
        return self._places.acquire(timeout=timeout_s)

    def give_back(self) -> None:
        """Return a place that was not used."""
        self._places.release()

    def submit(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> "Future[_T]":
        """Run a call in the place reserved before; the place is free again when it ends."""
        future = self._pool.submit(call, *args, **kwargs)
        future.add_done_callback(lambda _: self._places.release())
        return future

    def close(self) -> None:
        """Begin nothing more; calls on the wire end by their own time limit."""
        self._pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class Setup:
    """What the settings decide; replaced as a whole when they change."""

    settings: Settings
    router: Router


@dataclass(slots=True)
class Context:
    """The parts that jobs work with; all are thread-safe."""

    setup: Setup
    """In force now: a batch that runs meets a new one with its next call."""
    clock: Clock
    db: Database
    redis: Redis
    reference: Reference
    calls: CallPool
    telemetry: Telemetry
    stop: Stop
    opinions: SecondOpinion = field(init=False)
    """What this process thinks of its sources' honesty."""

    def __post_init__(self) -> None:
        self.opinions = SecondOpinion(self.clock, self.telemetry)

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.setup.settings

    @property
    def router(self) -> Router:
        """The router over the sources and policies in force."""
        return self.setup.router

    def close(self) -> None:
        """Let go of what only this context holds."""
        self.calls.close()
        self.router.close()
