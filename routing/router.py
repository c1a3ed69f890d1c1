"""Chooses the source of each call: hint, then bands of the policy, best health first inside a band.

For the same state the order is the same. Every source that is passed over gets its reason; what the
budget refuses goes to the next source.
"""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from core.clock import Clock
from core.errors import NoRouteError, NotEntitledError, ProviderError, QueueError, RateLimitedError
from core.words import Capability, Share
from providers.base import Provider, Spec
from routing.breaker import STATE_VALUE, FleetBreaker, Permit, read_all
from routing.budgets import Budget, LongWindows, Refused
from routing.health import Health, Sums, judge
from routing.observer import Observer, Silent
from routing.sources import Source
from routing.state import RoutingState

_HEALTH_S = 0.25
_ENTITLEMENT_S = 6 * 3600
_RETRY_SHARE = 0.2
_LEAST_RETRIES = 10
_STEP_S = 0.02
_SWITCH_S = 1.0

Bands = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """One source and capability, for ``ops providers`` and the exporter."""

    source: str
    capability: Capability
    installed: bool
    why_not: str | None
    """Why it would not be chosen now; None when it would be."""
    state: str = "ineligible"
    """closed, ramp, half_open, open, or ineligible."""
    circuit: float = 1.0
    """0 open, 0.5 half-open, 1 closed."""
    health: float | None = None
    terms: Health | None = None
    opens_in_s: float = 0.0


@dataclass(slots=True)
class Lease:
    """The right to make one call now; end it with exactly one of answered, failed, release."""

    source: str
    provider: Provider
    spec: Spec
    use_by: float
    _router: "Router"
    _permit: Permit
    _ended: bool = False

    def fresh(self) -> bool:
        """Whether the budget's tokens may still be used."""
        return self._router.clock.monotonic() < self.use_by

    def release(self) -> None:
        """The call was not made."""
        if not self._ended:
            self._ended = True
            self._router.breaker(self.source, self.spec.capability).release(self._permit)

    def answered(
        self, latency_s: float, *, endpoint: str, expected: int = 0, received: int = 0
    ) -> None:
        """The call was answered; ``expected`` and ``received`` count bars that had to be there."""
        if self._ended:
            return
        self._ended = True
        breaker = self._router.breaker(self.source, self.spec.capability)
        breaker.tell(self._permit, None, latency_s, expected, received)
        self._router.note_answer(self.source, latency_s)
        self._router.observer.answered(self.source, endpoint, latency_s)

    def failed(self, error: ProviderError, latency_s: float, *, endpoint: str) -> None:
        """The call failed: backpressure lowers the budget, missing rights switch the capability off."""
        if self._ended:
            return
        self._ended = True
        self._router.note_failure(self.source, self.spec.capability, error)
        breaker = self._router.breaker(self.source, self.spec.capability)
        breaker.tell(self._permit, error, latency_s, 0, 0)
        self._router.observer.failed(self.source, endpoint, error.code)

    def retry_allowed(self) -> bool:
        """Spend one retry of the fleet's budget, 20 % of the calls of the last minute."""
        return self._router.retry_allowed()


@dataclass(slots=True)
class _HealthCache:
    at: float = -1.0
    health: dict[tuple[str, Capability], Health] = field(
        default_factory=dict[tuple[str, Capability], Health]
    )
    rows: dict[tuple[str, Capability], list[str]] = field(
        default_factory=dict[tuple[str, Capability], list[str]]
    )


