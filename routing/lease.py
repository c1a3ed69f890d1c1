"""The right to make one call now, and what became of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from core.clock import Clock
from core.errors import ProviderError, RateLimitedError
from providers.base import Provider, Spec
from routing.breaker import FleetBreaker
from routing.budgets import Budget
from routing.observer import Observer
from routing.pair import Pass
from routing.retry import RetryBudget
from routing.wallet import Token


class Desk(Protocol):
    """What a lease needs of the router that made it."""

    clock: Clock
    observer: Observer

    @property
    def retries(self) -> RetryBudget: ...


@dataclass(slots=True)
class Lease:
    """End it with exactly one of answered, failed, release; whatever follows changes nothing."""

    source: str
    provider: Provider
    spec: Spec
    _desk: Desk
    _breaker: FleetBreaker
    _pass: Pass
    _budget: Budget
    _token: Token
    _ended: bool = False
    _landed: bool = False
    _free_retry: bool = False

    @property
    def use_by(self) -> float:
        """Monotonic seconds until which the call may leave."""
        return self._token.use_by

    @property
    def probe(self) -> bool:
        """Whether this call is the fleet's one probe of the source."""
        return bool(self._pass.probe)

    @property
    def on_trial(self) -> bool:
        """Whether the source is coming back from an opening, so that its word needs a second one."""
        return self.probe or self._breaker.pair.view.standing.share < 1

    @property
    def opened_for(self) -> str:
        """Reason of the source's last opening."""
        return self._breaker.pair.view.standing.why

    def incomplete(self) -> bool:
        """Whether the source leaves out more than usual lately."""
        return self._breaker.pair.incomplete(self._desk.clock.monotonic())

    def accuse(self, why: str) -> None:
        """The source answers, and what it says was found to be untrue: open its breaker at once."""
        self._breaker.accuse(why)

    def fresh(self) -> bool:
        """Whether the call may still leave; if not, release and acquire again."""
        return self._desk.clock.monotonic() < self._token.use_by

    def arrived(self) -> None:
        """The reply is here, or the call is over; what it is worth may still be found out."""
        if not self._landed:
            self._landed = True
            self._desk.retries.called()
            self._token.ended(self._desk.clock.monotonic())

    def release(self) -> None:
        """The call was certainly not made."""
        if self._end():
            self._token.give_back()
            self._breaker.dropped(self._pass)

    def answered(
        self,
        latency_s: float,
        *,
        endpoint: str,
        expected: int = 0,
        received: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """The call was answered.

        Args:
            latency_s: Real seconds from sending to the complete reply.
            endpoint: As in ``Call``, for metrics.
            expected: Bars that the calendar says should have come; 0 when nothing can be said.
            received: How many of them came.
            headers: Of the reply, names in lower case: the provider's own count of our quota.
        """
        if self._end():
            self.arrived()
            self._budget.answered(latency_s)
            if headers:
                self._budget.reconcile(headers)
            self._breaker.answered(self._pass, latency_s, expected, received)
            self._desk.observer.answered(self.source, endpoint, latency_s)

    def failed(self, error: ProviderError, latency_s: float, *, endpoint: str) -> None:
        """The call failed. A 429 lowers and pauses the budget; a missing right ends the capability."""
        if self._end():
            self.arrived()
            if isinstance(error, RateLimitedError):
                self._free_retry = True
                self._budget.obey(error)
            self._breaker.failed(self._pass, error, latency_s)
            self._desk.observer.failed(self.source, endpoint, error.code)

    def retry_allowed(self) -> bool:
        """Spend one retry of the fleet's budget, 20 % of its calls; after a 429 it costs nothing."""
        return self._free_retry or self._desk.retries.spend()

    def _end(self) -> bool:
        ended, self._ended = self._ended, True
        return not ended
