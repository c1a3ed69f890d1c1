"""Finds jobs that stand nowhere: waiting or started by their own word, in no list, run by nobody.

Every step of ours and of RQ's is atomic, so this takes a Redis that lost a part of itself, such as an
append-only file cut short, or somebody's hand. It costs a walk over all keys of the server, so one
worker of a queue does it at a time.

Keys, per queue Q: as in ``recovery``, and ``gapless:orphans:Q`` the turn of whoever looks.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final, cast

from redis import Redis

from workers.queues import FAILURE_TTL_S, HINT_TTL_S, RESULT_TTL_S

log = logging.getLogger(__name__)

TURN_S: Final = 25
"""Real seconds for which nobody else looks."""
_AT_ONCE = 5_000
_OURS = "rq:[jw]o*"
"""Hashes of jobs and of workers, in one walk."""

_ADOPT = """
-- KEYS: 1 = rq:wip:Q, 2 = rq:queue:Q, 3 = rq:queue:Q:intermediate, 4 = rq:job:<id>
-- ARGV: 1 = job id, 2 = seconds until an untaken job is forgotten, 3 = seconds for which one put aside is
-- kept, 4 = seconds for which the rest of a job is kept
-- Answers 0 it is no orphan, 1 nothing of it can be run, 2 pushed again, 3 out of retries.
local status = redis.call('HGET', KEYS[4], 'status')
if status ~= 'queued' and status ~= 'started' then return 0 end
if redis.call('LPOS', KEYS[2], ARGV[1]) or redis.call('LPOS', KEYS[3], ARGV[1]) then return 0 end
local mine = ARGV[1] .. ':'
for _, entry in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if string.sub(entry, 1, #mine) == mine then return 0 end
end
if redis.call('HEXISTS', KEYS[4], 'data') == 0 then
  redis.call('EXPIRE', KEYS[4], ARGV[4])
  return 1
end
if status == 'started' then
  local left = tonumber(redis.call('HGET', KEYS[4], 'retries_left') or '0') or 0
  if left < 1 then
    redis.call('EXPIRE', KEYS[4], ARGV[3])
    return 3
  end
  redis.call('HSET', KEYS[4], 'retries_left', left - 1, 'status', 'queued')
end
redis.call('EXPIRE', KEYS[4], ARGV[2])
redis.call('RPUSH', KEYS[2], ARGV[1])
return 2
"""


class Orphans:
    """The look at one queue."""

    def __init__(self, queue: str, redis: Redis, fail: Callable[[str, str], None]) -> None:
        """Prepare.

        Args:
            queue: Name of the queue, such as ``collect:T0``.
            redis: A client with bytes replies.
            fail: Puts a job (id, reason) aside that died as often as it may.
        """
        self._redis = cast("Any", redis)
        self._fail = fail
        kind, _, tier = queue.partition(":")
        self._jobs = f"rq:job:c-*-{tier}-*" if kind == "collect" else f"rq:job:b-{tier}-*"
        self._workers = f"rq:worker:{queue.replace(':', '-')}-*"
        self._turn = f"gapless:orphans:{queue}"
        self._lists = (f"rq:wip:{queue}", f"rq:queue:{queue}", f"rq:queue:{queue}:intermediate")
        self._adopt = redis.register_script(_ADOPT)

    def run(self) -> None:
        """Look once, unless somebody did lately; raises redis errors as they come."""
        if not self._redis.set(self._turn, "1", nx=True, ex=TURN_S):
            return
        # The jobs first: one that is pushed after this look stands in the lists.
        said: set[str] = set()
        for keys in self._walk():
            said.update(self._unfinished([key for key in keys if fnmatchcase(key, self._jobs)]))
            self._mark_worn_out([key for key in keys if fnmatchcase(key, self._workers)])
        for job_id in sorted(said - self._listed()):
            did = self._adopt(
                keys=[*self._lists, f"rq:job:{job_id}"],
                args=[job_id, HINT_TTL_S, FAILURE_TTL_S, RESULT_TTL_S],
            )
            if did == 2:
                log.warning("job that stood in no list pushed again", extra={"job": job_id})
            elif did == 3:
                self._fail(job_id, "it was started and stood in no list each time")

    def _unfinished(self, keys: Sequence[str]) -> Iterator[str]:
        """Ids of those of our jobs that wait or run by their own word."""
        with self._redis.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hget(key, "status")
            replies = pipe.execute(raise_on_error=False)
        for key, status in zip(keys, replies, strict=True):
            if status in (b"queued", b"started"):
                yield key.removeprefix("rq:job:")

    def _listed(self) -> set[str]:
        wip, queue, taken = self._lists
        with self._redis.pipeline() as pipe:
            pipe.zrange(wip, 0, -1)
            pipe.lrange(queue, 0, -1)
            pipe.lrange(taken, 0, -1)
            running, *waiting = pipe.execute()
        found = {entry.decode(errors="replace").partition(":")[0] for entry in running}
        return found.union(*({e.decode(errors="replace") for e in ids} for ids in waiting))

    def _mark_worn_out(self, keys: Sequence[str]) -> None:
        """Let what a worker wrote of itself after a flush end by itself; the living renew theirs."""
        for key in keys:
            if self._redis.ttl(key) == -1:
                self._redis.expire(key, RESULT_TTL_S)

    def _walk(self) -> Iterator[list[str]]:
        cursor = 0
        while True:
            cursor, keys = self._redis.scan(cursor, match=_OURS, count=_AT_ONCE)
            yield [key.decode(errors="replace") for key in keys]
            if cursor == 0:
                return
