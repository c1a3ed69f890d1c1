"""``python -m scheduler``: one process of which any number may run; one of them leads."""

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from core.errors import GaplessError
from core.log import configure
from core.telemetry import Telemetry, TelemetryServer
from db.clock import connect_clock
from db.pool import Database
from scheduler.service import Means, Service
from scheduler.settings_file import SettingsFile

log = logging.getLogger(__name__)

_POLL_S = 0.1
"""Real seconds after which a signal is noticed at the latest."""
_CONNECTIONS = 6


class _Signals:
    """Notes signals; the main thread acts on them, never the handler."""

    def __init__(self, settings: SettingsFile) -> None:
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


def main(words: Sequence[str] | None = None) -> int:
    """Run until told to stop; 0 after SIGTERM, 1 when a part failed, 2 on bad settings."""
    parser = argparse.ArgumentParser(
        prog="python -m scheduler",
        description="Decides when: sweeps, gaps, backfill dispatch. One of several leads.",
    )
    parser.add_argument("--env-file", type=Path, help="settings file (default .env)")
    parser.add_argument("--port-file", type=Path, help="where to write the port of /metrics")
    options = parser.parse_args(words)
    try:
        return _run(options.env_file, options.port_file)
    except GaplessError as error:
        sys.stderr.write(f"scheduler: {error}\n")
        return 2


def _run(env_file: Path | None, port_file: Path | None) -> int:
    settings_file = SettingsFile(env_file)
    settings = settings_file.current()
    configure(settings.log_level)
    signals = _Signals(settings_file)
    signals.install()
    with ExitStack() as closing:
        clock = connect_clock(settings.database_url)
        db = Database(
            settings.database_url, clock, max_size=_CONNECTIONS, application="gapless scheduler"
        )
        closing.callback(db.close)
        redis = closing.enter_context(_redis(settings.redis_url))
        telemetry = Telemetry()
        service = Service(Means(db, redis, clock, settings_file, telemetry))
        if settings.metrics_enabled:
            server = TelemetryServer(telemetry, service.health, settings.metrics_port)
            closing.callback(server.close)
            if port_file is not None:
                server.write_port(port_file)
        service.start()
        while not signals.ending and not service.loop.stopping:
            clock.sleep(_POLL_S)
        service.stop()
        return _report(service.loop.failure)


def _report(failure: BaseException | None) -> int:
    if failure is None:
        return 0
    if isinstance(failure, GaplessError):
        log.error("scheduler ends", extra={"error": str(failure)})
        return 1
    raise failure


def _redis(url: str) -> Redis:
    # Pushing is idempotent by job id, so a lost reply may be asked for again at once.
    retry = Retry(ExponentialWithJitterBackoff(base=0.01, cap=0.2), 3)
    return Redis.from_url(  # pyright: ignore[reportUnknownMemberType] - redis leaves **kwargs untyped
        url, retry=retry, socket_timeout=2.0, socket_connect_timeout=2.0
    )


if __name__ == "__main__":
    sys.exit(main())
