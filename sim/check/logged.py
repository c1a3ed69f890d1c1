"""For which knowledge the simulator's request log is whole, so that it can say what is wrong."""

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

from sim.check.truth import Admin


@dataclass(frozen=True, slots=True)
class Logged:
    """Stretches of market time, epoch seconds: runs of the simulator whose answers all stand in the log.

    Between two of them a simulator may have answered and died before it wrote that down.
    """

    begins: tuple[float, ...]
    ends: tuple[float, ...]

    @property
    def since(self) -> float:
        """Begin of the log."""
        return self.begins[0]

    def holds(self, asked: float, learnt: float) -> bool:
        """Whether an answer that was asked for and learnt then must stand in the log."""
        run = bisect_right(self.begins, asked) - 1
        return run >= 0 and learnt <= self.ends[run]


ALWAYS = Logged((float("-inf"),), (float("inf"),))
"""A log that has always been there."""


def read_logged(admin: Admin) -> Logged:
    """Ask the simulator for its runs."""
    runs: list[dict[str, Any]] = admin.get("/admin/log")["runs"]
    return Logged(
        tuple(float("-inf") if run["began"] is None else run["began"] for run in runs),
        tuple(float("inf") if run["ended"] is None else run["ended"] for run in runs),
    )
