"""The breaker's rules as a pure state machine: what opens it, for how long, and how traffic returns.

The fleet's copy is moved by ``lua/circuit.lua`` and ``lua/sync.lua`` with these very constants; a
property test holds both to the same answers. Here it decides for one process while Redis is away.
All times are milliseconds of any one clock.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

Verdict = Literal["ok", "bad", "none"]


class State(StrEnum):
    """pybreaker's words for the states."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"

    @property
    def value_shown(self) -> float:
        """What the metric ``circuit_state`` shows: 0 open, 0.5 half-open, 1 closed."""
        return {State.OPEN: 0.0, State.HALF_OPEN: 0.5, State.CLOSED: 1.0}[self]


BUCKET_MS = 1000
BUCKETS = 10
"""Failure rates are taken over the last ten seconds."""
LEAST_CALLS = 10
TOLERATED = 0.4
"""Failure rate that is borne: a source at 30 % random errors stays closed, one at 60 % does not."""
Z = 3.0
"""Standard deviations by which the rate must lie above it, so that chance opens nothing."""
RAMP_LEAST = 3
"""Calls after which a ramp in which nothing succeeded is given up."""
OPEN_MS = 1000
LONGEST_MS = 15_000
SPREAD = 0.3
"""Open times are shortened by up to this share, so that a fleet of sources spreads its probes."""
FORGET_MS = 60_000
"""An opening this long after the last closing starts at the shortest open time again."""
AUTH_BURST = 3
RAMP: tuple[tuple[int, float], ...] = ((2000, 0.01), (5000, 0.10), (10_000, 0.50))
"""Share of traffic until so many ms after a good probe; then all of it."""

RULES: Mapping[str, object] = {
    "bucket_ms": BUCKET_MS,
    "buckets": BUCKETS,
    "least_calls": LEAST_CALLS,
    "tolerated": TOLERATED,
    "z": Z,
    "ramp_least": RAMP_LEAST,
    "open_ms": OPEN_MS,
    "longest_ms": LONGEST_MS,
    "spread": SPREAD,
    "forget_ms": FORGET_MS,
    "auth_burst": AUTH_BURST,
    "ramp": RAMP,
}


def surely_bad(bad: int, calls: int) -> bool:
    """Whether the failure rate is above what is tolerated by more than chance.

    Wilson's score interval (E. B. Wilson, 1927): its lower bound at ``Z`` deviations is compared, so
    that 7 of 7 is enough, 15 of 20 is, and 12 of 20 is not.
    """
    p, z2 = bad / calls, Z * Z
    middle = p + z2 / (2 * calls)
    reach = Z * math.sqrt(p * (1 - p) / calls + z2 / (4 * calls * calls))
    return (middle - reach) / (1 + z2 / calls) > TOLERATED


def open_ms(opens: int, jitter: float) -> int:
    """How long the ``opens``-th opening in a row lasts: doubling from 1 s, never above 15 s.

    Args:
        opens: At least 1.
        jitter: In [0, 1).
    """
    return int(min(LONGEST_MS, OPEN_MS * 2.0 ** min(opens - 1, 30)) * (1 - SPREAD * jitter))


@dataclass(frozen=True, slots=True)
class Standing:
    """What a breaker says now."""

    state: State
    version: int
    """Counts openings and ramps; outcomes of calls begun under another version say nothing."""
    share: float
    """Share of the traffic that may pass."""
    wait_ms: float
    """Time until a probe may go; 0 outside of an open time."""
    why: str = ""
    """Reason of the last opening."""

    @property
    def probe_due(self) -> bool:
        return self.share <= 0 and self.wait_ms <= 0


