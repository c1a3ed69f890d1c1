"""Sources and routers for tests of routing: providers that state facts and send nothing."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from core.clock import Clock
from core.words import Capability
from providers.base import Limit, Spec
from routing.budgets import LongWindows
from routing.router import Router
from routing.sources import Source
from routing.state import RoutingState

BARS = Capability.BARS_1M


class Stating:
    """A provider that only states facts."""

    def __init__(self, name: str, limits: Sequence[Limit] = ()) -> None:
        self.name = name
        self._limits = tuple(limits)

    def limits(self) -> tuple[Limit, ...]:
        return self._limits

    def specs(self) -> Mapping[Capability, Spec]:
        cost = {limit.name: 1 for limit in self._limits}
        return {
            BARS: Spec(
                BARS,
                batch=1,
                span=timedelta(days=7),
                lookback=None,
                settle=timedelta(seconds=60),
                cost=cost,
                partial="never",
                adjustment="raw",
                pad=timedelta(0),
                timeout_s=3.0,
            )
        }

    def plan(self, request: object) -> list[object]:
        raise AssertionError("nothing is planned in these tests")

    def send(self, call: object, timeout_s: float) -> object:
        raise AssertionError("nothing is sent in these tests")

    def parse(self, call: object, raw: object, sessions: object) -> object:
        raise AssertionError("nothing is parsed in these tests")

    def close(self) -> None: ...


def source(name: str, *limits: Limit) -> Source:
    """An installed source."""
    return Source(name, Stating(name, limits))  # type: ignore[arg-type]


def router(
    url: str,
    clock: Clock,
    sources: Sequence[Source],
    *,
    bands: tuple[tuple[str, ...], ...] | None = None,
    long_windows: LongWindows | None = None,
    allow_override: bool = False,
) -> Router:
    """A router over the sources, each in a band of its own unless bands are given."""
    policy = bands or tuple((item.name,) for item in sources)
    state = RoutingState(url, clock)
    return Router(
        sources,
        {BARS: policy},
        state,
        clock,
        long_windows=long_windows,
        allow_override=allow_override,
    )
