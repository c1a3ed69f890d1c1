"""``python -m bench.queue.rq_process``: RQ's own forking worker; what a job needs is imported before it forks."""

from redis import Redis
from rq import Queue, Worker

from bench.queue import unit

QUEUE = "symbols"


def queue() -> Queue:
    """The queue with RQ's defaults."""
    return Queue(QUEUE, connection=Redis.from_url(unit.redis_url()))


if __name__ == "__main__":
    made = queue()
    Worker([made], connection=made.connection).work(logging_level="WARNING")
