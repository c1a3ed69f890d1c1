"""Rolling budgets of a provider, exact across the fleet: a call's tokens are taken before it leaves.

Tokens have a use-by of real seconds, measured on the monotonic clock from before they were asked
for, so that neither a slow reply nor a stepped clock prolongs it. The scripts book them at the latest
market time at which their calls can arrive (``lua/lease.lua``): how much a window loses by that is
``speed * (use-by + transit)``. A request arrives before its answer does, so transit is the longest
answer time seen lately, within bounds; a call that took longer is booked anew when it ends.
"""

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from core.clock import Clock
from core.errors import QueueError, QuotaExhaustedError, RateLimitedError
from core.words import Share
from providers.base import Limit, quota_used
from routing.account import LongWindows
from routing.state import RoutingState
from routing.wallet import RECOVER_S, Wallet

LONG_WINDOW_S = 60.0
"""Windows longer than this are counted in PostgreSQL, so that a FLUSHALL forgets none of them."""
_QUICK_USE_BY_S, _SLOW_USE_BY_S, _USE_BY_PART = 0.05, 1.0, 60
"""Tokens are good for 1/60 of the shortest window within these bounds; in a replay for the least."""
_REPLAY_TRANSIT_S, _TRANSIT_S, _LONGEST_TRANSIT_S = 0.1, 0.05, 1.5
"""Bounds of the real seconds between the last check of a token and its arrival at the provider."""
_TRANSIT_HALF_LIFE_S = 10.0
_SHRINK, _LEAST_SHARE = 0.7, 0.1
"""A 429 leaves 70 % of the limits in use, and never less than a tenth."""
_SAME_BURST_S = 1.0
"""429s within so many real seconds belong to calls that left before the first, and shrink once."""
_SAID_SELDOM_S, _SAID_OFTEN_S, _NEARLY, _UNSURE = 2.0, 0.2, 0.8, 0.02
"""What quota headers say is compared so often in real seconds, more often near the limit's end."""
_DAY_S, _FEW_A_DAY = 86_400.0, 5000
_LONGEST_PAUSE_S, _QUOTA_PAUSE_S = 15.0, 3600.0
"""Market seconds of pause where the provider names none."""


@dataclass(frozen=True, slots=True)
class LimitUse:
    """How much of one limit is used."""

    limit: Limit
    live: int
    backfill: int
    left: int
    share: float
    """Share of the limit in use after 429s; 1 otherwise."""
    paused_s: float
    """Market seconds for which the provider asked us to wait still."""


