"""Turns kept elements of the coordinator into queue jobs and backfill rows, until they are answered.

Elements that ask alike share a batch. What is pushed is a hint: an element that nobody has answered
within its lease is dispatched again unless its job still waits in the queue, so Redis may forget everything.
"""

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from redis import Redis

from core.errors import BadJobError, UsageError
from core.settings import Settings
from core.windows import Window
from core.words import Tier
from db import backfill, inbox
from db.backfill import NewJob
from db.inbox import Dispatch
from db.pool import Database
from workers.assess import whole_bars
from workers.current import current_window
from workers.elements import Element, parse
from workers.queues import CollectJob, Kind, depths, enqueue_collect
from workers.reference import Reference
from workers.waiting import note, waiting

log = logging.getLogger(__name__)

AT_ONCE: Final = 100
DEFAULT_LIFE: Final = timedelta(seconds=inbox.LIFE_S)
"""Market time for which an element without ``not_after`` is tried."""
FULL: Final = 10_000
"""Jobs waiting in a tier's queue from which on its elements wait in the database instead."""


@dataclass(frozen=True, slots=True)
class _Group:
    """What symbols of different elements must share to be asked in one batch."""

    kind: Kind
    tier: Tier
    provider: str | None
    window: Window | None


_Groups = dict[_Group, dict[str, list[Dispatch]]]
"""By group, by symbol: the elements that want it."""


class Dispatcher:
    """One intake's dispatches; several may run at once and share the elements."""

    def __init__(self, db: Database, redis: Redis, reference: Reference) -> None:
        """Prepare.

        Args:
            db: Keeps the elements.
            redis: The server with our queues.
            reference: Symbols and calendars.
        """
        self._db = db
        self._clock = db.clock
        self._redis = redis
        self._reference = reference

    def run(self, settings: Settings) -> int:
        """Dispatch up to ``AT_ONCE`` elements; returns how many."""
        due = inbox.dispatchable(self._db, AT_ONCE, inbox.LEASE_S)
        late = [row.inbox_id for row in due if row.again and row.kind == "jobs"]
        in_line = waiting(self._redis, late)
        due = [row for row in due if row.inbox_id not in in_line]
        groups: _Groups = {}
        rows: list[NewJob] = []
        for row in due:
            try:
                element = parse(row.payload)
            except BadJobError as error:
                # Whoever kept it could read it, and is of a newer version: so is who will dispatch it.
                log.warning("element left to others: %s", error, extra={"element": row.element_id})
                continue
            try:
                self._sort(settings, row, element, groups, rows)
            except BadJobError as error:
                inbox.mark_dead(self._db, row.inbox_id, str(error))
                log.warning("element given up: %s", error, extra={"element": row.element_id})
            except UsageError as error:
                # The leader of a young database is about to publish the calendar.
                log.warning("element waits: %s", error, extra={"element": row.element_id})
        backfill.enqueue(self._db, rows)
        again = [row.inbox_id for row in due if row.again and row.kind == "backfill"]
        backfill.settle(self._db, again)
        kept = {row.inbox_id for row in rows if row.inbox_id is not None}
        if kept:
            inbox.hold(self._db, kept, inbox.ROWS_LEASE_S)
        jobs = [
            job
            for key, wanted in groups.items()
            for job in _jobs(key, wanted, settings.live_batch_size)
        ]
        pushed = self._with_room(jobs)
        enqueue_collect(self._redis, pushed)
        note(self._redis, pushed)
        return len(due)

    def _with_room(self, jobs: Sequence[CollectJob]) -> list[CollectJob]:
        """Jobs whose queue is not full: where nobody collects, Redis must not fill with hints.

        The elements of the others come again when their lease has run out.
        """
        waiting = depths(self._redis) if jobs else {}
        room = [job for job in jobs if waiting[job.queue] < FULL]
        if len(room) < len(jobs):
            log.warning("queue is full, elements wait", extra={"jobs": len(jobs) - len(room)})
        return room

    def _sort(
        self,
        settings: Settings,
        row: Dispatch,
        element: Element,
        groups: _Groups,
        rows: list[NewJob],
    ) -> None:
        """Put an element's symbols with others that are asked alike, or make backfill rows."""
        members = self._reference.resolve(row.remaining)
        if not members:
            raise BadJobError(f"the universe knows none of {', '.join(row.remaining)} any more")
        tier = element.tier or min(member.tier for member in members.values())
        for symbol, member in members.items():
            if row.kind == "backfill":
                attempts = settings.backfill_max_attempts
                rows.append(_new_job(row, element, member.symbol_id, tier, attempts))
                continue
            window = element.window
            if window is not None and element.interval is not None:
                window = whole_bars(window, element.interval)
            elif element.interval is not None:
                window = current_window(
                    element.kind,
                    self._reference.calendar(member.calendar),
                    self._clock.now(),
                    settings.cadence_s(tier, element.kind.capability),
                )
            key = _Group(element.kind, tier, element.provider, window)
            groups.setdefault(key, {}).setdefault(symbol, []).append(row)


def _jobs(key: _Group, wanted: Mapping[str, Sequence[Dispatch]], size: int) -> list[CollectJob]:
    """Queue jobs of at most a batch of symbols, each knowing the elements that it answers."""
    jobs: list[CollectJob] = []
    symbols = list(wanted)
    # A new word for each dispatch: the job before may have ended without an answer.
    push = uuid.uuid4().hex[:12]
    for start in range(0, len(symbols), size):
        batch = symbols[start : start + size]
        elements: dict[int, list[str]] = {}
        for symbol in batch:
            for row in wanted[symbol]:
                elements.setdefault(row.inbox_id, []).append(symbol)
        rows = [row for symbol in batch for row in wanted[symbol]]
        jobs.append(
            CollectJob(
                kind=key.kind,
                tier=key.tier,
                slot=min(row.received_at for row in rows),
                symbols=tuple(batch),
                not_after=max(row.not_after or row.received_at + DEFAULT_LIFE for row in rows),
                start=key.window.start if key.window else None,
                end=key.window.end if key.window else None,
                provider=key.provider,
                inbox={row: tuple(names) for row, names in elements.items()},
                part=len(jobs),
                push=push,
            )
        )
    return jobs


def _new_job(row: Dispatch, element: Element, symbol_id: int, tier: Tier, attempts: int) -> NewJob:
    if element.interval is None or element.window is None:
        raise BadJobError(f"{element.kind} without a window can't be backfilled")
    return NewJob(
        symbol_id=symbol_id,
        interval=element.interval,
        window=element.window,
        tier=tier,
        origin="coordinator",
        provider=element.provider,
        not_after=row.not_after,
        inbox_id=row.inbox_id,
        max_attempts=attempts,
    )
