"""``python -m workers collect --tier T0 | backfill --tier T0 | intake``: one worker process.

Exit codes: 0 stopped as asked, 2 it can't run as it is set. A server that is away is waited for.
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.clock import SystemClock
from core.errors import GaplessError, QueueError
from core.garbage import settle
from core.log import configure, mask
from core.words import Tier
from db.live_settings import LiveSettings
from workers.stopping import Stop

if TYPE_CHECKING:
    from core.telemetry import Telemetry
    from workers.wiring import Base

log = logging.getLogger("workers")

_BACKOFF_MAX_S = 5.0


@dataclass(frozen=True, slots=True)
class _Process:
    """What this process does, ready to run."""

    run: Callable[[], bool]
    """Works until asked to stop; False when threads still hang."""
    health: Callable[[], tuple[bool, dict[str, object]]]
    close: Callable[[], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one worker process until it is asked to stop."""
    options = _parser().parse_args(arguments)
    try:
        kind = "-".join(filter(None, ("gapless", options.kind, getattr(options, "tier", None))))
        live = LiveSettings(application=kind)
        configure(live.current().log_level)
        return _run(options, live, kind)
    except GaplessError as error:
        sys.stderr.write(f"workers: {mask(str(error))}\n")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workers", description="One worker process.")
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    for kind, about in (
        ("collect", "live bars and quotes of one tier"),
        ("backfill", "missing bars of one tier"),
        ("intake", "the external coordinator's lists"),
    ):
        words = kinds.add_parser(kind, help=about, description=about.capitalize() + ".")
        if kind != "intake":
            words.add_argument("--tier", type=Tier, choices=list(Tier), required=True)
        words.add_argument("--burst", action="store_true", help="end when there is no work left")
        words.add_argument("--port-file", type=Path, help="write the metrics port to this file")
    return parser


def _run(options: argparse.Namespace, live: LiveSettings, kind: str) -> int:
    # Slow to import, so only after the arguments were understood.
    from core.telemetry import Telemetry, TelemetryServer  # noqa: PLC0415

    stop, settings = Stop(SystemClock()), live.current()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.request())
    telemetry = Telemetry()
    parts: list[_Process] = []

    def health() -> tuple[bool, dict[str, object]]:
        return parts[0].health() if parts else (True, {"state": "waiting for its servers"})

    server = None
    if settings.metrics_enabled:
        server = TelemetryServer(telemetry, health, settings.metrics_port)
        if options.port_file is not None:
            server.write_port(options.port_file)
    process = _patiently(lambda: _prepare(options, live, kind, telemetry, stop), stop)
    clean = True
    if process is not None:
        parts.append(process)
        log.info("ready", extra={"kind": options.kind, "tier": getattr(options, "tier", "")})
        settle()
        clean = process.run()
        if clean:
            process.close()
    if server is not None:
        server.close()
    log.info("stopped", extra={"kind": options.kind, "clean": clean})
    if not clean:
        # Threads hang in a call. Their jobs were handed back, so nothing is lost by leaving them.
        logging.shutdown()
        os._exit(0)
    return 0


def _prepare(
    options: argparse.Namespace,
    live: LiveSettings,
    kind: str,
    telemetry: "Telemetry",
    stop: Stop,
) -> _Process:
    """Connect and build; whatever was opened is closed again when a later step fails."""
    from redis.exceptions import RedisError  # noqa: PLC0415

    from workers.wiring import open_base  # noqa: PLC0415

    tier: Tier | None = getattr(options, "tier", None)
    base = open_base(live, kind)
    try:
        if tier is None:
            return _prepare_intake(options, base, telemetry, stop)
        return _prepare_worker(options, base, tier, telemetry, stop)
    except RedisError as error:
        base.close()
        raise QueueError(f"Redis was lost: {error}") from error
    except GaplessError:
        base.close()
        raise


def _prepare_worker(
    options: argparse.Namespace, base: "Base", tier: Tier, telemetry: "Telemetry", stop: Stop
) -> _Process:
    from workers.jobs import functions, on_death  # noqa: PLC0415
    from workers.queues import backfill_queue, collect_queue  # noqa: PLC0415
    from workers.wiring import worker_context  # noqa: PLC0415
    from workers.worker import BatchWorker  # noqa: PLC0415

    context = worker_context(base, telemetry, stop)
    queue = collect_queue(tier) if options.kind == "collect" else backfill_queue(tier)
    worker = BatchWorker(
        queue,
        functions(context),
        base.redis,
        base.clock,
        stop,
        slots=base.settings.worker_batches,
        on_death=on_death(context),
    )

    def close() -> None:
        context.close()
        base.close()

    return _Process(lambda: worker.run(burst=options.burst), worker.health, close)


def _prepare_intake(
    options: argparse.Namespace, base: "Base", telemetry: "Telemetry", stop: Stop
) -> _Process:
    from workers.wiring import build_intake  # noqa: PLC0415

    if not base.settings.use_rlc:
        base.upkeep.start()
        return _Process(
            lambda: _idle(options, stop), lambda: (True, {"intake": "USE_RLC is false"}), base.close
        )
    intake = build_intake(base, telemetry, stop)

    def run() -> bool:
        intake.run(burst=options.burst)
        return True

    return _Process(run, intake.health, base.close)


def _idle(options: argparse.Namespace, stop: Stop) -> bool:
    """Stay without work: a supervisor would start a process that ends again and again."""
    log.warning("USE_RLC is false: the coordinator's lists are left alone")
    while not options.burst and not stop.wait(60.0):
        pass
    return True


def _patiently(prepare: Callable[[], _Process], stop: Stop) -> _Process | None:
    """Prepare, again while a server is away; None when asked to stop before it came.

    Raises:
        GaplessError: waiting can't help.
    """
    backoff, said = 0.2, ""
    while not stop.requested:
        try:
            return prepare()
        except GaplessError as error:
            if not error.retryable:
                raise
            if str(error) != said:
                said = str(error)
                log.warning("waiting: %s", error)
        stop.wait(backoff)
        backoff = min(backoff * 2, _BACKOFF_MAX_S)
    return None


if __name__ == "__main__":
    sys.exit(main())
