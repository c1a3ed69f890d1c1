"""One source for one capability as one process sees it: what the fleet said, what happened since."""

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, NamedTuple

from core.errors import (
    AuthRejectedError,
    BadDataError,
    NotEntitledError,
    ProviderError,
    ProviderTimeoutError,
    SymbolNotFoundError,
)
from core.log import mask
from core.words import Capability
from routing import health
from routing.circuit import Circuit, Standing, State, Verdict
from routing.guard import Guard
from routing.health import Health
from routing.usual import Missing

_REASON_LENGTH = 200
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, slots=True)
class View:
    """What the fleet knew when it was last asked."""

    at: float
    """Monotonic seconds."""
    standing: Standing
    health: Health = field(default_factory=Health)
    usual_s: float | None = None
    """Usual latency, None while too few calls tell."""
    usual_completeness: float | None = None
    off_s: float = 0.0
    """Real seconds for which the capability stays off, because the plan does not include it."""
    off_why: str = ""
    calls: float = 0.0
    """Faded count of calls of the whole fleet."""

    def wait_s(self, now: float) -> float:
        """Real seconds from ``now`` until a probe may go."""
        return max(0.0, self.at + self.standing.wait_ms / 1000 - now)

    def probe_due(self, now: float) -> bool:
        """Whether the source waits for its one probe."""
        return self.standing.share <= 0 and self.wait_s(now) <= 0


@dataclass(slots=True)
class _Samples:
    """What happened since the last exchange; the fields of ``lua/sync.lua``."""

    ver: int
    good: int = 0
    failed: int = 0
    calls: int = 0
    bad: int = 0
    auth: int = 0
    trip: str = ""
    ln_ms: float = 0.0
    lat: float = 0.0
    lat_n: int = 0
    cmp: float = 0.0
    full: float = 0.0
    cmp_n: int = 0
    off: str = ""
    error: str = ""
    probe: str = ""
    verdict: str = ""
    why: str = ""
    empty: bool = True

    def packed(self) -> Mapping[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__ if name != "empty"}


class Pass(NamedTuple):
    """A call that was let go."""

    ticket: int
    version: int
    probe: str = ""
    """Token of the fleet's one probe; empty for an ordinary call."""


