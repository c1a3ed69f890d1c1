"""``python -m bench.routing.spender_process``: spends the budgets of several sources as fast as they come.

Its settings come from the environment, its task as JSON on stdin. A line of its log is
``<real time> b <source> <ms>`` for a look that was granted, with how long it took, ``l <source> <code>``
for a call that failed, ``c clock <seconds>`` for how wrong its wall clock is.
"""

import itertools
import json
import sys
import threading
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.routing.caller_process import Log
from core.clock import Clock, SystemClock, real_timestamp
from core.errors import NoRouteError, ProviderError
from core.settings import load
from core.words import Capability, Share
from db.pool import Database
from providers.base import Request
from routing.router import Router
from workers.wiring import build_router

_STEP_S = 30.0
_NO_ROUTE_S = 0.01


class SteppedClock(SystemClock):
    """The clock of a machine that somebody sets wrong by turns, 30 s either way."""

    def timestamp(self) -> float:
        real = real_timestamp()
        return real + (_STEP_S if int(real / 2) % 2 else -_STEP_S)


def main(task: Mapping[str, Any]) -> None:
    """Spend until told to end."""
    settings = load(Path("/nonexistent/.env"))
    log = Log(Path(task["log"]))
    clock: Clock = SteppedClock() if task.get("stepped") else SystemClock()
    db = Database(settings.database_url, clock, max_size=4, application="bench-spender")
    with closing(db), closing(build_router(settings, clock, db)) as router:
        log("r", "ready")
        threads = [
            threading.Thread(
                target=_spend, args=(router, clock, source, Share(share), task, log), daemon=True
            )
            for source, shares in task["sources"].items()
            for share, count in shares.items()
            for _ in range(count)
        ]
        for thread in threads:
            thread.start()
        end = Path(task["end"])
        while not end.exists():
            log("c", "clock", f"{clock.timestamp() - real_timestamp():.1f}")
            clock.sleep(1.0)
        for thread in threads:
            thread.join()


def _spend(
    router: Router, clock: Clock, source: str, share: Share, task: Mapping[str, Any], log: Log
) -> None:
    end, capability = Path(task["end"]), Capability.QUOTES_L1
    names = itertools.cycle(task["symbols"])
    while not end.exists():
        began = clock.monotonic()
        try:
            lease = router.acquire(capability, share=share, pinned=source, deadline=began)
        except NoRouteError:
            clock.sleep(_NO_ROUTE_S)
            continue
        took_ms = 1000 * (clock.monotonic() - began)
        call = lease.provider.plan(Request(capability, (next(names),), None))[0]
        if not lease.fresh():
            lease.release()
            continue
        sent = clock.monotonic()
        try:
            raw = lease.provider.send(call, 3.0)
            lease.provider.parse(call, raw, None)
        except ProviderError as error:
            lease.failed(error, clock.monotonic() - sent, endpoint=call.endpoint)
            log("l", source, error.code)
            continue
        lease.answered(clock.monotonic() - sent, endpoint=call.endpoint, headers=raw.headers)
        log("b", source, f"{took_ms:.3f}")


if __name__ == "__main__":
    main(json.loads(sys.stdin.read()))
