"""Sources and routers for tests of routing: providers that state facts and send nothing."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from core.clock import Clock
from core.words import Capability
from providers.base import Limit, Spec
from routing.account import LongWindows
from routing.policy import Bands
from routing.router import Router
from routing.sources import Source
from routing.state import RoutingState

BARS = Capability.BARS_1M
ROOT = Path(__file__).resolve().parents[1]


class Stating:
    """A provider that only states facts."""

    def __init__(self, name: str, limits: Sequence[Limit] = (), cost: int = 1) -> None:
        self.name = name
        self._limits = tuple(limits)
        self._cost = cost

    def limits(self) -> tuple[Limit, ...]:
        return self._limits

    def specs(self) -> Mapping[Capability, Spec]:
        return {
            BARS: Spec(
                BARS,
                batch=1,
                span=timedelta(days=7),
                lookback=None,
                settle=timedelta(seconds=60),
                cost={limit.name: self._cost for limit in self._limits},
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

    def close_rested(self) -> None: ...

    def close(self) -> None: ...


def source(name: str, *limits: Limit, cost: int = 1) -> Source:
    """An installed source."""
    return Source(name, Stating(name, limits, cost))  # type: ignore[arg-type]


def limit(units: int, window_s: float) -> Limit:
    """A limit by key, named by its window."""
    return Limit(f"{window_s:g}s", units, window_s, "key")


def router(
    url: str,
    clock: Clock,
    sources: Sequence[Source],
    *,
    bands: Bands | None = None,
    long_windows: LongWindows | None = None,
    allow_override: bool = False,
    disabled: Callable[[], Mapping[str, str]] = dict,
    former: Router | None = None,
) -> Router:
    """A router over the sources, each in a band of its own unless bands are given."""
    policy = bands or tuple((item.name,) for item in sources)
    return Router(
        sources,
        {BARS: policy},
        RoutingState(url, clock),
        clock,
        long_windows=long_windows,
        allow_override=allow_override,
        disabled=disabled,
        former=former,
    )


def start(wish: dict[str, Any]) -> "subprocess.Popen[str]":
    """A process of callers; see ``tests/integration/routing_process.py``."""
    program = ROOT / "tests" / "integration" / "routing_process.py"
    return subprocess.Popen(
        [sys.executable, str(program), json.dumps(wish)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
        env={"PYTHONPATH": str(ROOT)},
    )
