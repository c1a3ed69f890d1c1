"""What the demo looks at while it runs: counts from the database, the queues, the simulator."""

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.request import Request, urlopen

from redis import Redis

from core.windows import Window
from db import counts
from db.pool import Database
from workers.queues import depths

_COUNT_EVERY_S = 2.5
"""Real seconds between two counts of all bars, which take 40 ms at the end of a full day."""


@dataclass(slots=True)
class Snapshot:
    """One look at everything."""

    bars: int = 0
    """Of the session, each once."""
    revised: int = 0
    quotes: int = 0
    waiting_jobs: int = 0
    backfill_open: int = 0
    found_missing: int = 0
    explained: int = 0
    requests: int = 0
    violations: int = 0
    sim_lag_s: float = 0.0
    active_faults: list[str] = field(default_factory=list[str])


class SimAdmin:
    """The simulator's admin port."""

    def __init__(self, base: str) -> None:
        self.base = base

    def get(self, path: str) -> Any:
        """A JSON answer."""
        with urlopen(f"{self.base}{path}", timeout=10) as answer:  # noqa: S310 - loopback
            return json.loads(answer.read())

    def post(self, path: str, body: Any) -> Any:
        """A JSON answer to a JSON question."""
        request = Request(  # noqa: S310 - the simulator on loopback
            f"{self.base}{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urlopen(request, timeout=10) as answer:  # noqa: S310
            return json.loads(answer.read())


class Watch:
    """Takes snapshots; cheap enough for once a second.

    Args:
        db: The database.
        redis: Where the queues are.
        sim: The simulator.
        window: The bars to count, those that the checker will judge.
    """

    def __init__(self, db: Database, redis: Redis, sim: SimAdmin, window: Window) -> None:
        self._db, self._redis, self._sim, self._window = db, redis, sim, window
        self._stored: counts.Stored | None = None
        self._count_at = 0.0

    def look(self, *, count: bool = False) -> Snapshot:
        """Everything at once; bars are counted every few seconds only, unless ``count`` asks for it."""
        seen = Snapshot()
        clock = self._db.clock
        with self._db.transaction() as conn:
            if self._stored is None or count or clock.monotonic() >= self._count_at:
                self._stored = counts.stored(conn, self._window)
                self._count_at = clock.monotonic() + _COUNT_EVERY_S
            seen.backfill_open = counts.open_gaps(conn)
        seen.bars, seen.revised = self._stored.bars, self._stored.revised
        seen.quotes = self._stored.quotes
        seen.found_missing, seen.explained = self._stored.found_missing, self._stored.explained
        seen.waiting_jobs = sum(
            jobs for name, jobs in depths(self._redis).items() if name.startswith("collect")
        )
        stats = self._sim.get("/admin/stats")
        for source in stats["sources"].values():
            seen.requests += source["requests"]
            seen.violations += source["violations"]
        seen.sim_lag_s = stats.get("loop_lag_s", 0.0)
        seen.active_faults = [
            fault["id"] for fault in self._sim.get("/admin/faults") if fault["active"]
        ]
        return seen
