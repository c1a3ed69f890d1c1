"""Finds what died: jobs whose worker is gone, jobs that nobody began, hints that nobody needs.

RQ's own clean-up takes minutes, can push a job twice and stops for 15 minutes when the cleaner is
killed. These scripts decide and act in one step, so any number of cleaners may run at once.

Keys, per queue Q: ``rq:queue:Q`` waiting ids, ``rq:queue:Q:intermediate`` ids taken and not begun,
``rq:wip:Q`` "job:execution" by the Redis second until which its worker vouches for it,
``rq:job:<id>`` the job.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, cast

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.registry import FailedJobRegistry, FinishedJobRegistry
from rq.worker_registration import clean_worker_registry

from core.clock import Clock
from workers.queues import FAILURE_TTL_S, HINT_TTL_S

log = logging.getLogger(__name__)

LEASE_S: Final = 10.0
"""Real seconds for which a running job is believed to be alive after its worker's last word."""
TAKEN_S: Final = 5.0
"""Real seconds after which a job that was taken and not begun is pushed again."""
REGISTRIES_S: Final = 30.0
"""Real seconds between two trims of RQ's lists of finished and failed jobs and dead workers."""
_AT_ONCE = 200

_LOST = """
-- KEYS: 1 = rq:wip:Q, 2 = rq:queue:Q, 3 = rq:queue:Q:intermediate, 4 = rq:job:<id>
-- ARGV: 1 = job:execution, 2 = job id, 3 = now, seconds, 4 = seconds until an untaken job is forgotten,
-- 5 = seconds for which one that was put aside is kept
-- Answers 0 still alive or handled by another, 1 forgotten, 2 pushed again, 3 out of retries.
-- RQ takes a job's time to live away when it starts, so every way out of here gives it one.
local until_s = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not until_s or tonumber(until_s) >= tonumber(ARGV[3]) then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('LREM', KEYS[3], 0, ARGV[2])
local status = redis.call('HGET', KEYS[4], 'status')
if status == 'queued' then
  -- Its worker died between listing it here and starting it: no fault of the job.
  if redis.call('LPOS', KEYS[2], ARGV[2]) then return 1 end
  redis.call('EXPIRE', KEYS[4], ARGV[4])
  redis.call('LPUSH', KEYS[2], ARGV[2])
  return 2
end
if status ~= 'started' then return 1 end
local left = tonumber(redis.call('HGET', KEYS[4], 'retries_left') or '0') or 0
if left < 1 then
  redis.call('EXPIRE', KEYS[4], ARGV[5])
  return 3
end
redis.call('HSET', KEYS[4], 'retries_left', left - 1, 'status', 'queued')
redis.call('EXPIRE', KEYS[4], ARGV[4])
redis.call('RPUSH', KEYS[2], ARGV[2])
return 2
"""

_VOUCH = """
-- KEYS: 1 = rq:wip:Q
-- ARGV: 1 = seconds for which the jobs are believed to be alive, then job:execution ...
-- By the server's clock: RQ writes the worker's own, and that of a machine may be wrong.
local until_s = redis.call('TIME')[1] + ARGV[1]
for i = 2, #ARGV do
  redis.call('ZADD', KEYS[1], 'XX', until_s, ARGV[i])
end
return 0
"""

_TAKEN = """
-- KEYS: 1 = rq:queue:Q, 2 = rq:queue:Q:intermediate, 3 = rq:job:<id>
-- ARGV: 1 = job id
-- Answers 1 when pushed again, 0 when begun, handled by another or forgotten.
if redis.call('LREM', KEYS[2], 1, ARGV[1]) == 0 then return 0 end
if redis.call('EXISTS', KEYS[3]) == 0 then return 0 end
redis.call('LPUSH', KEYS[1], ARGV[1])
return 1
"""

_HAND_BACK = """
-- KEYS: 1 = rq:wip:Q, 2 = rq:queue:Q, 3 = rq:queue:Q:intermediate, 4 = rq:job:<id>
-- ARGV: 1 = job:execution, 2 = job id, 3 = seconds until an untaken job is forgotten
-- Answers 1 when the job waits again, at the head and with all its retries, 0 when it was not ours.
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('LREM', KEYS[3], 0, ARGV[2])
if redis.call('EXISTS', KEYS[4]) == 0 then return 0 end
redis.call('HSET', KEYS[4], 'status', 'queued', 'started_at', '', 'worker_name', '')
redis.call('EXPIRE', KEYS[4], ARGV[3])
redis.call('LPUSH', KEYS[2], ARGV[2])
return 1
"""