@dataclass(slots=True)
class Circuit:
    """One breaker."""

    state: State = State.CLOSED
    version: int = 0
    opens: int = 0
    until: float = 0.0
    why: str = ""
    closed: float = 0.0
    probe: str = ""
    probe_until: float = 0.0
    ramp: float = 0.0
    auth: int = 0
    buckets: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])

    def record(
        self,
        now: float,
        version: int,
        calls: int,
        bad: int,
        *,
        auth: int = 0,
        trip: str = "",
        jitter: float = 0.0,
    ) -> None:
        """Take outcomes of calls that began under ``version``; opens when they are too bad.

        Args:
            now: When they are counted.
            version: As of ``standing`` when the calls began.
            calls: How many ended.
            bad: How many of them count against the source.
            auth: How many of these were refused for the key.
            trip: Reason to open at once, from a rule outside of this one.
            jitter: In [0, 1).
        """
        self._settle(now)
        if version != self.version or not (self.state is State.CLOSED or self.ramp > 0):
            return
        second = int(now // BUCKET_MS)
        had = self.buckets.get(second, (0, 0))
        self.buckets[second] = (had[0] + calls, had[1] + bad)
        self.buckets = {at: v for at, v in self.buckets.items() if at > second - BUCKETS}
        counted = [v for at, v in self.buckets.items() if at <= second]
        calls_10s, bad_10s = sum(v[0] for v in counted), sum(v[1] for v in counted)
        self.auth = 0 if calls > bad else self.auth + auth
        if trip:
            self._open(now, trip, jitter)
        elif self.auth >= AUTH_BURST:
            self._open(now, "auth", jitter)
        elif (calls_10s >= LEAST_CALLS and surely_bad(bad_10s, calls_10s)) or (
            self.ramp > 0 and calls_10s >= RAMP_LEAST and bad_10s == calls_10s
        ):
            self._open(now, "failures", jitter)

    def claim(self, now: float, token: str, within_ms: float) -> bool:
        """Become the one probe, if one is due; it must answer within ``within_ms``."""
        self._settle(now)
        if not self.standing(now).probe_due:
            return False
        self.state, self.probe, self.probe_until = State.HALF_OPEN, token, now + within_ms
        return True

    def probed(
        self, now: float, token: str, verdict: Verdict, why: str = "", jitter: float = 0.0
    ) -> None:
        """The probe came back; a token that is no longer the one probe's changes nothing."""
        self._settle(now)
        if self.state is not State.HALF_OPEN or self.ramp > 0 or self.probe != token:
            return
        if verdict == "bad":
            self._open(now, why, jitter)
            return
        self.probe = ""
        if verdict == "ok":
            self.ramp, self.version, self.auth = now, self.version + 1, 0
            self.buckets.clear()
        else:
            self.state, self.until = State.OPEN, now

    def standing(self, now: float) -> Standing:
        """What the breaker says at ``now``."""
        self._settle(now)
        share, wait = 0.0, 0.0
        if self.state is State.CLOSED:
            share = 1.0
        elif self.state is State.OPEN:
            wait = max(0.0, self.until - now)
        elif self.ramp > 0:
            share = next((share for ms, share in RAMP if now - self.ramp < ms), 1.0)
        else:
            wait = max(0.0, self.probe_until - now)
        return Standing(self.state, self.version, share, wait, self.why)

    def adopt(self, now: float, standing: Standing) -> None:
        """Go on from what the fleet said last, because it can't be asked any more."""
        self.state, self.version, self.why = standing.state, standing.version, standing.why
        self.until = self.probe_until = now + standing.wait_ms
        self.opens = max(self.opens, 1) if standing.state is not State.CLOSED else 0
        self.ramp = 0.0
        if standing.share > 0 and standing.state is State.HALF_OPEN:
            begun = [0, *(ms for ms, _ in RAMP)]
            stage = [share for _, share in RAMP].index(standing.share)
            self.ramp = now - begun[stage]
        self.probe, self.auth, self.closed = "", 0, 0.0
        self.buckets.clear()

    def _open(self, now: float, why: str, jitter: float) -> None:
        if self.state is State.CLOSED and (self.closed == 0 or now - self.closed >= FORGET_MS):
            self.opens = 0
        self.opens += 1
        self.state, self.until, self.why = State.OPEN, now + open_ms(self.opens, jitter), why
        self.version += 1
        self.probe, self.probe_until, self.ramp, self.auth = "", 0.0, 0.0, 0
        self.buckets.clear()

    def _settle(self, now: float) -> None:
        if self.state is State.HALF_OPEN and self.ramp > 0 and now - self.ramp >= RAMP[-1][0]:
            self.state, self.closed, self.ramp = State.CLOSED, self.ramp + RAMP[-1][0], 0.0
