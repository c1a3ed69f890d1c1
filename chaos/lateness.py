"""Live jobs that were begun after the instant until which somebody wanted them, by the queue's own records."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from redis import Redis
from redis.exceptions import RedisError
from rq.exceptions import NoSuchJobError
from rq.job import Job
from rq.serializers import JSONSerializer

from core.clock import Segment, market_at


@dataclass(slots=True)
class Lateness:
    """Looks at the jobs that Redis still remembers; call it more often than they are forgotten."""

    redis: Redis
    segments: Sequence[Segment]
    seen: set[str] = field(default_factory=set[str])
    """Jobs that were judged."""
    late: list[str] = field(default_factory=list[str])

    def look(self) -> None:
        """Judge the jobs that ended since the last look."""
        try:
            keys = list(cast("Any", self.redis).scan_iter("rq:job:c-*", count=1000))
            for key in keys:
                self._judge(key.decode().removeprefix("rq:job:"))
        except (RedisError, NoSuchJobError):
            # Struck: what it still knows is looked at next time.
            return

    def _judge(self, name: str) -> None:
        if name in self.seen:
            return
        job = cast("Any", Job).fetch(name, self.redis, JSONSerializer)
        result = job.return_value()
        if job.started_at is None or not isinstance(result, dict):
            return
        self.seen.add(name)
        begun = market_at(self.segments, job.started_at.timestamp())
        not_after = datetime.fromisoformat(job.args[0]["not_after"]).timestamp()
        if "asked" in result and begun > not_after:
            self.late.append(
                f"job {name} was begun {begun - not_after:.0f} market seconds too late"
            )
