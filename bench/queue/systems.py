"""Who is compared: how each system is started with so many slots, and how to see what it has left to do."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from redis import Redis

from bench.queue.push_process import BATCH
from bench.queue.rq_process import QUEUE
from bench.run import MeasureError
from core.words import Tier
from workers.queues import collect_queue

PROCESSES = 2
"""Worker processes of every system."""
_QUEUE = collect_queue(Tier.T0)


@dataclass(frozen=True, slots=True)
class System:
    """A queue with its workers."""

    name: str
    """As ``push_process`` knows it; begins the report's keys."""
    title: str
    """For people."""
    package: str
    """Whose version is told."""
    commands: Callable[[int], list[list[str]]]
    """What to start, by slots a process."""
    unfinished: Callable[[Any], int]
    """Symbols in a Redis database that are queued or not yet acknowledged; ours counts whole batches."""
    most_per_s: int
    """Symbols a second that two processes of it surely do not exceed: how much is pushed."""

    @property
    def version(self) -> str:
        """Of what is installed.

        Raises:
            MeasureError: nothing is.
        """
        try:
            return version(self.package)
        except PackageNotFoundError as missing:
            raise MeasureError(
                f"{self.package} is not installed, so there is nothing to compare with; "
                "`make bench` installs it, or: pip install -r requirements.lock"
            ) from missing

    def left(self, url: str) -> int:
        """``unfinished`` of the database that a URL names."""
        with Redis.from_url(url) as client:
            return self.unfinished(client)


def batches(slots: int) -> int:
    """Our batches in flight a process: enough to keep every slot busy while one comes to its end."""
    return max(4, 2 + 2 * slots // BATCH)


def _ours(slots: int) -> list[list[str]]:
    words = ["bench.queue.ours_process", str(slots), str(batches(slots))]
    return [[sys.executable, "-m", *words]] * PROCESSES


def _rq(_slots: int) -> list[list[str]]:
    return [[sys.executable, "-m", "bench.queue.rq_process"]] * PROCESSES


def _celery(slots: int) -> list[list[str]]:
    return [
        [
            *(sys.executable, "-m", "celery", "-A", "bench.queue.celery_app", "worker"),
            *("--pool", "threads", "--concurrency", str(slots), "--hostname", f"bench{number}@%h"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ]
        for number in range(PROCESSES)
    ]


def _dramatiq(slots: int) -> list[list[str]]:
    words = ["--processes", str(PROCESSES), "--threads", str(slots)]
    return [[sys.executable, "-m", "dramatiq", "bench.queue.dramatiq_app", *words]]


def _rq_unfinished(name: str) -> Callable[[Any], int]:
    def unfinished(client: Any) -> int:
        lists = (f"rq:queue:{name}", f"rq:queue:{name}:intermediate")
        return sum(map(client.llen, lists)) + client.zcard(f"rq:wip:{name}")

    return unfinished


OURS = System(
    "ours",
    "ours",
    "rq",
    _ours,
    lambda client: BATCH * _rq_unfinished(_QUEUE)(client),
    6000,
)
RQ = System("rq", "RQ, forking", "rq", _rq, _rq_unfinished(QUEUE), 60)
CELERY = System(
    "celery",
    "Celery, threads",
    "celery",
    _celery,
    lambda client: client.llen("celery") + client.hlen("unacked"),
    3500,
)
DRAMATIQ = System(
    "dramatiq",
    "Dramatiq, threads",
    "dramatiq",
    _dramatiq,
    lambda client: client.hlen("dramatiq:default.msgs"),
    4500,
)
SYSTEMS = (OURS, RQ, CELERY, DRAMATIQ)
