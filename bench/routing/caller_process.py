"""``python -m bench.routing.caller_process``: a worker that asks as fast as its pace, and logs every call.

Its settings come from the environment, its task as JSON on stdin. A line of the log is
``<real time> <what> <source> [<more>]``, where what is one of
``s`` a call was routed, ``p`` it is a probe, ``e`` a probe ended, ``a`` answered, ``f`` failed with a
code, ``q`` a question was answered, ``x`` a question stayed unanswered, ``b`` ms that a look for a
source took.
"""

import json
import random
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import routing.router
from core.clock import Clock, real_timestamp
from core.errors import NoRouteError
from core.settings import Settings, load
from core.telemetry import Telemetry
from core.windows import Window, floor_to
from core.words import Capability, Interval, Share
from db.clock import connect_clock
from db.pool import Database
from routing.breaker import FleetBreaker
from routing.lease import Lease
from routing.pair import Pass
from routing.router import Router
from workers.asking import Asking
from workers.calls import CallPool
from workers.context import Context, Setup
from workers.questions import Answered, Question
from workers.queues import connect
from workers.reference import Reference
from workers.stopping import Stop
from workers.wiring import build_router

_LOOK_AGAIN_S = 0.02
_STEP = Interval.M1.delta


class Log:
    """Lines with their real time; whole when the process is killed, but for the last."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("a", buffering=1)

    def __call__(self, what: str, *words: object) -> None:
        self._file.write(f"{real_timestamp():.6f} {what} {' '.join(map(str, words))}\n")


class Heard:
    """The router's observer."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def selected(self, capability: Capability, source: str) -> None:
        del capability
        self._log("s", source)

    def answered(self, source: str, endpoint: str, latency_s: float) -> None:
        self._log("a", source, f"{latency_s:.4f}", endpoint)

    def failed(self, source: str, endpoint: str, code: str) -> None:
        self._log("f", source, code, endpoint)


def watch_probes(log: Log) -> None:
    """Log when a probe leaves and when it has come back."""

    class Watched(FleetBreaker):
        def claim(self) -> str:
            token = super().claim()
            if token:
                log("p", self.pair.source, token)
            return token

        def answered(
            self, call: Pass, latency_s: float, expected: int = 0, received: int = 0
        ) -> None:
            self._ended(call)
            super().answered(call, latency_s, expected, received)

        def failed(self, call: Pass, error: Any, latency_s: float) -> None:
            self._ended(call)
            super().failed(call, error, latency_s)

        def dropped(self, call: Pass) -> None:
            self._ended(call)
            super().dropped(call)

        def _ended(self, call: Pass) -> None:
            if call.probe:
                log("e", self.pair.source, call.probe)

    routing.router.FleetBreaker = Watched


def watch_waits(router: Router, log: Log) -> None:
    """Log how long each look for a source took, waiting for budget aside: it looks once."""
    clock, acquire = router.clock, router.acquire

    def timed(*words: Any, **named: Any) -> Lease:
        began = clock.monotonic()
        try:
            lease = acquire(*words, **{**named, "deadline": began})
        except NoRouteError:
            log("b", f"{1000 * (clock.monotonic() - began):.3f}")
            clock.sleep(max(0.0, min(_LOOK_AGAIN_S, named["deadline"] - began)))
            raise
        log("b", f"{1000 * (clock.monotonic() - began):.3f}")
        return lease

    router.acquire = timed


def main(task: Mapping[str, Any]) -> None:
    """Run one task."""
    settings = load(Path("/nonexistent/.env"))
    log = Log(Path(task["log"]))
    watch_probes(log)
    clock = connect_clock(settings.database_url)
    db = Database(settings.database_url, clock, max_size=4, application="bench-caller")
    router = build_router(settings, clock, db, observer=Heard(log))
    if task.get("waits"):
        watch_waits(router, log)
    context = Context(
        setup=Setup(settings, router),
        clock=clock,
        db=db,
        redis=connect(settings.redis_url),
        reference=Reference(db),
        calls=CallPool(int(task.get("threads", 16))),
        telemetry=Telemetry(),
        stop=Stop(clock),
    )
    log("r", "ready")
    ask = _Loop(context, settings, task, log)
    threads = [threading.Thread(target=ask.work, daemon=True) for _ in range(ask.loops)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    context.close()
    db.close()


class _Loop:
    """Batches of questions, one after the other, at a pace."""

    def __init__(
        self, context: Context, settings: Settings, task: Mapping[str, Any], log: Log
    ) -> None:
        self._context = context
        self._clock: Clock = context.clock
        self._settings = settings
        self._log = log
        self._end = Path(task["end"])
        self._batch = int(task.get("batch", 8))
        self._pause_s = self._batch / float(task["per_s"])
        self._names = list(task["symbols"])
        self._capability = Capability(task.get("capability", "bars_1m"))
        self._share = Share(task.get("share", "live"))
        self.loops = int(task.get("loops", 2))
        self._pause_s *= self.loops

    def work(self) -> None:
        due = self._clock.monotonic() + random.uniform(0, self._pause_s)
        while not self._end.exists():
            self._clock.sleep(max(0.0, due - self._clock.monotonic()))
            # Late is late: catching up would be a burst after each outage.
            due = max(due + self._pause_s, self._clock.monotonic())
            self._one()

    def _one(self) -> None:
        members = self._context.reference.resolve(random.sample(self._names, self._batch))
        asking = Asking(
            self._context,
            self._capability,
            share=self._share,
            deadline=self._clock.monotonic() + 12,
            patience_s=4.0,
        )
        asking.add(Question(member, self._window()) for member in members.values())
        for results in asking.results():
            for result in results:
                if isinstance(result, Answered):
                    self._log("q", result.source)
                elif not asking.again(result):
                    self._log("x", result.source or "-", result.error.code)

    def _window(self) -> Window | None:
        if self._capability.interval is None:
            return None
        end = floor_to(self._clock.now(), _STEP)
        return Window(end - 5 * _STEP, end)


if __name__ == "__main__":
    main(json.loads(sys.stdin.read()))
