"""What the demo looks at while it runs: counts from the database, the queues, the simulator."""

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.request import Request, urlopen

from redis import Redis

from db import counts
from db.pool import Database
from workers.queues import depths


@dataclass(slots=True)
class Snapshot:
    """One look at everything."""

    bars: int = 0
    revised: int = 0
    quotes: int = 0
    waiting_jobs: int = 0
    backfill_open: int = 0
    gap_minutes: int = 0
    filled_minutes: int = 0
    requests: int = 0
    violations: int = 0
    sim_lag_s: float = 0.0
    active_faults: list[str] = field(default_factory=list[str])


class SimAdmin:
    """The simulator's admin port."""

    def __init__(self, base: str) -> None:
        self._base = base

    def get(self, path: str) -> Any:
        """A JSON answer."""
        with urlopen(f"{self._base}{path}", timeout=10) as answer:  # noqa: S310 - loopback
            return json.loads(answer.read())

    def post(self, path: str, body: Any) -> Any:
        """A JSON answer to a JSON question."""
        request = Request(  # noqa: S310 - the simulator on loopback
            f"{self._base}{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urlopen(request, timeout=10) as answer:  # noqa: S310
            return json.loads(answer.read())


class Watch:
    """Takes snapshots; cheap enough for once a second."""

    def __init__(self, db: Database, redis: Redis, sim: SimAdmin) -> None:
        self._db, self._redis, self._sim = db, redis, sim

    def look(self) -> Snapshot:
        """Everything at once."""
        seen = Snapshot()
        with self._db.transaction() as conn:
            stored = counts.stored(conn)
        seen.bars, seen.revised, seen.quotes = stored.bars, stored.revised, stored.quotes
        seen.gap_minutes, seen.filled_minutes = stored.gap_minutes, stored.explained_minutes
        seen.backfill_open = stored.open_gaps
        seen.waiting_jobs = sum(
            count for name, count in depths(self._redis).items() if name.startswith("collect")
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
