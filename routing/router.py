"""Chooses the source of each call: hint, then bands of the policy, best health first inside a band.

For the same state the order is the same. Every source that is passed over gets its reason; what the
budget refuses goes to the next source.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pybreaker

from core.clock import Clock
from core.errors import NoRouteError, QueueError, StorageError
from core.words import Capability, Share
from providers.base import Provider, Spec
from routing.account import LongWindows
from routing.breaker import FleetBreaker
from routing.budgets import Budget, LimitUse
from routing.fleet import Fleet
from routing.health import ELIGIBLE_ABOVE
from routing.lease import Lease
from routing.observer import Observer, Silent
from routing.pair import Pair, Pass
from routing.policy import Bands, Candidate, order
from routing.retry import RetryBudget
from routing.sources import Source
from routing.state import LastWords, RoutingState
from routing.status import SourceStatus, describe
from routing.wallet import Refused, Token, Wallet

__all__ = ["Lease", "Router", "SourceStatus"]

log = logging.getLogger(__name__)

_SWITCH_S = 0.5
_LONGEST_STEP_S = 0.05
_SOON_S = 0.02
_HEALS_S = 1.0


@dataclass(slots=True)
class _Route:
    """All that a call to one source for one capability needs."""

    provider: Provider
    spec: Spec
    budget: Budget
    breaker: FleetBreaker
    pair: Pair
    wallets: Mapping[Share, Wallet]


@dataclass(slots=True)
class _Ask:
    """One call's wish, as long as it looks for a source."""

    capability: Capability
    share: Share
    exclude: Collection[str]
    draws: dict[str, float] = field(default_factory=dict[str, float])
    """Drawn once a wish, so that asking often does not help through a ramp."""


