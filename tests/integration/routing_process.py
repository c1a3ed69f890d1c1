"""A worker of nothing but calls: what the budget tests start several of.

Takes one JSON object as its argument, prints a line with the real time of every call's arrival.
"""

import json
import random
import sys
import threading
import time
from contextlib import closing
from typing import Any

from core.clock import Clock, ReplayClock, Segment, SystemClock
from core.errors import NoRouteError, ProviderUnavailableError
from core.words import Share
from db.budgets import LongWindowLedger
from db.pool import Database
from providers.base import Limit
from routing.router import Router
from tests.routing_parts import BARS, limit, router, source


class SteppedClock(SystemClock):
    """The clock of a machine whose time is set wrong by turns."""

    def timestamp(self) -> float:
        return time.time() + (30 if int(time.time()) % 2 else -30)


def clock_of(wish: dict[str, Any]) -> Clock:
    if wish.get("speed", 1) != 1:
        return ReplayClock([Segment(wish["anchor"], 1.7e9, wish["speed"])])
    return SteppedClock() if wish.get("stepped") else SystemClock()


def call(built: Router, clock: Clock, wish: dict[str, Any], end: float) -> None:
    """Call until the end; every call arrives a little after it left."""
    while (now := clock.monotonic()) < end:
        try:
            lease = built.acquire(BARS, share=Share(wish["share"]), deadline=min(end, now + 0.5))
        except NoRouteError:
            clock.sleep(0.005)
            continue
        if not lease.fresh():
            lease.release()
            continue
        if wish.get("down"):
            sys.stdout.write(f"{time.time()!r} {int(lease.probe)}\n")
            clock.sleep(0.05)
            lease.failed(ProviderUnavailableError("refused"), 0.05, endpoint="x")
            continue
        left = clock.monotonic()
        clock.sleep(random.uniform(0, 0.03))
        sys.stdout.write(f"{time.time()!r}\n")
        lease.answered(clock.monotonic() - left, endpoint="x")
        clock.sleep(wish.get("pause", 0.0))


def main(wish: dict[str, Any]) -> None:
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    clock = clock_of(wish)
    limits: list[Limit] = [limit(units, window_s) for units, window_s in wish["limits"]]
    database = Database(wish["database"], clock, max_size=4) if "database" in wish else None
    ledger = LongWindowLedger(database) if database else None
    built = router(wish["redis"], clock, [source("a", *limits)], long_windows=ledger)
    with closing(built):
        end = clock.monotonic() + wish["seconds"]
        threads = [
            threading.Thread(target=call, args=(built, clock, wish, end))
            for _ in range(wish.get("threads", 4))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if database:
        database.close()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
