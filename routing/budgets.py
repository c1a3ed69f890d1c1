"""Rolling budgets of one source, exact across the fleet: tokens are taken before a call leaves.

A token may be used until its use-by (real seconds) and needs a moment on the wire, so the window
that is counted is longer than the provider's by ``speed * (use_by + transit)``: whatever the
interleaving, arrivals in any window stay within the limit. A request arrives before its answer does,
so transit is the longest answer time seen lately. Market time in the scripts comes from
Redis's clock and the replay's segments, so a process with a wrong clock can't break a limit.
"""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from core.clock import Clock
from core.errors import QueueError
from core.words import Share
from providers.base import Limit
from routing.state import RoutingState

LONG_WINDOW_S = 60.0
"""Windows longer than this are counted in PostgreSQL as well, so that a FLUSHALL forgets none."""
_BLOCK = 8
_LONG_USE_BY_S = 60.0
"""Real seconds for which a block of a long window may be used; the counted window is longer by it."""
_BUSY_S = 0.02
_QUICK_S = 0.05
_LEAST_TRANSIT_S = 0.1
_MOST_TRANSIT_S = 1.5
_TRANSIT_HALF_LIFE_S = 10.0


class LongWindows(Protocol):
    """Where long windows are counted (``db.budgets``)."""

    def take(self, source: str, name: str, units: int, window_s: float, wanted: int) -> int:
        """Units granted of a window of market seconds, at most ``wanted``; 0 when it is used up."""
        ...

    def seen(self, source: str) -> bool:
        """Whether the source was ever asked from this database; remembers that it is now."""
        ...


@dataclass(frozen=True, slots=True)
class Refused:
    """No token now."""

    why: str
    wait_s: float
    """Market seconds after which asking again makes sense."""


@dataclass(slots=True)
class _Hand:
    """Tokens that this process holds for one share."""

    use_bys: deque[float] = field(default_factory=deque[float])
    last_ask: float = 0.0
    long_units: dict[str, int] = field(default_factory=dict[str, int])
    long_use_by: float = 0.0
    """Monotonic; the rest of older blocks is forfeited."""