class Router:
    """Shared by all threads of a process."""

    def __init__(
        self,
        sources: Sequence[Source],
        policies: Mapping[Capability, Bands],
        state: RoutingState,
        clock: Clock,
        *,
        long_windows: LongWindows | None = None,
        disabled: Callable[[], Mapping[str, str]] = dict,
        allow_override: bool = False,
        observer: Observer | None = None,
    ) -> None:
        """Wire the parts.

        Args:
            sources: Installed sources, and known names with the reason why they can't be asked.
            policies: Bands of source names by capability.
            state: The scripts in Redis.
            clock: Market and monotonic time.
            long_windows: Where windows longer than a minute are counted; None: in Redis like the rest.
            disabled: Sources that the operator switched off, with the reason; asked about once a second.
            allow_override: Whether a job's hint goes before the policy.
            observer: Who counts.
        """
        self.clock = clock
        self.observer: Observer = observer or Silent()
        self._sources = {source.name: source for source in sources}
        self._policies = dict(policies)
        self._state = state
        self._allow_override = allow_override
        self._disabled = disabled
        self._breakers = {
            (source.name, capability): FleetBreaker(source.name, capability, state, clock)
            for source in sources
            if source.provider is not None
            for capability in source.provider.specs()
        }
        self._budgets = {
            source.name: Budget(source.name, source.provider.limits(), state, clock, long_windows)
            for source in sources
            if source.provider is not None
        }
        self._cache = _HealthCache()
        self._unentitled: dict[tuple[str, Capability], str] = {}
        self._switched: tuple[float, Mapping[str, str]] = (-1.0, {})
        self._calls = 0
        self._lock = threading.Lock()

    def breaker(self, source: str, capability: Capability) -> FleetBreaker:
        """The breaker of an installed source."""
        return self._breakers[source, capability]

    def eligible(self, capability: Capability) -> list[str]:
        """Sources of the policy that could answer in principle, whatever their health now."""
        names = [name for band in self._policies.get(capability, ()) for name in band]
        return [name for name in names if self._why_ineligible(name, capability) is None]

    def acquire(
        self,
        capability: Capability,
        *,
        share: Share,
        hint: str | None = None,
        exclude: Collection[str] = (),
        deadline: float,
    ) -> Lease:
        """A lease on the best source that can take one call now; waits for budget until the deadline.

        Args:
            capability: What is asked for.
            share: Live work goes first.
            hint: Source that the job names; goes first when overriding is allowed.
            exclude: Sources that are not to be asked.
            deadline: Monotonic seconds.

        Raises:
            NoRouteError: with the reason of every source; ``retry_at`` is set when a budget frees.
        """
        while True:
            refusals: dict[str, str] = {}
            soonest: float | None = None
            for name in self._order(capability, hint):
                if name in exclude:
                    refusals[name] = "not wanted for this call"
                    continue
                reason, wait_s, lease = self._try(name, capability, share)
                if lease is not None:
                    return lease
                refusals[name] = reason
                if wait_s is not None:
                    soonest = wait_s if soonest is None else min(soonest, wait_s)
            left = deadline - self.clock.monotonic()
            if soonest is None or left <= 0:
                retry_at = None
                if soonest is not None:
                    retry_at = self.clock.now() + timedelta(seconds=soonest * self.clock.speed)
                raise NoRouteError(capability, refusals, retry_at=retry_at)
            self.clock.sleep(min(left, soonest, _STEP_S))

    def retry_allowed(self) -> bool:
        """Whether one more retry fits the fleet's budget; it is spent then."""
        with self._lock:
            calls, self._calls = self._calls, 0
        try:
            answer = self._state.run(
                "retries", ["gapless:retries"], [calls, 1, _RETRY_SHARE, _LEAST_RETRIES]
            )
        except QueueError:
            return False
        return bool(int(answer))

    def note_answer(self, source: str, latency_s: float) -> None:
        """Let the budget know how long calls are under way."""
        self._budgets[source].note_answer(latency_s)

    def note_failure(self, source: str, capability: Capability, error: ProviderError) -> None:
        """Act on what a failure says about budget and rights."""
        if isinstance(error, RateLimitedError):
            self._budgets[source].obey(error.retry_after_s)
        elif isinstance(error, NotEntitledError):
            reason = f"not entitled: {error}"[:200]
            self._unentitled[source, capability] = reason
            try:
                self._state.run(
                    "entitle",
                    [f"gapless:entitlement:{source}:{capability}"],
                    [reason, _ENTITLEMENT_S],
                )
            except QueueError:
                return

    def status(self) -> list[SourceStatus]:
        """Every source of every policy, best band first."""
        self._refresh(force=True)
        return [
            self._status(name, capability)
            for capability, bands in self._policies.items()
            for band in bands
            for name in band
        ]

    def close(self) -> None:
        """Close the connections."""
        self._state.close()

    def _status(self, name: str, capability: Capability) -> SourceStatus:
        why = self._why_ineligible(name, capability)
        key = (name, capability)
        if key not in self._breakers:
            return SourceStatus(
                name,
                capability,
                installed=False,
                state="ineligible",
                circuit=1.0,
                health=None,
                terms=None,
                why_not=why,
            )
        row = self._cache.rows.get(key)
        state = row[0] if row else "closed"
        health = self._cache.health.get(key) or judge("closed", Sums())
        if why is None and state == "open":
            why = f"breaker open: {row[1] if row else ''}"
        elif why is None and not health.eligible:
            why = f"health {health.score:.2f} is not above 0.55"
        return SourceStatus(
            name,
            capability,
            installed=True,
            state=state,
            circuit=STATE_VALUE[state],
            health=health.score,
            terms=health,
            why_not=why,
            opens_in_s=float(row[2]) / 1000 if row else 0.0,
        )

    def _order(self, capability: Capability, hint: str | None) -> list[str]:
        self._refresh()
        ordered: list[str] = []
        if hint is not None and self._allow_override:
            ordered.append(hint)
        for band in self._policies.get(capability, ()):
            ordered += sorted(
                band, key=lambda name: (-self._score(name, capability), band.index(name))
            )
        return list(dict.fromkeys(ordered))

    def _score(self, name: str, capability: Capability) -> float:
        health = self._cache.health.get((name, capability))
        # Rounded, so that noise in the third digit does not swap two equally good sources.
        return 1.0 if health is None else round(health.score, 2)

    def _try(
        self, name: str, capability: Capability, share: Share
    ) -> tuple[str, float | None, Lease | None]:
        """A lease, or the reason and after how many real seconds it may be another one."""
        why = self._why_ineligible(name, capability)
        if why is not None:
            return why, None, None
        source = self._sources[name]
        spec = source.spec(capability)
        provider = source.provider
        assert spec is not None, "an eligible source offers the capability"
        assert provider is not None, "an eligible source is installed"
        breaker = self._breakers[name, capability]
        permit = breaker.ask()
        if not permit.allowed:
            return (
                f"breaker {permit.state}: {permit.reason or 'waiting for its probe'}",
                permit.wait_s,
                None,
            )
        health = self._cache.health.get((name, capability))
        if (
            not permit.token
            and permit.state == "closed"
            and health is not None
            and not health.eligible
        ):
            return f"health {health.score:.2f} is not above 0.55", None, None
        taken = self._budgets[name].take(dict(spec.cost), share)
        if isinstance(taken, Refused):
            breaker.release(permit)
            return taken.why, taken.wait_s / self.clock.speed, None
        with self._lock:
            self._calls += 1
        self.observer.selected(capability, name)
        return "", None, Lease(name, provider, spec, taken, self, permit)

    def _why_ineligible(self, name: str, capability: Capability) -> str | None:
        source = self._sources.get(name)
        if source is None:
            return "unknown: no such provider"
        if source.provider is None:
            return source.ineligible or "not installed"
        if source.spec(capability) is None:
            return f"does not offer {capability}"
        reason = self._switched_off().get(name)
        if reason is not None:
            return f"disabled by the operator: {reason}"
        return self._unentitled.get((name, capability))

    def _switched_off(self) -> Mapping[str, str]:
        at, switched = self._switched
        now = self.clock.monotonic()
        if now - at > _SWITCH_S:
            # Claimed before it is looked up: one thread asks, the others go on with what is known.
            self._switched = (now, switched)
            switched = self._disabled()
            self._switched = (now, switched)
        return switched

    def _refresh(self, *, force: bool = False) -> None:
        now = self.clock.monotonic()
        if not force and now - self._cache.at < _HEALTH_S:
            return
        self._cache.at = now
        keys = list(self._breakers)
        if not keys:
            return
        try:
            rows = read_all(self._state, [self._breakers[key] for key in keys])
        except QueueError:
            return
        for key, row in zip(keys, rows, strict=True):
            self._cache.rows[key] = row
            if row[10]:
                self._unentitled[key] = row[10]
            else:
                self._unentitled.pop(key, None)
            self._cache.health[key] = judge(row[0], Sums(*(float(value) for value in row[3:9])))