class Recovery:
    """Recovery of one queue; one instance a worker process, safe beside others."""

    def __init__(
        self,
        queue: Queue,
        redis: Redis,
        clock: Clock,
        fail: Callable[[str, str], None],
        died: Callable[[str, str], None],
    ) -> None:
        """Prepare.

        Args:
            queue: The one queue.
            redis: A client with bytes replies.
            clock: For its monotonic seconds.
            fail: Puts a job (id, reason) aside that died as often as it may.
            died: Told of each job (id, execution) whose worker died while it ran; told twice when two
                clean up at once.
        """
        self._queue = queue
        self._redis = cast("Any", redis)
        self._clock = clock
        self._fail = fail
        self._died = died
        self._wip = f"rq:wip:{queue.name}"
        self._taken = queue.intermediate_queue_key
        self._seen: dict[str, float] = {}
        self._far: dict[bytes, float] = {}
        self._trimmed = float("-inf")
        self._vouch_script = redis.register_script(_VOUCH)
        self._lost_script = redis.register_script(_LOST)
        self._taken_script = redis.register_script(_TAKEN)
        self._hand_back_script = redis.register_script(_HAND_BACK)

    def run(self, *, judge: bool = True) -> None:
        """One round; raises redis errors as they come, the next round goes on.

        Args:
            judge: Whether jobs for which nobody vouched lately are lost by now.
        """
        if judge:
            self._push_lost()
        self._push_taken()
        if self._clock.monotonic() - self._trimmed >= REGISTRIES_S:
            self._trimmed = self._clock.monotonic()
            name = self._queue.name
            for registry in (FinishedJobRegistry, FailedJobRegistry):
                cast("Any", registry)(name, connection=self._redis).cleanup()
            clean_worker_registry(self._queue)

    def vouch(self, executions: Sequence[str], client: Any = None) -> None:
        """Say that jobs that we run are alive.

        Args:
            executions: RQ's composite keys ``job:execution``.
            client: A pipeline to do it in.
        """
        if executions:
            args = [int(LEASE_S), *executions]
            self._vouch_script(keys=[self._wip], args=args, client=client)

    def hand_back(self, job_id: str, execution: str) -> bool:
        """Give a job that we run back to the queue, unharmed.

        Args:
            job_id: The job.
            execution: RQ's composite key ``job:execution``.
        """
        keys = [self._wip, self._queue.key, self._taken, f"rq:job:{job_id}"]
        return bool(self._hand_back_script(keys=keys, args=[execution, job_id, HINT_TTL_S]))

    def put_back(self, job_id: str) -> None:
        """Return an id that we took and did not begin to the head of its queue.

        When Redis is lost the id stays where it is, and any worker finds it after ``TAKEN_S``.
        """
        keys = [self._queue.key, self._taken, f"rq:job:{job_id}"]
        with suppress(RedisError):
            self._taken_script(keys=keys, args=[job_id])

    def forget_taken(self, job_id: str) -> None:
        """Drop an id that we took and that has no job behind it."""
        self._redis.lrem(self._taken, 1, job_id)

    def put_aside(self, job_id: str, reason: str) -> None:
        """Take an id that we took out of the way for good, with the reason."""
        log.error("job put aside: %s", reason, extra={"job": job_id})
        key = f"rq:job:{job_id}"
        with self._redis.pipeline() as pipe:
            pipe.lrem(self._taken, 1, job_id)
            # Whatever stands there can't be read by RQ; it is kept for a person to look at.
            pipe.rename(key, f"{key}:unreadable")
            pipe.expire(f"{key}:unreadable", FAILURE_TTL_S)
            pipe.execute()

    def _push_lost(self) -> None:
        now = self._redis.time()[0]
        self._pull_in(now)
        for entry in self._redis.zrange(
            self._wip, "-inf", f"({now}", byscore=True, offset=0, num=_AT_ONCE
        ):
            execution = entry.decode(errors="replace")
            job_id = execution.partition(":")[0]
            keys = [self._wip, self._queue.key, self._taken, f"rq:job:{job_id}"]
            if self._redis.hget(keys[-1], "status") == b"started":
                # Told before anybody can take it again, who would know of one death too few.
                self._died(job_id, execution)
            args = [execution, job_id, now, HINT_TTL_S, FAILURE_TTL_S]
            did = self._lost_script(keys=keys, args=args)
            if did == 2:
                log.warning("lost job pushed again", extra={"job": job_id})
            elif did == 3:
                self._fail(job_id, "its worker died each time it was started")

    def _pull_in(self, now: int) -> None:
        """End leases that reach further ahead than any, once nobody vouched for them for a lease's time.

        RQ writes the first by the clock of the worker, and a Redis that took over may be behind.
        """
        seen_at = self._clock.monotonic()
        far = self._redis.zrange(
            self._wip, f"({now + 2 * int(LEASE_S)}", "+inf", byscore=True, offset=0, num=_AT_ONCE
        )
        self._far = {entry: self._far.get(entry, seen_at) for entry in far}
        for entry, since in self._far.items():
            if seen_at - since >= LEASE_S:
                self._redis.zadd(self._wip, {entry: now - 1}, xx=True, lt=True)

    def _push_taken(self) -> None:
        """Push ids again that have been taken for a while and are run by nobody."""
        now = self._clock.monotonic()
        waiting = {
            entry.decode(errors="replace") for entry in self._redis.lrange(self._taken, 0, -1)
        }
        if waiting:
            begun = {
                entry.decode(errors="replace").partition(":")[0]
                for entry in self._redis.zrange(self._wip, 0, -1)
            }
            # Taken and begun: whoever runs it removes it, or it is found when its lease ends.
            waiting -= begun
        self._seen = {job_id: self._seen.get(job_id, now) for job_id in waiting}
        for job_id, since in self._seen.items():
            if now - since >= TAKEN_S:
                keys = [self._queue.key, self._taken, f"rq:job:{job_id}"]
                if self._taken_script(keys=keys, args=[job_id]):
                    log.warning("job that nobody began pushed again", extra={"job": job_id})
