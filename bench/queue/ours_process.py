"""``python -m bench.queue.ours_process SLOTS BATCHES``: a collector's worker and pool around the unit.

The queue, the worker, the batches, the pool and its hand-out are those of ``python -m workers collect``;
routing, parsing and writing are left out, since no peer does them here.
"""

import signal
import sys
from functools import partial

from bench.queue.batch import fetch_batch
from bench.queue.unit import redis_url
from core.clock import SystemClock
from core.words import Tier
from workers.calls import CallPool
from workers.queues import COLLECT_FUNCTION, collect_queue, connect
from workers.stopping import Stop
from workers.worker import BatchWorker


def main(slots: int, batches: int) -> None:
    """Work until asked to stop."""
    clock = SystemClock()
    stop = Stop(clock)
    signal.signal(signal.SIGTERM, lambda *_: stop.request())
    calls = CallPool(slots)
    work = partial(fetch_batch, calls)
    redis = connect(redis_url())
    queue = collect_queue(Tier.T0)
    BatchWorker(queue, {COLLECT_FUNCTION: work}, redis, clock, stop, slots=batches).run()
    calls.close()
    redis.close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
