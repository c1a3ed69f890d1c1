"""How fast the market may run on this machine.

A new speed is a segment of the replay that begins ``NOTICE_S`` in the future, so that PostgreSQL, the simulator
and every process switch at the same instant.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from core.clock import Segment, market_at, real_timestamp

NOTICE_S = 1.5
"""Real seconds between the announcement and the change; processes look every 0.25 s."""
START_SPEED = 200.0
LEAST_SPEED = 10.0
_SLOWER, _FASTER = 0.8, 1.06
_BEHIND_JOBS = 8
_BUSY = 0.95
_BEHIND_SIM_S = 0.25
_CALM_S = 6.0


@dataclass(slots=True)
class Pace:
    """Announces segments and, on ``auto``, chooses their speed from what lags."""

    announce: Callable[[Segment], None]
    """Makes a segment known to the database and the simulator."""
    segments: list[Segment]
    auto: bool
    slowed: list[float] = field(default_factory=list[float])
    """Every speed that the machine's lag forced, in order."""
    _busy: "Processors" = field(init=False)
    _calm_since: float | None = None
    _settled_at: float = 0.0

    def __post_init__(self) -> None:
        self._busy = Processors()

    @property
    def speed(self) -> float:
        return self.segments[-1].speed

    def change(self, speed: float) -> None:
        """Announce a new speed."""
        start = real_timestamp() + NOTICE_S
        segment = Segment(start, market_at(self.segments, start), speed)
        self.segments.append(segment)
        self.announce(segment)
        self._settled_at = start + 2.0

    def judge(self, *, waiting_jobs: int, sim_lag_s: float) -> float | None:
        """Called about once a second; returns the new speed when it changed.

        Waiting jobs alone say nothing: they wait for a killed worker or a lost source as well. The
        market is slowed where they wait and the processors have no time left, or the simulator lags.
        """
        now = real_timestamp()
        busy = self._busy.look()
        if not self.auto or now < self._settled_at:
            return None
        if (waiting_jobs > _BEHIND_JOBS and busy > _BUSY) or sim_lag_s > _BEHIND_SIM_S:
            self._calm_since = None
            slower = max(LEAST_SPEED, round(self.speed * _SLOWER))
            if slower < self.speed:
                self.change(slower)
                self.slowed.append(slower)
                return slower
            return None
        self._calm_since = self._calm_since or now
        if now - self._calm_since > _CALM_S and self.speed < START_SPEED:
            self._calm_since = now
            faster = min(START_SPEED, round(self.speed * _FASTER))
            self.change(faster)
            return faster
        return None


class Processors:
    """How busy the machine's processors were since the last look, by Linux's own count."""

    _STAT = Path("/proc/stat")

    def __init__(self) -> None:
        self._last = self._read()

    def look(self) -> float:
        """Share of time that was not idle, 0 to 1; 1 where it can't be known."""
        last, self._last = self._last, self._read()
        if last is None or self._last is None or self._last[1] <= last[1]:
            return 1.0
        return 1.0 - (self._last[0] - last[0]) / (self._last[1] - last[1])

    def _read(self) -> tuple[int, int] | None:
        try:
            words = self._STAT.read_text().split("\n", 1)[0].split()[1:9]
        except OSError:
            return None
        times = [int(word) for word in words]
        return times[3] + times[4], sum(times)