class Pair:
    """Thread-safe. ``fleet`` exchanges it with Redis.

    Args:
        source: Name of the source.
        capability: What it is asked for.
        timeout_s: Its time limit for a call.
    """

    def __init__(self, source: str, capability: Capability, timeout_s: float) -> None:
        self.source = source
        self.capability = capability
        self.timeout_s = timeout_s
        self.view = View(0.0, Standing(State.CLOSED, 0, 1.0, 0.0))
        self.looked = 0.0
        """Monotonic seconds at which somebody here last asked about it."""
        self.best_completeness = 1.0
        """Usual completeness of the most complete source of the capability; the fleet sets it."""
        self._guard = Guard()
        self._missing = Missing()
        self._lock = threading.Lock()
        self._samples = _Samples(0)
        self._circuit = Circuit()
        self._alone = False
        self._tickets = count(1)

    @property
    def run(self) -> int:
        """Failures in a row in this process."""
        return self._guard.run

    @property
    def failing(self) -> bool:
        """Whether a call that counts against the source ended since the last exchange."""
        return self._samples.bad > 0

    def draw(self) -> float:
        """A number in [0, 1) for a call in a ramp: it passes when below the share.

        The golden ratio's multiples fill the interval evenly, so that a share of 1 % lets one in a
        hundred pass, and not by luck two in a row.
        """
        return (next(self._tickets) * _GOLDEN) % 1.0

    def doubt(self, now: float) -> str | None:
        """Why an ordinary call should wait for the ones that are out, None when it may go."""
        with self._lock:
            return self._guard.refusal(now, self.view.usual_s, self.timeout_s)

    def begin(self, now: float, probe: str = "") -> Pass:
        """A call leaves."""
        with self._lock:
            return Pass(self._guard.begin(now), self.view.standing.version, probe)

    def dropped(self, call: Pass, now: float) -> bool:
        """A call was not made; True when the fleet should know at once."""
        with self._lock:
            self._guard.drop(call.ticket)
            return self._tell_probe(call, "none", "", now)

    def answered(
        self, call: Pass, now: float, latency_s: float, expected: int, received: int
    ) -> bool:
        """A call was answered; True when the fleet should know at once."""
        view = self.view
        slow = health.is_slow(latency_s, self.timeout_s, view.usual_s)
        with self._lock:
            usual = self._missing.usual
            # What this process asks for may trade less than what the others do.
            complete = view.usual_completeness if usual is None else 1 - usual
            hollow = health.is_hollow(expected, received, complete)
            self._missing.add(now, expected, expected - min(received, expected))
            self._guard.good(call.ticket, now)
            samples = self._samples
            samples.empty = False
            samples.good += 1
            samples.ln_ms += _ln_ms(latency_s)
            samples.lat += health.latency_sample(latency_s, self.timeout_s)
            samples.lat_n += 1
            if expected > 0:
                samples.cmp += health.completeness_sample(
                    expected, received, self.best_completeness
                )
                samples.full += health.completeness_sample(expected, received)
                samples.cmp_n += 1
            if call.probe:
                why = "slow" if slow else "empty"
                return self._tell_probe(call, "bad" if slow or hollow else "ok", why, now)
            self._count(call, now, bad=slow or hollow)
            return False

    def incomplete(self, now: float) -> bool:
        """Whether more is missing lately than usual, in what this process asks for."""
        with self._lock:
            return self._missing.unusual(now)

    def accuse(self, why: str) -> bool:
        """What this process found out of the source opens the breaker; True if there is any need."""
        with self._lock:
            if self.view.standing.share <= 0:
                return False
            samples = self._samples
            samples.empty = False
            samples.trip = samples.error = mask(why)[:_REASON_LENGTH]
            samples.ver = self.view.standing.version
            if self._alone:
                now = self.view.at * 1000
                self._circuit.record(now, samples.ver, 0, 0, trip=samples.trip)
                samples.trip = ""
            return True

    def failed(self, call: Pass, now: float, error: ProviderError, latency_s: float) -> bool:
        """A call failed; True when the fleet should know at once."""
        with self._lock:
            samples = self._samples
            samples.empty = False
            if not isinstance(error, SymbolNotFoundError):
                samples.error = mask(f"{error.code}: {error}")[:_REASON_LENGTH]
            if not error.counts_against_health:
                # 404s, 429s and the like: the source is alive, and nobody's failure is counted.
                self._guard.drop(call.ticket)
                if isinstance(error, NotEntitledError):
                    samples.off = mask(str(error))[:_REASON_LENGTH] or error.code
                    self._tell_probe(call, "none", "", now)
                    return True
                return self._tell_probe(call, "ok", "", now)
            samples.failed += 1
            sample = health.latency_sample(latency_s, self.timeout_s)
            if isinstance(error, ProviderTimeoutError):
                sample = 0.0
            if sample < 1:
                # A quick refusal says nothing good of the source's speed.
                samples.lat += sample
                samples.lat_n += 1
            trip = self._guard.bad(call.ticket, now)
            if call.probe:
                return self._tell_probe(call, "bad", samples.error, now)
            auth = isinstance(error, AuthRejectedError)
            if trip and call.version == self.view.standing.version:
                samples.trip = f"{self._guard.run} failures in a row"
                if auth or isinstance(error, BadDataError):
                    samples.trip = "auth" if auth else mask(str(error))[:_REASON_LENGTH]
            tripped = bool(samples.trip)
            self._count(call, now, bad=True, auth=auth)
            return tripped

    def take_samples(self) -> Mapping[str, Any] | None:
        """What happened since the last exchange, None for nothing; forgotten here."""
        with self._lock:
            samples = self._samples
            if samples.empty:
                return None
            self._samples = _Samples(self.view.standing.version)
            return samples.packed()

    def saw(self, view: View) -> bool:
        """The fleet's word came; True when the breaker's state is another than before."""
        with self._lock:
            before, self.view, self._alone = self.view, view, False
            if view.standing.version != before.standing.version:
                self._guard.reset()
                if self._samples.ver != view.standing.version:
                    self._samples.ver = view.standing.version
                    self._samples.calls = self._samples.bad = self._samples.auth = 0
                    self._samples.trip = ""
            return view.standing.state is not before.standing.state

    def alone(self, now: float, unsent: Mapping[str, Any] | None) -> bool:
        """The fleet can't be asked: go on by the same rules from what it said last.

        Args:
            now: Monotonic seconds.
            unsent: Samples that were taken for an exchange that failed.

        Returns:
            True when the breaker's state is another than before.
        """
        with self._lock:
            before = self.view
            if not self._alone:
                self._alone = True
                self._circuit.adopt(now * 1000, before.standing)
                if unsent is not None and unsent["calls"]:
                    outcome = {name: unsent[name] for name in ("calls", "bad", "auth", "trip")}
                    self._circuit.record(now * 1000, unsent["ver"], **outcome)
            standing = self._circuit.standing(now * 1000)
            if standing.version != before.standing.version:
                self._guard.reset()
            self.view = replace(
                before,
                at=now,
                standing=standing,
                health=replace(before.health, breaker=health.breaker_term(standing.state)),
                off_s=max(0.0, before.off_s - (now - before.at)),
            )
            return standing.state is not before.standing.state

    def claim_alone(self, now: float, token: str, within_s: float) -> bool:
        """Become this process's probe while the fleet can't be asked."""
        with self._lock:
            return self._alone and self._circuit.claim(now * 1000, token, within_s * 1000)

    def _count(self, call: Pass, now: float, *, bad: bool, auth: bool = False) -> None:
        samples = self._samples
        if call.version != samples.ver:
            return
        samples.calls += 1
        samples.bad += bad
        samples.auth += auth
        if self._alone:
            self._circuit.record(
                now * 1000, call.version, 1, int(bad), auth=int(auth), trip=samples.trip
            )
            samples.trip = ""

    def _tell_probe(self, call: Pass, verdict: Verdict, why: str, now: float) -> bool:
        if not call.probe:
            return False
        samples = self._samples
        samples.empty = False
        samples.probe, samples.verdict, samples.why = call.probe, verdict, why
        if self._alone:
            self._circuit.probed(now * 1000, call.probe, verdict, why)
        return True


def _ln_ms(latency_s: float) -> float:
    return math.log(max(latency_s, 1e-5) * 1000)
