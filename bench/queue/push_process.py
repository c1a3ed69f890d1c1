"""``python -m bench.queue.push_process SYSTEM COUNT``: fills a system's queue by the system's own push."""

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from bench.queue.unit import fetch, redis_url

BATCH = 100
"""Symbols of one of our jobs: the default of LIVE_BATCH_SIZE."""


def _ours(symbols: Sequence[str]) -> None:
    from core.clock import SystemClock  # noqa: PLC0415 - each system loads its own only
    from core.words import Tier  # noqa: PLC0415
    from workers.queues import CollectJob, Kind, connect, enqueue_collect  # noqa: PLC0415

    now = SystemClock().now()
    jobs = [
        CollectJob(
            kind=Kind.QUOTES_L1,
            tier=Tier.T0,
            slot=now,
            symbols=tuple(symbols[start : start + BATCH]),
            not_after=now + timedelta(hours=1),
            part=start,
        )
        for start in range(0, len(symbols), BATCH)
    ]
    enqueue_collect(connect(redis_url()), jobs)


def _rq(symbols: Sequence[str]) -> None:
    from bench.queue.rq_process import queue  # noqa: PLC0415

    made = queue()
    for symbol in symbols:
        made.enqueue(fetch, symbol)


def _celery(symbols: Sequence[str]) -> None:
    from bench.queue.celery_app import app, fetch_symbol  # noqa: PLC0415

    # Celery's decorator is untyped: what it returns is a task.
    task: Any = fetch_symbol
    with app.producer_pool.acquire(block=True) as producer:
        for symbol in symbols:
            task.apply_async((symbol,), producer=producer)


def _dramatiq(symbols: Sequence[str]) -> None:
    from bench.queue.dramatiq_app import fetch_symbol  # noqa: PLC0415

    for symbol in symbols:
        fetch_symbol.send(symbol)


_PUSHES: Mapping[str, Callable[[Sequence[str]], None]] = {
    "ours": _ours,
    "rq": _rq,
    "celery": _celery,
    "dramatiq": _dramatiq,
}


def main(system: str, count: int) -> None:
    """Push so many symbols, each with a name of its own."""
    _PUSHES[system]([f"S{number}" for number in range(count)])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
