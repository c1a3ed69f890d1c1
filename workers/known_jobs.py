"""A job as it stands in Redis, bound to the functions that this version knows."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from redis import Redis
from rq.job import Job
from rq.serializers import JSONSerializer

from core.errors import BadJobError

Functions = Mapping[str, Callable[[object], object]]


class KnownJob(Job):
    """A job whose function comes from a table, never imported by a name that stood in Redis."""

    functions: Functions

    @classmethod
    def read(cls, job_id: str, connection: Redis, functions: Functions) -> "KnownJob":
        """The job as it stands in Redis.

        Raises:
            NoSuchJobError: there is none of this id.
            ValueError, ResponseError: what stands there is no job.
        """
        # RQ's class methods are only partly typed.
        job = cast("KnownJob", cast("Any", cls).fetch(job_id, connection, JSONSerializer))
        job.functions = functions
        return job

    @property
    def func(self) -> Callable[[object], object]:
        """The function of the wire name.

        Raises:
            BadJobError: this version knows no such function.
        """
        name = self.func_name or ""
        if name not in self.functions:
            raise BadJobError(
                f"job calls {name!r}; this worker knows {', '.join(sorted(self.functions))}: "
                "upgrade the workers before the scheduler, then requeue it"
            )
        return self.functions[name]
