"""The fleet's circuit breaker, with pybreaker's states, exceptions and listeners as its surface.

The state lives in Redis (``lua/decide.lua``, ``lua/report.lua``): a rolling failure rate over ten
real seconds, open times that double up to 15 s with jitter, exactly one probe in the whole fleet,
a ramp of 10, 50 and 100 % after it. While Redis is away the last decision known here stands.
"""

import logging
import random
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import pybreaker

from core.clock import Clock
from core.errors import (
    AuthRejectedError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    QueueError,
)
from core.words import Capability
from routing.state import RoutingState

log = logging.getLogger(__name__)

_CACHE_S = 0.05
STATE_VALUE = {"open": 0.0, "half_open": 0.5, "ramp": 1.0, "closed": 1.0}


@dataclass(frozen=True, slots=True)
class Permit:
    """The breaker's word on one call."""

    allowed: bool
    state: str
    token: str = ""
    """Set for the one probe."""
    wait_s: float = 0.0
    """Real seconds after which asking again makes sense, for a refused call."""
    reason: str = ""


@dataclass(slots=True)
class _Cached:
    permit: Permit
    until: float


class FleetBreaker(pybreaker.CircuitBreaker):
    """One breaker of the fleet: a pybreaker whose state is decided in Redis.

    ``current_state`` speaks pybreaker's words (closed, half-open, open; a ramp counts as closed) and
    ``add_listener`` takes pybreaker's listeners; ``ask`` and ``tell`` stand for ``call``, because a
    call's tokens, thread and outcome are the router's.
    """

    def __init__(
        self, source: str, capability: Capability, state: RoutingState, clock: Clock
    ) -> None:
        self._seen = "closed"  # the base class asks for the state while it is made
        super().__init__(name=f"{source}:{capability}")
        self._keys = (
            f"gapless:breaker:{source}:{capability}",
            f"gapless:health:{source}:{capability}",
            f"gapless:entitlement:{source}:{capability}",
        )
        self._fleet = state
        self._clock = clock
        self._cached = _Cached(Permit(allowed=True, state="closed"), 0.0)
        self._run = 0
        self._change = threading.Lock()

    @property
    def keys(self) -> tuple[str, str, str]:
        """Redis keys of the breaker, the health sums and the entitlement."""
        return self._keys

    @property
    def current_state(self) -> str:
        """closed, half-open or open, as last seen here."""
        return {"half_open": pybreaker.STATE_HALF_OPEN, "open": pybreaker.STATE_OPEN}.get(
            self._seen, pybreaker.STATE_CLOSED
        )

    def ask(self) -> Permit:
        """May a call go now? A yes with a token is the fleet's one probe."""
        now = self._clock.monotonic()
        if now < self._cached.until and not self._cached.permit.token:
            return self._cached.permit
        token = uuid.uuid4().hex
        try:
            verdict, state, wait_ms, reason = self._fleet.run("decide", self._keys[:1], [token])
        except QueueError:
            return self._local(now)
        permit = Permit(
            allowed=verdict != "no",
            state=state,
            token=token if verdict == "probe" else "",
            wait_s=float(wait_ms) / 1000,
            reason=reason,
        )
        # In a ramp each call is decided on its own; a probe is for one caller only.
        if state == "closed" or (state == "open" and not permit.allowed):
            keep = _CACHE_S if state == "closed" else min(_CACHE_S, permit.wait_s)
            self._cached = _Cached(permit, now + keep)
        else:
            self._cached = _Cached(permit, 0.0)
        self._note(state)
        return permit

    def require(self) -> Permit:
        """As ``ask``.

        Raises:
            pybreaker.CircuitBreakerError: the breaker refuses the call.
        """
        permit = self.ask()
        if not permit.allowed:
            raise pybreaker.CircuitBreakerError(f"{self.name} is {permit.state}: {permit.reason}")
        return permit

    def tell(
        self,
        permit: Permit,
        error: ProviderError | None,
        latency_s: float,
        expected: int,
        received: int,
    ) -> None:
        """Report how a permitted call went."""
        outcome = outcome_of(error)
        self._run = self._run + 1 if outcome == "hard" else (0 if outcome == "ok" else self._run)
        reason = "" if error is None else f"{error.code}: {error}"[:200]
        try:
            state, changed = self._fleet.run(
                "report",
                self._keys[:2],
                [
                    outcome,
                    permit.token,
                    latency_s * 1000,
                    expected,
                    received,
                    random.random(),  # noqa: S311 - jitter
                    reason,
                ],
            )
        except QueueError:
            return
        if changed:
            self._cached = _Cached(Permit(allowed=True, state="closed"), 0.0)
            log.info("breaker", extra={"breaker": self.name, "state": state, "reason": reason})
        self._note(str(state))

    def release(self, permit: Permit) -> None:
        """A permitted call was not made: a probe goes back to the fleet."""
        if permit.token:
            self.tell(permit, _NOT_SENT, 0.0, 0, 0)

    def _local(self, now: float) -> Permit:
        # Redis is away: what was last decided stands, and a source that fails hard here is let rest.
        allowed = self._run < 5 and self._seen != "open"
        permit = Permit(allowed=allowed, state=self._seen, wait_s=0.5, reason="Redis is away")
        if not allowed:
            self._run = max(0, self._run - 1)
        self._cached = _Cached(permit, now + _CACHE_S)
        return permit

    def _note(self, state: str) -> None:
        with self._change:
            before, self._seen = self._seen, state
        if before != state:
            old, new = _Named(self, before), _Named(self, state)
            for listener in _listeners(self):
                listener.state_change(self, old, new)


def _listeners(breaker: pybreaker.CircuitBreaker) -> "tuple[pybreaker.CircuitBreakerListener, ...]":
    return cast("Any", breaker).listeners  # pybreaker leaves its elements untyped


class _Named(pybreaker.CircuitBreakerState):
    """A state by name, for listeners."""

    def __init__(self, breaker: pybreaker.CircuitBreaker, name: str) -> None:
        super().__init__(breaker, name)


class _NotSentError(ProviderError):
    """The call was not made after all."""

    counts_against_health = False
    code = "not_sent"


_NOT_SENT = _NotSentError("the call was not made")


def outcome_of(error: ProviderError | None) -> str:
    """The word of ``lua/report.lua`` for an outcome: 404s and 429s are nobody's failure."""
    if error is None:
        return "ok"
    if isinstance(error, AuthRejectedError):
        return "auth"
    if not error.counts_against_health:
        return "neutral"
    return "hard" if isinstance(error, ProviderUnavailableError | ProviderTimeoutError) else "fail"


def read_all(state: RoutingState, breakers: Sequence[FleetBreaker]) -> list[list[str]]:
    """Rows of ``lua/health.lua``, one a breaker.

    Raises:
        QueueError: Redis does not answer.
    """
    keys = [key for breaker in breakers for key in breaker.keys]
    return state.run("health", keys, [])
