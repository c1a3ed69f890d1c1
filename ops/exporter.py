"""The exporter: what belongs to no single process, read from PostgreSQL and Redis every few seconds."""

import logging
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from redis import Redis

from core import metrics
from core.clock import Clock, SystemClock
from core.errors import GaplessError
from core.garbage import settle
from core.settings import Settings
from core.telemetry import Telemetry, TelemetryServer
from core.words import Interval
from db import backfill, overview
from db.clock import connect_clock
from db.live_settings import POLL_S, LiveSettings
from db.pool import Database
from ops.connect import redis_client
from routing.router import Router
from workers.queues import depths
from workers.wiring import build_router

log = logging.getLogger(__name__)

_EVERY_S = 5.0
_STALE_S = 30.0
_RETRY_S = 0.5


class Exporter:
    """Refreshes the fleet's gauges; healthy while the last refresh is young."""

    def __init__(self, live: LiveSettings, telemetry: Telemetry) -> None:
        """Connect.

        Raises:
            StorageError: the database can't be used; not retryable where its clock is another one.
            QueueError: Redis can't be reached.
        """
        config = live.current()
        self._live = live
        self._telemetry = telemetry
        self.clock: Clock = connect_clock(config.database_url)
        self._redis: Redis = redis_client(config.redis_url)
        self._db = Database(
            config.database_url, self.clock, max_size=2, application="gapless-exporter"
        )
        try:
            live.refresh(self._db)
            self._router: Router = build_router(live.current(), self.clock, self._db)
        except GaplessError:
            self.close()
            raise
        self._refreshed_at = self.clock.monotonic()

    def health(self) -> tuple[bool, dict[str, object]]:
        """For ``/healthz``."""
        age = self.clock.monotonic() - self._refreshed_at
        return age < _STALE_S, {"refreshed_s_ago": round(age, 1)}

    def follow_settings(self) -> None:
        """Show the sources and policies of the settings in force."""

        def turn(settings: Settings) -> None:
            old, self._router = self._router, build_router(settings, self.clock, self._db)
            old.close()

        self._live.refresh(self._db, turn)

    def refresh(self) -> None:
        """Read everything once."""
        tell = self._telemetry.set
        waiting = backfill.depth(self._db)
        tell(metrics.BACKFILL_DEPTH, sum(rows for rows, _age in waiting.values()))
        tell(
            metrics.BACKFILL_OLDEST,
            max((age or 0.0 for _rows, age in waiting.values()), default=0.0),
        )
        with self._db.transaction() as conn:
            tiers = overview.freshness(conn)
        answered = [row["median_answered"] for row in tiers if row["median_answered"] is not None]
        if answered:
            lag = self.clock.timestamp() - max(answered).timestamp()
            tell(metrics.INGESTION_LAG, lag, Interval.M1)
        for queue, jobs in depths(self._redis).items():
            tell(metrics.QUEUE_DEPTH, jobs, queue)
        worst: dict[str, float] = {}
        for status in self._router.status():
            if status.health is not None:
                tell(metrics.PROVIDER_HEALTH, status.health, status.source, status.capability)
            worst[status.source] = min(worst.get(status.source, 1.0), status.circuit)
        for source, state in worst.items():
            tell(metrics.CIRCUIT_STATE, state, source)
        self._refreshed_at = self.clock.monotonic()

    def close(self) -> None:
        """Let go of the connections."""
        self._db.close()
        self._redis.close()


def export(live: LiveSettings, port_file: Path | None) -> int:
    """Run until SIGTERM or Ctrl-C."""
    stopping = False

    def stop(_signum: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    telemetry = Telemetry()
    running: list[Exporter] = []

    def health() -> tuple[bool, dict[str, object]]:
        return running[0].health() if running else (True, {"state": "waiting for its servers"})

    server = TelemetryServer(telemetry, health, live.current().metrics_port)
    if port_file is not None:
        server.write_port(port_file)
    exporter = _patiently(lambda: Exporter(live, telemetry), lambda: stopping)
    if exporter is None:
        server.close()
        return 0
    running.append(exporter)
    clock = exporter.clock
    next_at = look_at = 0.0
    settle()
    while not stopping:
        if clock.monotonic() >= look_at:
            look_at = clock.monotonic() + POLL_S
            try:
                exporter.follow_settings()
            except GaplessError as error:
                log.debug("settings: %s", error)
        if clock.monotonic() >= next_at:
            next_at = clock.monotonic() + _EVERY_S
            try:
                exporter.refresh()
            except GaplessError as error:
                # The next round tries again; /healthz turns red when it lasts.
                log.warning("refresh failed", extra={"reason": str(error)})
        clock.sleep(0.1)
    server.close()
    exporter.close()
    return 0


def _patiently(build: Callable[[], Exporter], stopping: Callable[[], bool]) -> Exporter | None:
    """Build, again while a server is away; None when asked to stop before it came.

    Raises:
        GaplessError: waiting can't help.
    """
    clock, said = SystemClock(), ""
    while not stopping():
        try:
            return build()
        except GaplessError as error:
            if not error.retryable:
                raise
            if str(error) != said:
                said = str(error)
                log.warning("waiting", extra={"error": said})
        clock.sleep(_RETRY_S)
    return None
