"""``python -m scheduler``: one process of which any number may run; one of them leads.

Exit codes: 0 stopped as asked, 1 a part failed, 2 it can't run as it is set. A server that is away
is waited for.
"""

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from core.clock import SystemClock
from core.errors import GaplessError
from core.garbage import settle
from core.log import configure, mask
from core.telemetry import Telemetry, TelemetryServer
from db.clock import connect_clock
from db.live_settings import LiveSettings
from db.pool import Database
from scheduler.service import Means, Service
from workers.queues import connect

log = logging.getLogger(__name__)

_POLL_S = 0.1
"""Real seconds after which a signal is noticed at the latest."""
_CONNECTIONS = 6
_BACKOFF_MAX_S = 5.0


class _Signals:
    """Notes signals; the main thread acts on them, never the handler."""

    def __init__(self, settings: LiveSettings) -> None:
        self.ending = False
        self._settings = settings

    def install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        signal.signal(signal.SIGHUP, self._reload)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self.ending = True

    def _reload(self, _number: int, _frame: FrameType | None) -> None:
        self._settings.ask()


class _Status:
    """Health of the process before and after its service is there."""

    def __init__(self) -> None:
        self.service: Service | None = None

    def health(self) -> tuple[bool, dict[str, object]]:
        if self.service is None:
            return True, {"state": "waiting for its servers"}
        return self.service.health()


def main(words: Sequence[str] | None = None) -> int:
    """Run until told to stop."""
    parser = argparse.ArgumentParser(
        prog="python -m scheduler",
        description="Decides when: sweeps, gaps, backfill dispatch. One of several leads.",
    )
    parser.add_argument("--env-file", type=Path, help="settings file (default .env)")
    parser.add_argument("--port-file", type=Path, help="write the metrics port to this file")
    options = parser.parse_args(words)
    try:
        return _run(options.env_file, options.port_file)
    except GaplessError as error:
        sys.stderr.write(f"scheduler: {mask(str(error))}\n")
        return 2


def _run(env_file: Path | None, port_file: Path | None) -> int:
    live = LiveSettings(env_file, application="gapless-scheduler")
    settings = live.current()
    configure(settings.log_level)
    signals = _Signals(live)
    signals.install()
    telemetry, status = Telemetry(), _Status()
    with ExitStack() as closing:
        if settings.metrics_enabled:
            server = TelemetryServer(telemetry, status.health, settings.metrics_port)
            closing.callback(server.close)
            if port_file is not None:
                server.write_port(port_file)
        db = _connect(settings.database_url, signals)
        if db is None:
            return 0
        closing.callback(db.close)
        redis = connect(settings.redis_url)
        closing.callback(redis.close)
        service = status.service = Service(Means(db, redis, live, telemetry))
        service.start()
        settle()
        while not signals.ending and not service.loop.stopping:
            db.clock.sleep(_POLL_S)
            service.watch()
        service.stop()
        return _report(service.loop.failure)


def _connect(url: str, signals: _Signals) -> Database | None:
    """The database, waited for while it is away; None when told to stop before it came.

    Raises:
        GaplessError: waiting can't help.
    """
    clock, pause, said = SystemClock(), 0.2, ""
    while not signals.ending:
        try:
            return Database(
                url,
                connect_clock(url),
                max_size=_CONNECTIONS,
                application="gapless-scheduler",
            )
        except GaplessError as error:
            if not error.retryable:
                raise
            if str(error) != said:
                said = str(error)
                log.warning("waiting", extra={"error": said})
        until = clock.monotonic() + pause
        while not signals.ending and clock.monotonic() < until:
            clock.sleep(_POLL_S)
        pause = min(pause * 2, _BACKOFF_MAX_S)
    return None


def _report(failure: BaseException | None) -> int:
    if failure is None:
        return 0
    if isinstance(failure, GaplessError):
        log.error("scheduler ends", extra={"error": str(failure)})
        return 1
    raise failure


if __name__ == "__main__":
    sys.exit(main())
