"""A market clock that jumps where a test wants it, and what a scheduler pushed, for its tests."""

import json
import os
import subprocess
import sys
import zlib
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, cast

from redis import Redis

from core.clock import ReplayClock, Segment, real_timestamp
from core.settings import Settings
from core.telemetry import Telemetry
from core.words import Tier
from db import calendars, universe
from db.clock import announce_segment, read_segments, set_replay
from db.live_settings import LiveSettings
from db.pool import Database, connect
from scheduler.calendar_keeper import build
from scheduler.leader import Leader
from scheduler.planning import Planning
from scheduler.sweep import Sweep
from workers.queues import QUEUES, CollectJob

ROOT = Path(__file__).resolve().parents[2]
STILL = 0.001
"""Market seconds a real second of a clock that only jumps."""


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@cache
def payload(calendar: str, year: int) -> dict[str, Any]:
    """The arrays of an exchange around the middle of a year, as the scheduler builds them."""
    return build(calendar, datetime(year, 7, 1, tzinfo=UTC))


class Market:
    """A database that keeps a replay's time, and the replay's clock."""

    def __init__(self, url: str, start: str, *, speed: float = STILL) -> None:
        self.url = url
        segment = Segment(real_timestamp(), at(start).timestamp(), speed)
        with connect(url) as conn:
            set_replay(conn, "test", [segment])
        self.clock = ReplayClock([segment])
        self.db = Database(url, self.clock, max_size=8)

    def close(self) -> None:
        self.db.close()

    def jump(self, to: datetime | str, *, speed: float = STILL) -> None:
        """It is that time now, in SQL as in Python."""
        when = at(to) if isinstance(to, str) else to
        with connect(self.url) as conn:
            announce_segment(conn, Segment(real_timestamp(), when.timestamp(), speed))
            self.clock.update(read_segments(conn))

    def trade(self, *calendar_names: str) -> None:
        for name in calendar_names:
            calendars.publish(self.db, payload(name, self.clock.now().year))

    def enrol(self, **groups: tuple[int, str]) -> None:
        """``T0=(3, "NYSE")`` adds T0N0, T0N1 and T0N2 of NYSE to the universe."""
        rows = [
            (f"{tier}{calendar[0]}{i}", Tier(tier), calendar, calendar)
            for tier, (count, calendar) in groups.items()
            for i in range(count)
        ]
        universe.load(self.db, rows, "test", replace=False)

    def ids(self) -> dict[str, int]:
        with self.db.transaction() as conn:
            return {member.symbol: member.symbol_id for member in universe.members(conn)}

    def ask(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        with self.db.transaction() as conn:
            return conn.execute(query, parameters or None).fetchall()  # pyright: ignore[reportArgumentType]


def settings_of(url: str, redis_url: str, **more: Any) -> LiveSettings:
    """Settings as a scheduler holds them, without any file."""
    fixed = Settings(database_url=url, redis_url=redis_url, **more)
    return LiveSettings.of(fixed)


class Alone:
    """One scheduler's parts, stepped by hand."""

    def __init__(self, market: Market, redis: Redis, **more: Any) -> None:
        self.market, self.redis = market, redis
        self.settings = settings_of(market.url, "redis://unused", **more)
        self.telemetry = Telemetry()
        self.leader = Leader(market.db, f"alone-{id(self)}")
        self.planning = Planning(market.db, self.settings)
        self.planning.refresh()
        self.sweep = Sweep(
            market.db, redis, self.leader, self.planning, self.settings, self.telemetry
        )

    def lead(self) -> None:
        self.leader.step()
        assert self.leader.token() is not None

    def sweep_at(self, when: datetime) -> list[CollectJob]:
        """The jobs that a step of the sweep pushes then."""
        self.market.jump(when)
        self.leader.step()
        self.sweep.step()
        return drain(self.redis)

    def counted(self, name: str, **labels: str) -> float:
        return self.telemetry.registry.get_sample_value(name, labels) or 0.0


def drain(redis: Redis) -> list[CollectJob]:
    """Take every live job off the queues as a worker that finishes at once."""
    jobs: list[CollectJob] = []
    for queue in QUEUES:
        while raw := cast("bytes | None", redis.lpop(f"rq:queue:{queue}")):
            key = f"rq:job:{raw.decode()}"
            data = cast("bytes", redis.hget(key, "data"))
            redis.delete(key)
            if queue.startswith("collect"):
                jobs.append(CollectJob.from_wire(_argument(data)))
    return jobs


def _argument(data: bytes) -> object:
    # RQ's JSON call: function, instance, args, kwargs; maybe compressed.
    with suppress(zlib.error):
        data = zlib.decompress(data)
    return json.loads(data)[2][0]


def start_scheduler(
    url: str, redis_url: str, folder: Path, name: str, **env: str
) -> subprocess.Popen[bytes]:
    """A scheduler in a process of its own, logging to ``folder/name.log``."""
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "scheduler", "--port-file", str(folder / f"{name}.port")],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "DATABASE_URL": url,
                "REDIS_URL": redis_url,
                "METRICS_PORT": "0",
                **env,
            },
            cwd=folder,
            stderr=log,
        )


def symbols_of(jobs: Iterable[CollectJob]) -> list[str]:
    return sorted(symbol for job in jobs for symbol in job.symbols)