class Router:
    """Shared by all threads of a process.

    Args:
        sources: Installed sources, and known names with the reason why they can't be asked.
        policies: Bands of source names by capability.
        state: The scripts in Redis.
        clock: Market and monotonic time.
        long_windows: Where windows longer than a minute are counted, and what was ever spent from;
            None: in Redis alone.
        disabled: Sources that the operator switched off, with the reason; asked about twice a second.
        allow_override: Whether a job's hint goes before the policy.
        observer: Who counts.
        egress: Name of the address that calls leave from, where limits are counted by address.
        former: The router that this one follows when settings change while calls are out: what this
            process knows of its sources goes on, and windows that it did not know begin as full.
    """

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
        egress: str = "",
        former: "Router | None" = None,
    ) -> None:
        self.clock = clock
        self.observer: Observer = observer or Silent()
        self._sources = {source.name: source for source in sources}
        self._policies = dict(policies)
        self._state = state
        self._allow_override = allow_override
        self._disabled = disabled
        self._specs = {
            (source.name, capability): spec
            for source in sources
            if source.provider is not None
            for capability, spec in source.provider.specs().items()
        }
        pairs = [
            (former and former.known(*key, spec.timeout_s)) or Pair(*key, spec.timeout_s)
            for key, spec in self._specs.items()
        ]
        self._fleet = Fleet(pairs, state, clock, self._noticed)
        self._breakers = {
            (pair.source, pair.capability): FleetBreaker(pair, self._fleet, clock) for pair in pairs
        }
        by_provider: dict[str, Budget] = {}
        for source in sources:
            if source.provider is not None and source.provider.name not in by_provider:
                limits = source.provider.limits()
                budget = Budget(source.provider.name, limits, state, clock, long_windows, egress)
                if former is not None:
                    budget.follow(former.budgets.get(source.provider.name))
                by_provider[source.provider.name] = budget
        self.budgets: Mapping[str, Budget] = by_provider
        self._budgets = {
            source.name: by_provider[source.provider.name]
            for source in sources
            if source.provider is not None
        }
        self._routes = {
            key: self._route(*key, source.provider)
            for source in sources
            if source.provider is not None
            for key in self._specs
            if key[0] == source.name
        }
        self._switched: tuple[float, Mapping[str, str]] = (-_SWITCH_S, {})

    def _route(self, name: str, capability: Capability, provider: Provider) -> _Route:
        key = (name, capability)
        spec, budget, breaker = self._specs[key], self._budgets[name], self._breakers[key]
        wallets = {share: budget.wallet(spec.cost, share) for share in Share}
        return _Route(provider, spec, budget, breaker, breaker.pair, wallets)

    def known(self, source: str, capability: Capability, timeout_s: float) -> Pair | None:
        """What this process knows of a source; None where it knew none with that time limit."""
        breaker = self._breakers.get((source, capability))
        return breaker.pair if breaker and breaker.pair.timeout_s == timeout_s else None

    @property
    def retries(self) -> RetryBudget:
        """The fleet's retry budget."""
        return self._fleet.retries

    def breaker(self, source: str, capability: Capability) -> FleetBreaker:
        """The breaker of an installed source."""
        return self._breakers[source, capability]

    def add_listener(self, listener: pybreaker.CircuitBreakerListener) -> None:
        """Attach one of pybreaker's listeners to every breaker."""
        for breaker in self._breakers.values():
            breaker.add_listener(listener)

    def eligible(self, capability: Capability) -> list[str]:
        """Sources of the policy that could answer in principle, whatever their health now."""
        now = self.clock.monotonic()
        self._fleet.refresh(now)
        names = [name for band in self._policies.get(capability, ()) for name in band]
        for name in names:
            if (route := self._routes.get((name, capability))) is not None:
                self._fleet.look(route.pair, now)
        return [name for name in names if self._why_ineligible(name, capability) is None]

    def acquire(
        self,
        capability: Capability,
        *,
        share: Share,
        hint: str | None = None,
        pinned: str | None = None,
        exclude: Collection[str] = (),
        deadline: float,
    ) -> Lease:
        """A lease on the best source that can take one call; waits for one until the deadline.

        Args:
            capability: What is asked for.
            share: Live work goes first.
            hint: Source that the job names; goes first when overriding is allowed.
            pinned: Ask this source and no other, whatever the policy: a re-read.
            exclude: Sources that are not to be asked, such as the one that just failed.
            deadline: Monotonic seconds; one in the past looks once.

        Raises:
            NoRouteError: no source can take the call by the deadline, with the reason of each. It
                is raised as soon as that is known; ``retry_at`` is None when waiting does not help.
        """
        bands: Bands = self._policies.get(capability, ()) if pinned is None else ((pinned,),)
        first = hint if self._allow_override and pinned is None else None
        ask = _Ask(capability, share, exclude)
        while True:
            self._fleet.refresh(self.clock.monotonic())
            if bands and first is None and len(bands[0]) == 1:
                lease = self._plainly(bands[0][0], ask)
                if lease is not None:
                    return lease
            refusals: dict[str, str] = {}
            waits: list[float] = []
            # Whoever comes after the one that takes the call is not even looked at.
            for band in ((first,), *bands) if first is not None else bands:
                answer = self._of_band(band, ask, refusals, waits)
                if answer is not None:
                    return answer
            left = deadline - self.clock.monotonic()
            if not waits or min(waits) > left or self._state.away:
                raise NoRouteError(capability, refusals, retry_at=self._retry_at(waits))
            self.clock.sleep(min(left, max(min(waits), 0.001), _LONGEST_STEP_S))

    def _plainly(self, name: str, ask: _Ask) -> Lease | None:
        """A lease on the only source of the first band where nothing at all speaks against it.

        That is nearly every call. None says nothing: whatever is in the way is found out, with its
        reason, by the rules below, which let go whatever this lets go.
        """
        route = self._routes.get((name, ask.capability))
        if route is None or name in ask.exclude or name in self._switched_off():
            return None
        now = self.clock.monotonic()
        self._fleet.look(route.pair, now)
        view = route.pair.view
        if view.standing.share < 1 or view.off_s > 0 or not view.health.eligible:
            return None
        if route.pair.doubt(now) is not None:
            return None
        answer = self._lease(name, ask, probe=False)
        return answer if isinstance(answer, Lease) else None

    def _of_band(
        self, band: Sequence[str], ask: _Ask, refusals: dict[str, str], waits: list[float]
    ) -> Lease | None:
        """A lease on the best source of one band, or the reason of each that was not asked before."""
        now = self.clock.monotonic()
        candidates = {
            name: self._candidate(name, ask, now) for name in band if name not in refusals
        }
        for name, candidate in candidates.items():
            refusals[name] = candidate.refusal or ""
            if candidate.wait_s is not None:
                waits.append(candidate.wait_s)
        for name in order((tuple(candidates),), candidates, None):
            answer = self._lease(name, ask, probe=candidates[name].probe)
            if isinstance(answer, Lease):
                return answer
            refusals[name] = answer.refusal or ""
            if answer.wait_s is not None:
                waits.append(answer.wait_s)
        return None

    def second(
        self, capability: Capability, than: Sequence[str], *, prices: bool, spare: bool
    ) -> Lease | None:
        """A lease on a source whose answer can be held against another's; None when there is none now.

        It is one of the policy, whose breaker is closed, and takes what live work leaves.

        Args:
            capability: What is asked for.
            than: Sources that answered already, the one in question first.
            prices: Of the same adjustment, so that prices can be compared.
            spare: Not of a source whose day is short of calls.
        """
        adjustment = self._specs[than[0], capability].adjustment
        policy = [name for band in self._policies.get(capability, ()) for name in band]
        able = {
            name
            for name in policy
            if name not in than
            and (spec := self._specs.get((name, capability))) is not None
            # Quotes are of now, before any split or dividend to come.
            and (not prices or capability.interval is None or spec.adjustment == adjustment)
            and self._breakers[name, capability].pair.view.standing.share >= 1
            and not (spare and self._budgets[name].scarce)
        }
        if not able:
            return None
        try:
            return self.acquire(
                capability,
                share=Share.BACKFILL,
                exclude=frozenset(policy) - able,
                deadline=self.clock.monotonic(),
            )
        except NoRouteError:
            return None

    def status(self) -> list[SourceStatus]:
        """Every source of every policy, best band first; asks Redis and the database."""
        self._fleet.exchange(everything=True)
        places = [
            (name, capability, band)
            for capability, bands in self._policies.items()
            for band, names in enumerate(bands, start=1)
            for name in names
        ]
        budgets: dict[str, tuple[LimitUse, ...]] = {}
        last: dict[tuple[str, Capability], LastWords] = {}
        try:
            keys = [self._state.pair_key(*key) for key in self._breakers]
            last = dict(zip(self._breakers, self._state.last_words(keys), strict=True))
            for name, budget in self._budgets.items():
                budgets[name] = tuple(budget.usage())
        except (QueueError, StorageError) as error:
            log.warning("routing status is incomplete", extra={"reason": str(error)})
        return [
            self._status(name, capability, band, budgets.get(name, ()), last)
            for name, capability, band in places
        ]

    def close(self) -> None:
        """Tell the fleet what it does not know yet, and close the connections."""
        self._fleet.exchange(everything=True)
        self._state.close()

    def _candidate(self, name: str, ask: _Ask, now: float) -> Candidate:
        if name in ask.exclude:
            return Candidate("not wanted for this call")
        route = self._routes.get((name, ask.capability))
        if route is not None:
            self._fleet.look(route.pair, now)
        why = self._why_ineligible(name, ask.capability)
        if why is not None or route is None:
            # An operator's switch may turn; what is not installed stays so while we wait.
            return Candidate(why)
        pair = route.pair
        view = pair.view
        standing, score = view.standing, view.health.score
        if standing.share <= 0:
            wait_s = view.wait_s(now)
            if wait_s <= 0:
                return Candidate(health=score, probe=True)
            if standing.state == "open":
                return Candidate(f"breaker open for {wait_s:.1f} s: {standing.why}", wait_s)
            return Candidate(f"breaker half-open, its probe is out: {standing.why}", _SOON_S)
        if standing.share < 1:
            draw = ask.draws.get(name)
            if draw is None:
                draw = ask.draws[name] = pair.draw()
            if draw >= standing.share:
                share = f"{100 * standing.share:.0f} %"
                return Candidate(
                    f"breaker half-open, lets {share} through: {standing.why}", _SOON_S
                )
        doubt = pair.doubt(now)
        if doubt is not None:
            return Candidate(doubt, _SOON_S)
        if score <= ELIGIBLE_ABOVE:
            return Candidate(f"health {score:.2f} is not above {ELIGIBLE_ABOVE}", _HEALS_S)
        return Candidate(health=score)

    def _lease(self, name: str, ask: _Ask, *, probe: bool) -> Lease | Candidate:
        """Take the budget's tokens, then the breaker's leave."""
        route = self._routes[name, ask.capability]
        token = route.wallets[ask.share].take()
        if isinstance(token, Refused):
            return Candidate(token.why, self.clock.real_seconds(token.wait_s))
        breaker = route.breaker
        passed = self._leave(breaker, token, probe=probe)
        if passed is None:
            return Candidate("breaker half-open, another process probes", _SOON_S)
        self.observer.selected(ask.capability, name)
        if breaker.heard:
            breaker.before(route.provider.send)
        return Lease(name, route.provider, route.spec, self, breaker, passed, route.budget, token)

    def _leave(self, breaker: FleetBreaker, token: Token, *, probe: bool) -> Pass | None:
        claimed = breaker.claim() if probe else ""
        if probe and not claimed:
            token.give_back()
            return None
        return breaker.pair.begin(self.clock.monotonic(), claimed)

    def _why_ineligible(self, name: str, capability: Capability) -> str | None:
        source = self._sources.get(name)
        if source is None:
            return "unknown: no such provider"
        if source.provider is None:
            return source.ineligible or "not installed"
        breaker = self._breakers.get((name, capability))
        if breaker is None:
            return f"does not offer {capability}"
        reason = self._switched_off().get(name)
        if reason is not None:
            return f"disabled by the operator: {reason}"
        view = breaker.pair.view
        if view.off_s > 0:
            return f"not entitled: {view.off_why}"
        return None

    def _switched_off(self) -> Mapping[str, str]:
        at, switched = self._switched
        now = self.clock.monotonic()
        if now - at > _SWITCH_S:
            # Claimed before it is looked up: one thread asks, the others go on with what is known.
            self._switched = (now, switched)
            try:
                switched = self._disabled()
            except StorageError as error:
                log.warning("switches can't be read", extra={"reason": str(error)})
            self._switched = (now, switched)
        return switched

    def _retry_at(self, waits: Sequence[float]) -> datetime | None:
        if not waits:
            return None
        return self.clock.now() + timedelta(seconds=min(waits) * self.clock.speed)

    def _noticed(self, pair: Pair) -> None:
        standing = pair.view.standing
        log.info(
            "breaker",
            extra={
                "source": pair.source,
                "capability": pair.capability.value,
                "state": standing.state.value,
                "reason": standing.why,
            },
        )
        self._breakers[pair.source, pair.capability].noticed()

    def _status(
        self,
        name: str,
        capability: Capability,
        band: int,
        budgets: tuple[LimitUse, ...],
        last: Mapping[tuple[str, Capability], LastWords],
    ) -> SourceStatus:
        why = self._why_ineligible(name, capability)
        breaker = self._breakers.get((name, capability))
        if breaker is None:
            return SourceStatus(name, capability, band, installed=False, why_not=why)
        now = self.clock.monotonic()
        if why is None:
            bare = _Ask(capability, Share.LIVE, (), {name: 0.0})
            why = self._candidate(name, bare, now).refusal
        everyone = sum(b.pair.view.calls for (_, c), b in self._breakers.items() if c == capability)
        said = last.get((name, capability), LastWords())
        off = name in self._switched_off()
        return describe(breaker.pair, band, why, now, everyone, budgets, said, disabled=off)
