"""Keeps the plan current: built again when universe, calendars, settings or settle times change."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from core.settings import Settings
from core.words import Capability
from db import calendars, capabilities, universe
from db.capabilities import SourceFact
from db.live_settings import LiveSettings
from db.pool import Connection, Database
from scheduler import facts
from scheduler.plan import Plan

log = logging.getLogger(__name__)

_RENAMES_EVERY_S = 60.0
"""Real seconds after which the universe is read again even if its version is the same: a rename
that was announced for later takes effect without a new version."""


@dataclass(frozen=True, slots=True)
class _Basis:
    """What a plan was built from; equal bases make equal plans."""

    universe: int
    calendars: frozenset[tuple[str, int]]
    settle_1m: timedelta
    settings: Settings


class Planning:
    """Holds the plan. ``refresh`` runs in one thread, ``current`` is asked from any."""

    def __init__(self, db: Database, settings: LiveSettings) -> None:
        self._db = db
        self._clock = db.clock
        self._settings = settings
        self._plan: Plan | None = None
        self._basis: _Basis | None = None
        self._built_at = 0.0

    def current(self) -> Plan | None:
        """The newest plan; None before the first ``refresh``."""
        return self._plan

    def refresh(self) -> bool:
        """Build the plan again if what it rests on has changed; True when it is another one."""
        with self._db.transaction() as conn:
            basis = self._read_basis(conn)
            old = self._clock.monotonic() - self._built_at > _RENAMES_EVERY_S
            if basis == self._basis and not old:
                return False
            members = universe.members(conn)
            known = calendars.load(conn, sorted({member.calendar for member in members}))
        self._built_at = self._clock.monotonic()
        plan = self._plan
        if basis == self._basis and plan is not None and plan.members == tuple(members):
            return False
        self._plan = Plan(members, known, basis.settings, basis.settle_1m)
        self._basis = basis
        log.info(
            "plan built",
            extra={
                "universe": basis.universe,
                "symbols": len(members),
                "calendars": ",".join(sorted(known)) or "none",
            },
        )
        return True

    def _read_basis(self, conn: Connection) -> _Basis:
        return _Basis(
            universe=universe.version(conn),
            calendars=frozenset(calendars.versions(conn).items()),
            settle_1m=settle_1m(capabilities.current(conn)),
            settings=self._settings.current(),
        )


def settle_1m(known: Sequence[SourceFact]) -> timedelta:
    """The longest settle time of the sources that may supply 1m bars, as they publish it."""
    published = [
        fact.settle_s
        for fact in known
        if fact.capability is Capability.BARS_1M and fact.eligible and fact.settle_s is not None
    ]
    return timedelta(seconds=max(published)) if published else facts.SETTLE_1M


def eligible(known: Sequence[SourceFact], settings: Settings, capability: Capability) -> list[str]:
    """Sources of the policy that could answer in principle, in its order.

    What a worker published counts. Before the first worker has started, the policy's word does: then
    nothing is confirmed empty too early, since every source that it names would have to say so.
    """
    named = [name for band in settings.policy(capability) for name in band]
    said = {fact.provider: fact.eligible for fact in known if fact.capability is capability}
    return [name for name in named if said.get(name, not said)]
