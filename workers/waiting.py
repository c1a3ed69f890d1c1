"""In which jobs an element of the coordinator waits, so that a long queue is not made longer.

An element that nobody answered within its lease is pushed again, for Redis may have lost its job. One
whose job still stands in a queue is not: where workers are behind, each lease would double their work.
Keys: ``gapless:inbox:<row>``, the ids of the jobs that were pushed for that row of ``rlc_inbox``.
"""

from collections.abc import Collection, Sequence
from typing import Any, cast

from redis import Redis

from db.inbox import LEASE_S
from workers.queues import CollectJob

_KEEP_S = int(4 * LEASE_S)
"""Real seconds; whoever finds an element in line keeps it as long again."""


def note(redis: Redis, jobs: Sequence[CollectJob]) -> None:
    """Remember which elements jobs were pushed for; what is forgotten is pushed again.

    Raises:
        RedisError: as it comes.
    """
    with cast("Any", redis).pipeline(transaction=False) as pipe:
        for job in jobs:
            for row in job.inbox or ():
                pipe.sadd(_key(row), job.id)
                pipe.expire(_key(row), _KEEP_S)
        pipe.execute()


def waiting(redis: Redis, rows: Collection[int]) -> frozenset[int]:
    """Those of some elements that have a job which nobody has begun.

    Raises:
        RedisError: as it comes.
    """
    asked = sorted(rows)
    with cast("Any", redis).pipeline(transaction=False) as pipe:
        for row in asked:
            pipe.smembers(_key(row))
        jobs: dict[int, set[bytes]] = dict(zip(asked, pipe.execute(), strict=True))
        ids = sorted({job for pushed in jobs.values() for job in pushed})
        for job in ids:
            pipe.hget(b"rq:job:" + job, "status")
        for row in asked:
            pipe.expire(_key(row), _KEEP_S)
        queued = {
            job for job, status in zip(ids, pipe.execute(), strict=False) if status == b"queued"
        }
    return frozenset(row for row, pushed in jobs.items() if pushed & queued)


def _key(row: int) -> str:
    return f"gapless:inbox:{row}"