class Budget:
    """The budget of one source as one process sees it; thread-safe."""

    def __init__(
        self,
        source: str,
        limits: Sequence[Limit],
        state: RoutingState,
        clock: Clock,
        long_windows: LongWindows | None,
    ) -> None:
        self.source = source
        self.limits = tuple(limits)
        self._short = [
            limit for limit in limits if limit.window_s <= LONG_WINDOW_S or long_windows is None
        ]
        self._long = [
            limit for limit in limits if limit.window_s > LONG_WINDOW_S and long_windows is not None
        ]
        self._keys = [f"gapless:budget:{source}:{limit.name}" for limit in self._short]
        self._state = state
        self._clock = clock
        self._long_windows = long_windows
        self._hands = {share: _Hand() for share in Share}
        self._lock = threading.Lock()
        self._transit_s = 0.0
        self._transit_at = clock.monotonic()

    @property
    def use_by_s(self) -> float:
        """Real seconds for which a token may be used."""
        quick = self._clock.segments() or any(limit.window_s <= 1 for limit in self.limits)
        return _QUICK_S if quick else 1.0

    @property
    def guard_s(self) -> float:
        """Market seconds by which the counted window is longer than the provider's."""
        segments = self._clock.segments()
        fastest = max([self._clock.speed, *(segment.speed for segment in segments[-2:])])
        transit = min(_MOST_TRANSIT_S, max(_LEAST_TRANSIT_S, self._faded_transit_s()))
        return fastest * (self.use_by_s + transit)

    def note_answer(self, latency_s: float) -> None:
        """Learn how long a call may be under way, from sending it to its answer, real seconds."""
        faded = self._faded_transit_s()
        if latency_s > faded:
            self._transit_s, self._transit_at = latency_s, self._clock.monotonic()

    def _faded_transit_s(self) -> float:
        age = self._clock.monotonic() - self._transit_at
        return self._transit_s * 0.5 ** (age / _TRANSIT_HALF_LIFE_S)

    def take(self, cost: dict[str, int], share: Share) -> float | Refused:
        """One call's tokens: the monotonic use-by, or why there are none."""
        if not self.limits:
            return self._clock.monotonic() + 5.0
        with self._lock:
            hand = self._hands[share]
            now = self._clock.monotonic()
            while hand.use_bys and hand.use_bys[0] <= now:
                hand.use_bys.popleft()
            if hand.use_bys:
                return hand.use_bys.popleft()
            busy = now - hand.last_ask < _BUSY_S
            hand.last_ask = now
            wanted = self._take_long(hand, cost, _BLOCK if busy else 1)
            if isinstance(wanted, Refused):
                return wanted
            granted = self._lease(cost, share, wanted)
            if isinstance(granted, Refused):
                return granted
            for limit in self._long:
                hand.long_units[limit.name] -= granted * max(1, cost.get(limit.name, 1))
            use_by = now + self.use_by_s
            hand.use_bys.extend([use_by] * (granted - 1))
            return use_by

    def obey(self, retry_after_s: float | None) -> None:
        """A 429 came: shrink, and pause for as long as the provider asked (market seconds)."""
        with self._lock:
            for hand in self._hands.values():
                hand.use_bys.clear()
            try:
                self._state.run(
                    "throttle", self._keys, [*self._segments(), "pause", retry_after_s or 0]
                )
            except QueueError:
                return

    def _lease(self, cost: dict[str, int], share: Share, wanted: int) -> int | Refused:
        args: list[str | int | float] = [*self._segments(), wanted, share.value]
        for limit in self._short:
            args += [limit.units, limit.window_s, self.guard_s, max(1, cost.get(limit.name, 1))]
        if not self._short:
            return wanted
        try:
            granted, wait, why = self._state.run("lease", self._keys, args)
            if why == "unknown":
                self._begin()
                granted, wait, why = self._state.run("lease", self._keys, args)
        except QueueError:
            return Refused("Redis is away, no tokens in hand", self._clock.speed * 0.25)
        if int(granted) > 0:
            return int(granted)
        words = {"paused": "asked to wait by the provider", "full": "budget used up"}.get(
            str(why), str(why)
        )
        return Refused(words, float(wait))

    def _begin(self) -> None:
        # Windows that nobody counts: a first start counts from nothing, a FLUSHALL from a full window.
        full = self._long_windows is not None and self._long_windows.seen(self.source)
        spans = [limit.window_s + self.guard_s for limit in self._short]
        self._state.run("throttle", self._keys, [*self._segments(), "born", int(full), *spans])

    def _take_long(self, hand: _Hand, cost: dict[str, int], wanted: int) -> int | Refused:
        """How many of the wanted calls the long windows allow; leases a block when few are in hand."""
        calls, now = wanted, self._clock.monotonic()
        if now >= hand.long_use_by:
            hand.long_units.clear()
            hand.long_use_by = now + _LONG_USE_BY_S
        for limit in self._long:
            each = max(1, cost.get(limit.name, 1))
            held = hand.long_units.get(limit.name, 0)
            if held < each * wanted and self._long_windows is not None:
                block = max(each * wanted, min(200, limit.units // 100))
                window_s = limit.window_s + self._clock.speed * _LONG_USE_BY_S
                held += self._long_windows.take(
                    self.source, limit.name, limit.units, window_s, block
                )
                hand.long_units[limit.name] = held
            calls = min(calls, held // each)
            if calls < 1:
                return Refused(
                    f"{limit.units} per {limit.window_s:.0f} s used up", limit.window_s / 100
                )
        return calls

    def _segments(self) -> list[str | int | float]:
        segments = self._clock.segments()
        flat: list[str | int | float] = [len(segments)]
        for segment in segments:
            flat += [repr(segment.real_start), repr(segment.market_start), segment.speed]
        return flat
