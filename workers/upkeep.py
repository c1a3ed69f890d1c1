"""Keeps what a worker process knows of the database fresh, from a thread of its own.

The replay's segments, the settings, the operator's switches, and what our sources can do for the
fleet. So no call to a provider ever waits for the database.
"""

import logging
import threading
from collections.abc import Callable, Mapping

from core.clock import ReplayClock
from core.errors import GaplessError
from core.settings import Settings
from db import capabilities, switches
from db.capabilities import SourceFact
from db.clock import POLL_S, ClockKeeper
from db.live_settings import POLL_S as SETTINGS_S
from db.live_settings import LiveSettings
from db.pool import Database

log = logging.getLogger(__name__)

_SWITCHES_S = 0.5
"""Real seconds between two looks at the operator's switches."""
_FACTS_S = 5.0
"""Real seconds between two looks at what our sources can do."""


def read_switches(db: Database) -> dict[str, str]:
    """Sources that the operator switched off now, with the reason."""
    with db.session() as conn:
        return {name: switch.reason for name, switch in switches.disabled(conn).items()}


class Upkeep:
    """One process's thread of small chores.

    Args:
        db: What is looked at.
        live: The process's settings.
    """

    def __init__(self, db: Database, live: LiveSettings) -> None:
        self._db = db
        self._live = live
        self._keeper = ClockKeeper()
        self._disabled: Mapping[str, str] = read_switches(db)
        self._tell: Callable[[], list[SourceFact]] = list
        self._turn: Callable[[Settings], None] = _nothing
        self._told: list[SourceFact] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def disabled(self) -> Mapping[str, str]:
        """Sources that were switched off when last looked."""
        return self._disabled

    def start(
        self,
        tell: Callable[[], list[SourceFact]] = list,
        turn: Callable[[Settings], None] | None = None,
    ) -> None:
        """Publish what the sources can do, then go on from the thread.

        Args:
            tell: What the sources can do now.
            turn: Brings changed settings into force; when the database fails it, it is called again.
        """
        self._tell, self._turn = tell, turn or _nothing
        self._publish()
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        clock = self._db.clock
        chores: list[tuple[float, Callable[[], object]]] = [
            (0.0, lambda: self._keeper.refresh(self._db)),
            (SETTINGS_S, lambda: self._live.refresh(self._db, self._turn)),
            (_SWITCHES_S, self._look_at_switches),
            (_FACTS_S, self._publish),
        ]
        done = [clock.monotonic()] * len(chores)
        pause_s = POLL_S if isinstance(clock, ReplayClock) else min(SETTINGS_S, _SWITCHES_S)
        while not self._over.wait(pause_s):
            try:
                for index, (every_s, work) in enumerate(chores):
                    if clock.monotonic() - done[index] >= every_s - pause_s / 2:
                        done[index] = clock.monotonic()
                        work()
            except GaplessError as error:
                log.debug("upkeep: %s", error)
            except Exception:
                # Without this thread the process would go on with what it knew last, for ever.
                log.exception("upkeep failed")

    def _look_at_switches(self) -> None:
        self._disabled = read_switches(self._db)

    def _publish(self) -> None:
        facts = self._tell()
        if facts != self._told:
            capabilities.publish(self._db, facts)
            self._told = facts


def _nothing(_settings: Settings) -> None:
    return None