class Budget:
    """The limits of one provider as one process sees them; thread-safe.

    Args:
        provider: Whose key or address is counted; sources of one provider share it.
        limits: What it enforces.
        state: Redis.
        clock: Market and monotonic time.
        long_windows: Where windows longer than a minute are counted; None: in Redis like the rest,
            which then counts from nothing when its keys are lost before this process used any.
        egress: Name of the address that calls leave from, for limits by address; processes that
            share an address share its name.
    """

    def __init__(
        self,
        provider: str,
        limits: Sequence[Limit],
        state: RoutingState,
        clock: Clock,
        long_windows: LongWindows | None,
        egress: str = "",
    ) -> None:
        self.provider = provider
        self.limits = tuple(limits)
        self.state = state
        self.clock = clock
        self.long_windows = long_windows
        self.scopes = [
            f"{provider}:{limit.name}" + (f"@{egress}" if limit.scope == "ip" and egress else "")
            for limit in self.limits
        ]
        self.keys = [
            state.key("throttle", provider),
            *(
                state.key("budget", scope, f"{round(limit.window_s * 1e6)}")
                for scope, limit in zip(self.scopes, self.limits, strict=True)
            ),
        ]
        shortest_s = min((limit.window_s for limit in self.limits), default=LONG_WINDOW_S)
        if clock.segments():
            self.use_by_s = _QUICK_USE_BY_S
            self._transit_bounds = (_REPLAY_TRANSIT_S, _LONGEST_TRANSIT_S)
        else:
            part_s = shortest_s / _USE_BY_PART
            self.use_by_s = min(_SLOW_USE_BY_S, max(_QUICK_USE_BY_S, part_s))
            # A tenth of the shortest window is all that is given for safety's sake.
            most_s = max(_TRANSIT_S, min(_LONGEST_TRANSIT_S, shortest_s / 10))
            self._transit_bounds = (_TRANSIT_S, most_s)
        self._slowest: tuple[float, float] = (0.0, clock.monotonic())
        self.spent = False
        """Whether this process ever got a token: if nobody remembers that, keys were lost."""
        self.sequence = 0
        """The newest lease of the fleet that this process knows of."""
        self._said: dict[str, float] = {}
        self.unknown: frozenset[str] = frozenset()
        """Scopes whose windows hold calls that were counted by other windows, before a reload."""
        self._wallets: dict[tuple[tuple[int, ...], Share], Wallet] = {}
        self._lock = threading.Lock()

    @property
    def scarce(self) -> bool:
        """Whether a day of it is few calls."""
        return any(limit.units * _DAY_S < _FEW_A_DAY * limit.window_s for limit in self.limits)

    def follow(self, former: "Budget | None") -> None:
        """Take the place of the budget of earlier settings: windows that it lacked begin as full."""
        if former is not None and former.scopes:
            self.unknown = frozenset(self.scopes) - (frozenset(former.scopes) - former.unknown)
            self.spent, self._slowest = former.spent, former._slowest  # noqa: SLF001 - of one class
            self.sequence = former.sequence

    def is_long(self, limit: Limit) -> bool:
        """Whether PostgreSQL counts it."""
        return self.long_windows is not None and limit.window_s > LONG_WINDOW_S

    def wallet(self, cost: Mapping[str, int], share: Share) -> Wallet:
        """Tokens of one share for calls of one cost; a limit that is not named costs nothing."""
        costs = tuple(cost.get(limit.name, 0) for limit in self.limits)
        wallet = self._wallets.get((costs, share))
        if wallet is None:
            with self._lock:
                wallet = self._wallets.setdefault((costs, share), Wallet(self, costs, share))
        return wallet

    @property
    def hold_s(self) -> float:
        """Real seconds from a lease until its last call has arrived, if it is ever sent."""
        least_s, most_s = self._transit_bounds
        return self.use_by_s + min(most_s, max(least_s, self._faded()))

    @property
    def longest_hold_s(self) -> float:
        """The most that ``hold_s`` can become."""
        return self.use_by_s + self._transit_bounds[1]

    def answered(self, latency_s: float) -> None:
        """Learn how long a call was under way at most, from the last check of its token."""
        # Quicker ones change nothing: so much is always allowed for.
        if latency_s > self._transit_bounds[0] and latency_s > self._faded():
            self._slowest = (latency_s, self.clock.monotonic())

    def _faded(self) -> float:
        slowest_s, at = self._slowest
        return slowest_s * 0.5 ** ((self.clock.monotonic() - at) / _TRANSIT_HALF_LIFE_S)

    def reconcile(self, headers: Mapping[str, str]) -> None:
        """Learn from quota headers that more is used than we know of: by others, or counted otherwise.

        Only upwards: what we know of counts in any case. A part of what an answer says has left the
        window when it is read; that much is borne.

        Args:
            headers: Of an answer, names in lower case.
        """
        said = quota_used(headers, self.limits)
        if not said:
            return
        now, news = self.clock.monotonic(), dict[str, int]()
        for limit in self.limits:
            used = said.get(limit.name, 0) - self._borne(limit)
            nearly = used >= _NEARLY * limit.units
            seldom_s = _SAID_OFTEN_S if nearly else _SAID_SELDOM_S
            if used <= 0 or self.is_long(limit) or now - self._said.get(limit.name, 0.0) < seldom_s:
                continue
            self._said[limit.name], news[limit.name] = now, used
        if not news:
            return
        wallet = self.wallet({limit.name: 1 for limit in self.limits}, Share.LIVE)
        try:
            wallet.look(news)
        except QueueError:
            # Nobody gets tokens while Redis is away; the next answer says it again.
            return

    def _borne(self, limit: Limit) -> int:
        late = 2 * self.hold_s * self.fastest() / limit.window_s
        return math.ceil(limit.units * min(0.5, _UNSURE + late))

    def obey(self, error: RateLimitedError) -> None:
        """A 429 came: pause the fleet as long as the provider asks, and use less of the limits."""
        for wallet in list(self._wallets.values()):
            wallet.burn()
        pause_s = error.retry_after_s
        if pause_s is None:
            windows = [limit.window_s for limit in self.limits] or [1.0]
            pause_s = min(_LONGEST_PAUSE_S, max(1.0, min(windows)))
            if isinstance(error, QuotaExhaustedError):
                pause_s = min(_QUOTA_PAUSE_S, max(windows))
        args = [
            self.state.segments(),
            round(pause_s * 1e6),
            round(_SAME_BURST_S * 1e6),
            _SHRINK,
            _LEAST_SHARE,
            round(RECOVER_S * 1e6),
        ]
        try:
            self.state.run("throttle", self.keys[:1], args)
        except QueueError:
            # Nobody gets tokens while Redis is away.
            return

    def usage(self) -> list[LimitUse]:
        """How much of every limit is used now.

        Raises:
            QueueError: Redis does not answer.
            StorageError: a long window is asked for and the database is away.
        """
        if not self.limits:
            return []
        wallet = self.wallet({limit.name: 1 for limit in self.limits}, Share.LIVE)
        seen = orjson.loads(wallet.look())
        uses: list[LimitUse] = []
        for limit, scope, used in zip(self.limits, self.scopes, seen["used"], strict=True):
            if self.is_long(limit) and self.long_windows is not None:
                used = self.long_windows.used(scope)  # noqa: PLW2901 - Redis holds its pool only
            live, backfill = (max(0, int(units)) for units in used)
            most = max(1, math.floor(limit.units * seen["factor"]))
            left = max(0, most - live - backfill)
            uses.append(LimitUse(limit, live, backfill, left, seen["factor"], seen["paused"] / 1e6))
        return uses

    def fastest(self) -> float:
        """The highest speed of market time that is in force or announced."""
        return max((segment.speed for segment in self.clock.segments()[-2:]), default=1.0)
