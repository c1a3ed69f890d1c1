"""The surface of the fleet's breaker: pybreaker's states, exceptions and listeners.

The state itself is the fleet's (``lua/sync.lua``, ``circuit``). pybreaker's own ``call`` holds a lock
while the guarded function runs and knows no single probe, so the guarding is done here instead.
"""

import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, ParamSpec, TypeVar, cast

import pybreaker

from core.clock import Clock
from core.errors import ProviderError, UsageError
from routing.fleet import Fleet
from routing.pair import Pair, Pass

P = ParamSpec("P")
T = TypeVar("T")

_ANSWER_GRACE_S = 2.0


class _FleetStorage(pybreaker.CircuitBreakerStorage):
    """Shows pybreaker what the fleet said; the counts are the fleet's too."""

    def __init__(self, pair: Pair) -> None:
        super().__init__("fleet")
        self._pair = pair

    @property
    def state(self) -> str:
        return self._pair.view.standing.state.value

    @state.setter
    def state(self, state: str) -> None:
        raise UsageError(
            f"the state of {self._pair.source} can't be set to {state}: it follows from what its calls "
            "do; use `ops providers disable` to keep it from being asked"
        )

    @property
    def counter(self) -> int:
        return self._pair.run

    @property
    def success_counter(self) -> int:
        return 0

    @property
    def opened_at(self) -> datetime | None:
        return None

    @opened_at.setter
    def opened_at(self, datetime: datetime) -> None:
        """The fleet keeps its own times."""


class FleetBreaker(pybreaker.CircuitBreaker):
    """One source for one capability; thread-safe, and shared by the fleet.

    pybreaker's listeners hear ``before_call``, ``success``, ``failure`` and ``state_change``, in the
    process in which they are attached and from the thread that notices.
    """

    def __init__(self, pair: Pair, fleet: Fleet, clock: Clock) -> None:
        super().__init__(name=f"{pair.source}:{pair.capability}", state_storage=_FleetStorage(pair))
        self.pair = pair
        self.heard = False
        """Whether anybody listens, or did."""
        self._fleet = fleet
        self._clock = clock

    def add_listener(self, listener: pybreaker.CircuitBreakerListener) -> None:
        """Attach a listener of pybreaker's."""
        self.heard = True
        super().add_listener(listener)

    def add_listeners(self, *listeners: pybreaker.CircuitBreakerListener) -> None:
        """Attach several."""
        self.heard = True
        super().add_listeners(*listeners)

    def require(self) -> Pass:
        """Let a call go.

        Raises:
            pybreaker.CircuitBreakerError: not now; the message says why.
        """
        now = self._clock.monotonic()
        self._fleet.look(self.pair, now)
        self._fleet.refresh(now)
        view = self.pair.view
        if view.standing.share > 0:
            if view.standing.share >= 1 or self.pair.draw() < view.standing.share:
                return self.pair.begin(now)
            raise pybreaker.CircuitBreakerError(f"{self.name} lets little through after a failure")
        if view.probe_due(now) and (token := self.claim()):
            return self.pair.begin(now, token)
        raise pybreaker.CircuitBreakerError(
            f"{self.name} is {view.standing.state}: {view.standing.why}"
        )

    def claim(self) -> str:
        """Become the fleet's one probe; returns its token, empty when another is."""
        token = uuid.uuid4().hex
        within_s = self.pair.timeout_s + _ANSWER_GRACE_S
        return token if self._fleet.claim(self.pair, token, within_s) else ""

    def answered(self, call: Pass, latency_s: float, expected: int = 0, received: int = 0) -> None:
        """A call that was let go was answered."""
        now = self.pair.looked = self._clock.monotonic()
        if self.pair.answered(call, now, latency_s, expected, received):
            self._fleet.exchange()
        else:
            if self.pair.failing:
                self._fleet.hurry()
            self._fleet.refresh(now, before=False)
        for listener in self._listening():
            listener.success(self)

    def failed(self, call: Pass, error: ProviderError, latency_s: float) -> None:
        """A call that was let go failed."""
        now = self.pair.looked = self._clock.monotonic()
        if self.pair.failed(call, now, error, latency_s):
            self._fleet.exchange()
        elif error.counts_against_health:
            self._fleet.hurry()
        if error.counts_against_health:
            for listener in self._listening():
                listener.failure(self, error)

    def dropped(self, call: Pass) -> None:
        """A call that was let go was not made."""
        now = self.pair.looked = self._clock.monotonic()
        if self.pair.dropped(call, now):
            self._fleet.exchange()

    def accuse(self, why: str) -> None:
        """The source was found out: it answers, and what it says is not so. Opens at once."""
        self.pair.looked = self._clock.monotonic()
        if self.pair.accuse(why):
            self._fleet.exchange()

    def before(self, function: Callable[..., Any]) -> None:
        """Tell the listeners that a call goes out."""
        for listener in self._listening():
            listener.before_call(self, function)

    def noticed(self) -> None:
        """The fleet's state is another than before: pybreaker tells its listeners."""
        _ = self.state

    def call(self, func: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Guard one call; unlike pybreaker's, calls of several threads run side by side.

        Raises:
            pybreaker.CircuitBreakerError: the breaker does not let it go.
        """
        with self.calling():
            return func(*args, **kwargs)

    @contextmanager
    def calling(self) -> Generator[None]:
        """Guard a block, as ``call``."""
        permit = self.require()
        self.before(self.calling)
        began = self._clock.monotonic()
        try:
            yield
        except ProviderError as error:
            self.failed(permit, error, self._clock.monotonic() - began)
            raise
        except BaseException:
            self.dropped(permit)
            raise
        self.answered(permit, self._clock.monotonic() - began)

    def _listening(self) -> "tuple[pybreaker.CircuitBreakerListener, ...]":
        if not self.heard:
            return ()
        return cast("Any", self).listeners  # pybreaker leaves their type open
