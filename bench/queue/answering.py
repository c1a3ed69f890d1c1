"""Stands in for the collectors: takes every job, answers its elements as their write would, and counts."""

import threading
from collections import Counter
from typing import Any, cast

from redis import Redis
from rq.exceptions import NoSuchJobError
from rq.job import Job
from rq.serializers import JSONSerializer

from core.clock import Clock
from core.words import Tier
from db import inbox
from db.pool import Database
from workers.queues import CollectJob, collect_queue

_REST_S = 0.005


class Answering:
    """A thread that empties the live queues, while it is not asked to rest."""

    def __init__(self, redis: Redis, db: Database, clock: Clock) -> None:
        self._redis = cast("Any", redis)
        self._db = db
        self._clock = clock
        self._working = threading.Lock()
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="answering", daemon=True)
        self.answered: Counter[tuple[int, str]] = Counter()
        """How many jobs asked for a symbol of an inbox row."""

    def __enter__(self) -> "Answering":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def rest(self) -> threading.Lock:
        """For a ``with`` block in which nothing is taken; what was taken is answered before it begins."""
        return self._working

    def check(self) -> None:
        """Raise what the thread died of, if it did."""
        if self._failure is not None:
            raise self._failure

    def waiting(self) -> int:
        """Jobs in the live queues."""
        return sum(self._redis.llen(f"rq:queue:{collect_queue(tier)}") for tier in Tier)

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                with self._working:
                    took = sum(self._take(collect_queue(tier)) for tier in Tier)
                if not took:
                    self._clock.sleep(_REST_S)
        except BaseException as error:  # noqa: BLE001 - the thread's boundary: told by ``check``
            self._failure = error

    def _take(self, queue: str) -> int:
        taken = self._redis.lpop(f"rq:queue:{queue}")
        if taken is None:
            return 0
        try:
            found = Job.fetch(taken.decode(), connection=self._redis, serializer=JSONSerializer)
        except NoSuchJobError:
            return 1
        job = CollectJob.from_wire(found.args[0])
        wanted = job.inbox or {}
        self._db.run(lambda conn: inbox.answered(conn, wanted))
        for row, symbols in wanted.items():
            self.answered.update((row, symbol) for symbol in symbols)
        self._redis.delete(f"rq:job:{job.id}")
        return 1
