"""The scheduler process put together: what runs, in which mode, and how it ends."""

import logging
import os
import socket
import uuid
from dataclasses import dataclass

from redis import Redis

from core.errors import StorageError
from core.settings import Settings
from core.telemetry import Telemetry
from db.live_settings import LiveSettings
from db.pool import Database
from scheduler import facts
from scheduler.dispatch import Dispatch
from scheduler.gap_pass import GapPass
from scheduler.housekeeping import Housekeeping
from scheduler.leader import Leader
from scheduler.loop import Loop, Part
from scheduler.planning import Planning
from scheduler.sweep import Sweep

log = logging.getLogger(__name__)

_SWEEP_END_S = 0.4
_REST_END_S = 3.0


@dataclass(frozen=True, slots=True)
class Means:
    """What a scheduler works with."""

    db: Database
    redis: Redis
    settings: LiveSettings
    telemetry: Telemetry


class Service:
    """Leader's lease, sweep, gap pass, dispatch and housekeeping, each in its thread."""

    def __init__(self, means: Means) -> None:
        self._clock = means.db.clock
        _say_mode(means.settings.current())
        self.leader = Leader(means.db, _holder(), changed=self._leadership_changed)
        self.planning = Planning(means.db, means.settings)
        telemetry, db = means.telemetry, means.db
        dispatch = Dispatch(db, means.redis, self.leader, means.settings, telemetry)
        sweep = Sweep(db, means.redis, self.leader, self.planning, means.settings, telemetry)
        gap_pass = GapPass(db, self.leader, self.planning, means.settings, telemetry)
        keeping = Housekeeping(db, self.leader, self.planning, means.settings, telemetry)
        self._parts = [
            Part("lease", self.leader.step),
            Part("housekeeping", keeping.step),
            Part("sweep", sweep.step),
            Part("gaps", gap_pass.step),
            Part("dispatch", dispatch.step),
        ]
        self.loop = Loop(self._parts, db.clock)

    def start(self) -> None:
        """Start every part; it sweeps once it leads and knows the universe."""
        self.loop.start()

    def stop(self) -> None:
        """End in order: no new slot, the lease given back, then the rest; a second or two at most."""
        self.loop.stop()
        self.loop.join(["sweep", "lease"], _SWEEP_END_S)
        try:
            self.leader.resign()
        except StorageError as error:
            log.warning("lease left to run out", extra={"error": str(error)})
        self.loop.join([part.name for part in self._parts], _REST_END_S)

    def watch(self) -> None:
        """End the process's work when a part hangs that others would do in its place.

        Its lease would be renewed for ever, and no other scheduler could lead.
        """
        hanging = self.loop.hanging(["lease", "sweep", "dispatch"], facts.HANGS_AFTER_S)
        if hanging:
            words = f"{', '.join(hanging)} hung for more than {facts.HANGS_AFTER_S:g} s"
            self.loop.end(StorageError(f"{words}; the process ends, so that another leads"))

    def health(self) -> tuple[bool, dict[str, object]]:
        """Whether every part gets on, and what the reader of ``/healthz`` wants to know."""
        troubled = self.loop.troubled()
        plan = self.planning.current()
        state: dict[str, object] = {
            "leading": self.leader.token() is not None,
            "symbols": 0 if plan is None else len(plan.members),
            "market_time": self._clock.now().isoformat(),
            "troubled": troubled,
        }
        return not troubled and not self.loop.stopping, state

    def _leadership_changed(self) -> None:
        for part in self._parts:
            part.wake.set()


def _holder() -> str:
    # Unique per process: a restarted one is another holder, whatever its pid.
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


def _say_mode(settings: Settings) -> None:
    modes = {
        (False, True): "sweep",
        (True, False): "coordinator",
        (True, True): "sweep and coordinator",
        (False, False): "backfill only",
    }
    mode = modes[settings.use_rlc, settings.local_sweep_enabled]
    log.info("scheduler starts", extra={"mode": mode})
    if mode == "backfill only":
        log.warning(
            "nothing makes live jobs: USE_RLC and LOCAL_SWEEP_ENABLED are both false; "
            "only backfill and gaps run. Set one of them to true"
        )
