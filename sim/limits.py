"""True rolling windows over market time, counted by arrival."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat

from sim.config import LimitSpec


@dataclass(frozen=True, slots=True)
class Headroom:
    """The tightest window after a request, for quota headers."""

    limit: int
    remaining: int
    reset: float
    """Market instant at which the oldest counted request leaves that window."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A request that came when its window was full."""

    units: int
    seconds: float
    scope: str
    reset: float
    """Market instant at which the window has room again."""
    at: float
    """Market instant at which the request came."""


class Limiter:
    """All limits of one source. A request that is refused by any window fills none of them."""

    def __init__(self, specs: Sequence[LimitSpec]) -> None:
        self._windows = tuple(_Window(spec) for spec in specs)

    def arrive(
        self, capability: str, key: str, address: str, at: float, weight: int = 1
    ) -> Violation | None:
        """Count one request, or say which window is full; the fullest-for-longest of several.

        Args:
            capability: What is asked; a limit may count some only.
            key: Whose key.
            address: Whose address.
            at: Market instant of the arrival.
            weight: Units that the request takes of every window.
        """
        met = [window for window in self._windows if capability in window.spec.capabilities]
        full: list[Violation] = []
        for window in met:
            arrivals = window.of(key, address, at)
            spec = window.spec
            excess = len(arrivals) + weight - spec.units
            if excess > 0:
                # There is room when so many of the oldest units have left the window.
                leaves = arrivals[min(excess, len(arrivals)) - 1] if arrivals else at
                reset = leaves + spec.seconds
                full.append(Violation(spec.units, spec.seconds, spec.scope, reset, at))
        if full:
            return max(full, key=lambda violation: violation.reset)
        for window in met:
            window.of(key, address, at).extend(repeat(at, weight))
        return None

    def headroom(self, key: str, address: str, at: float) -> Headroom | None:
        """The window with the least left, None without limits."""
        rooms: list[Headroom] = []
        for window in self._windows:
            arrivals, spec = window.of(key, address, at), window.spec
            reset = (arrivals[0] if arrivals else at) + spec.seconds
            rooms.append(Headroom(spec.units, max(0, spec.units - len(arrivals)), reset))
        return min(rooms, key=lambda room: (room.remaining, -room.reset), default=None)

    def busiest(self) -> Iterable[tuple[LimitSpec, int]]:
        """Each limit with the most units that any of its windows ever held."""
        return ((window.spec, window.peak) for window in self._windows)


class _Window:
    def __init__(self, spec: LimitSpec) -> None:
        self.spec = spec
        self.peak = 0
        self._arrivals: dict[str, deque[float]] = {}

    def of(self, key: str, address: str, at: float) -> deque[float]:
        """Stamps of the units of ``(at - seconds, at]`` under this request's key or address."""
        who = key if self.spec.scope == "key" else address if self.spec.scope == "ip" else ""
        arrivals = self._arrivals.setdefault(who, deque())
        self.peak = max(self.peak, len(arrivals))
        while arrivals and arrivals[0] <= at - self.spec.seconds:
            arrivals.popleft()
        return arrivals
