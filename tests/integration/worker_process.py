"""A queue worker in a process of its own whose batches do what their symbols say.

``python worker_process.py REDIS_URL QUEUE [WRONG]``: its clock is wrong by so many seconds. Each
batch first pushes its id on ``begun``; symbol ``SLEEP:s`` then sleeps, ``UNTIL:key`` waits for a key,
``FREEZE`` never lets go of the interpreter, and at the end the id goes on ``done``. FROZEN_S in the
environment is how long it may be frozen.
"""

import os
import re
import signal
import sys
from functools import partial
from typing import Any, cast

import rq.registry
from redis import Redis

from core.clock import SystemClock
from core.log import configure
from workers import watch
from workers import worker as worker_module
from workers.queues import COLLECT_FUNCTION, CollectJob, connect
from workers.stopping import HandedBackError, Stop
from workers.worker import BatchWorker


def batch(redis: Redis, clock: SystemClock, stop: Stop, payload: object) -> dict[str, int]:
    job = CollectJob.from_wire(payload)
    redis.rpush("begun", job.id)
    for symbol in job.symbols:
        verb, _, value = symbol.partition(":")
        if verb == "SLEEP":
            clock.sleep(float(value))
        while verb in ("UNTIL", "PATIENT") and not redis.exists(value):
            if verb == "PATIENT" and stop.finish_now:
                raise HandedBackError("asked to stop")
            clock.sleep(0.01)
        if verb == "FREEZE":
            re.match(r"(a+)+$", "a" * 60 + "b")
        if verb == "BUG":
            raise RuntimeError("a bug")
    redis.rpush("done", job.id)
    return {"asked": len(job.symbols)}


def main() -> int:
    url, queue, *wrong_by = sys.argv[1:4]
    if wrong_by:
        registry = cast("Any", rq.registry)
        right = registry.current_timestamp
        registry.current_timestamp = lambda: right() + int(wrong_by[0])
    configure("INFO")
    if "FROZEN_S" in os.environ:
        watch.FROZEN_S = float(os.environ["FROZEN_S"])
        worker_module.WOUND_EVERY_S = 0.5
    clock = SystemClock()
    stop = Stop(clock, finish_s=0.3, grace_s=1.5)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.request())
    redis = connect(url)
    functions = {COLLECT_FUNCTION: partial(batch, redis, clock, stop)}
    worker = BatchWorker(queue, functions, redis, clock, stop, slots=4, overrun_s=1.0)
    redis.set("ready", 1)
    return 0 if worker.run() else 7


if __name__ == "__main__":
    sys.exit(main())
