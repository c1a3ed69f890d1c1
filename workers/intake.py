"""Takes the coordinator's elements off its lists, keeps them, and turns them into work.

Order: peek, keep (commit), remove. Whatever dies in between, the element is on its list or in the
inbox or in both, and its id makes it one. What is kept is dispatched again until it is answered, so
Redis may forget everything. Any number of intakes may run at once; they take turns at a list, so that
what has no id comes twice only where one of them dies or stands still in its turn.
"""

import base64
import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, cast

import orjson
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from core import metrics
from core.errors import QueueError, StorageError
from core.settings import Settings
from core.telemetry import Telemetry
from core.windows import Window
from core.words import Capability, Tier
from db import inbox
from db.errors import DATA_EXCEPTION, sqlstate
from db.pool import Database
from db.universe import Member
from workers.dispatching import Dispatcher
from workers.elements import Element, Reading, read
from workers.reference import Reference
from workers.stopping import Stop

log = logging.getLogger(__name__)

PEEK: Final = 100
_SKEW = timedelta(minutes=1)
"""How far the coordinator's clock may be ahead of ours."""
_WAIT_S = 0.25
_TURN_S = 5.0
"""Real seconds for which whoever has the turn at a list may stand still before others do without."""
_OTHERS_TURN_S = 0.02
_TIDY_S = 1.0
_BACKOFF_MAX_S = 5.0

_BURY = """
-- KEYS: 1 = the list, 2 = its dead list; ARGV: 1 = the element, 2 = the entry with its reason
-- Answers 1 when it was still there, so that several intakes bury it once.
if redis.call('LREM', KEYS[1], -1, ARGV[1]) == 0 then return 0 end
redis.call('LPUSH', KEYS[2], ARGV[2])
return 1
"""


@dataclass(frozen=True, slots=True)
class Source:
    """A list of the coordinator."""

    key: str
    kind: str
    """``jobs`` or ``backfill``."""
    tier: Tier | None
    """What the list says of its elements' tier."""


def sources(settings: Settings) -> tuple[Source, ...]:
    """The lists that the settings name."""
    keys = settings.rlc_redis_backfill_keys
    return (
        Source(settings.rlc_redis_jobs_key, "jobs", None),
        Source(keys.t0, "backfill", Tier.T0),
        Source(keys.t1, "backfill", Tier.T1),
        Source(keys.t2, "backfill", Tier.T2),
    )


class Intake:
    """One process's intake."""

    def __init__(
        self,
        settings: Settings,
        db: Database,
        coordinator: Redis,
        redis: Redis,
        reference: Reference,
        telemetry: Telemetry,
        stop: Stop,
        providers: Mapping[str, Mapping[Capability, timedelta | None]],
    ) -> None:
        """Prepare.

        Args:
            settings: Lists, batch size, cadences.
            db: Keeps the elements.
            coordinator: The server with the coordinator's lists.
            redis: The server with our queues.
            reference: Symbols and calendars.
            telemetry: Counts the dead.
            stop: The process's wish to stop.
            providers: Every provider that a policy may name -> look-back by capability; empty for
                one that is not installed.
        """
        self._settings = settings
        self._db = db
        self._clock = db.clock
        self._coordinator = cast("Any", coordinator)
        self._reference = reference
        self._telemetry = telemetry
        self._stop = stop
        self._providers = providers
        self._sources = sources(settings)
        self._dispatcher = Dispatcher(db, redis, reference)
        self._bury = coordinator.register_script(_BURY)
        self._tidied = float("-inf")
        self._trouble_since: float | None = None
        self._beat = self._clock.monotonic()
        self._refused: dict[str, tuple[bytes, float]] = {}
        """By list: its oldest element when somebody else had the turn, and since when it is that."""
        self._no_lists: set[str] = set()
        """Keys under which something else stands."""

    def retune(
        self, settings: Settings, providers: Mapping[str, Mapping[Capability, timedelta | None]]
    ) -> None:
        """Go on with other settings; the lists stay those of the start."""
        self._settings, self._providers = settings, providers

    def run(self, *, burst: bool = False) -> None:
        """Take and dispatch until asked to stop, or with ``burst`` until the lists are empty."""
        backoff = 0.1
        while not self._stop.requested:
            self._beat = self._clock.monotonic()
            try:
                moved = sum(self.move(source) for source in self._sources)
                dispatched = self.dispatch()
                self._tidy()
                if not moved and not dispatched:
                    if burst:
                        return
                    self._wait()
            except (StorageError, QueueError, RedisError) as error:
                if self._trouble_since is None:
                    self._trouble_since = self._beat
                    log.warning("intake waits: %s", error)
                self._stop.wait(backoff)
                backoff = min(backoff * 2, _BACKOFF_MAX_S)
                continue
            if self._trouble_since is not None:
                log.info("intake goes on after %.1f s", self._beat - self._trouble_since)
                self._trouble_since = None
            backoff = 0.1

    def health(self) -> tuple[bool, dict[str, object]]:
        """Whether the loop turns; a lost server alone is no reason to restart."""
        now, since = self._clock.monotonic(), self._trouble_since
        state = "fine" if since is None else f"waiting for {now - since:.0f} s"
        return now - self._beat < 60.0, {"intake": state}

    def move(self, source: Source) -> int:
        """Take up to ``PEEK`` of the oldest elements, unless it is another's turn; returns how many."""
        oldest = self._oldest(source)
        if oldest is None:
            self._refused.pop(source.key, None)
            return 0
        with inbox.turn(self._db, source.key) as ours:
            if ours:
                self._refused.pop(source.key, None)
                return self._take(source)
            if self._stands_still(source, oldest):
                return self._take_for(source)
        return 0

    def _take_for(self, source: Source) -> int:
        """Take without the turn; who stood still until now is not waited for again."""
        since = self._refused[source.key][1]
        taken = self._take(source)
        oldest = self._oldest(source)
        if oldest is not None:
            self._refused[source.key] = (oldest, since)
        return taken

    def _oldest(self, source: Source) -> bytes | None:
        """The element to be taken next; None where there is none, or where the key holds no list."""
        try:
            oldest = self._coordinator.lindex(source.key, -1)
        except ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
            if source.key not in self._no_lists:
                log.error("%s is no list and left alone, the others go on", source.key)  # noqa: TRY400 - its text is all
            self._no_lists.add(source.key)
            return None
        self._no_lists.discard(source.key)
        return oldest

    def _stands_still(self, source: Source, oldest: bytes) -> bool:
        """Whether whoever has the turn has done nothing with it for a while."""
        now = self._clock.monotonic()
        before = self._refused.get(source.key)
        if before is None or before[0] != oldest:
            self._refused[source.key] = (oldest, now)
            return False
        return now - before[1] >= _TURN_S

    def _take(self, source: Source) -> int:
        """Peek, keep, then remove."""
        raws: list[bytes] = self._coordinator.lrange(source.key, -PEEK, -1)[::-1]
        if not raws:
            return 0
        readings = [read(raw) for raw in raws]
        known = self._reference.resolve(
            symbol for reading in readings if reading.element for symbol in reading.element.symbols
        )
        kept: list[inbox.Element] = []
        for raw, reading in zip(raws, readings, strict=True):
            problem = reading.problem
            if reading.element is not None:
                problem = self._problem(source, raw, reading.element, known)
            kept.append(_element(source, raw, reading, problem))
        kept = list(self._keep(kept))
        with self._coordinator.pipeline(transaction=False) as pipe:
            for element in kept:
                if element.dead is None:
                    pipe.lrem(source.key, -1, element.raw)
            pipe.execute()
        for element in kept:
            if element.dead is not None:
                self._to_dead_list(source, element.raw, element.dead)
        return len(raws)

    def dispatch(self) -> int:
        """Turn kept elements into queue jobs and backfill rows; returns how many elements."""
        return self._dispatcher.run(self._settings)

    def _problem(
        self, source: Source, raw: bytes, element: Element, known: Mapping[str, Member]
    ) -> str | None:
        """Why nobody can execute a well-formed element, None when somebody can."""
        problems: list[str] = []
        unknown = [symbol for symbol in element.symbols if symbol not in known]
        if unknown:
            problems.append(
                f"the universe does not know {', '.join(unknown)}; see `ops universe show`"
            )
        if element.provider is not None and element.provider not in self._providers:
            names = ", ".join(sorted(self._providers))
            problems.append(f"provider {element.provider!r} is unknown; expected one of {names}")
        if source.kind == "backfill" and element.interval is None:
            problems.append("quotes are of now and can't be backfilled")
        if source.kind == "backfill" and element.window is None:
            problems.append("a backfill needs start and end")
        if b"\\u0000" in raw:
            problems.append("holds the character NUL, which can't be kept")
        if element.window is not None:
            problems += self._window_problems(element, element.window)
        return "; ".join(problems) or None

    def _window_problems(self, element: Element, window: Window) -> list[str]:
        now = self._clock.now()
        if window.start >= now or window.end > now + _SKEW:
            return [f"window {window} lies in the future; it is {now:%Y-%m-%dT%H:%M:%SZ} now"]
        kept_since = self._settings.candles_kept_since(now)
        if kept_since is not None and window.start < kept_since:
            days = self._settings.candle_retention_days
            return [f"window {window} starts before what is kept (CANDLE_RETENTION_DAYS={days})"]
        reach = [
            facts[element.kind.capability]
            for facts in self._providers.values()
            if element.kind.capability in facts
        ]
        longest = max((span for span in reach if span is not None), default=None)
        if reach and None not in reach and longest is not None and window.start < now - longest:
            reason = f"starts before the look-back of every provider, {longest.days} days at most"
            return [f"window {window} {reason}"]
        return []

    def _keep(self, elements: Sequence[inbox.Element]) -> Sequence[inbox.Element]:
        """Commit; returns the elements with what they became.

        An element that the database can't hold must not stop the line: it alone is given up.
        """
        try:
            inbox.receive(self._db, elements)
        except StorageError as error:
            if not (sqlstate(error) or "").startswith(DATA_EXCEPTION[:2]):
                raise
            if len(elements) == 1:
                return [replace(elements[0], dead=f"can't be kept: {error}")]
            return [kept for element in elements for kept in self._keep([element])]
        return elements

    def _to_dead_list(self, source: Source, raw: bytes, reason: str) -> None:
        entry = orjson.dumps({"reason": reason, **_legible(raw), "at": self._clock.now()})
        keys = [source.key, f"{source.key}:dead"]
        if self._bury(keys=keys, args=[raw, entry]):
            self._telemetry.count(metrics.DEAD_ELEMENTS)
            log.warning("element put on the dead list: %s", reason, extra={"list": source.key})

    def _tidy(self) -> None:
        if self._clock.monotonic() - self._tidied >= _TIDY_S:
            self._tidied = self._clock.monotonic()
            expired = inbox.expire(self._db)
            if expired:
                log.warning("elements expired unanswered", extra={"count": expired})

    def _wait(self) -> None:
        """Sleep in Redis until the jobs list has an element; tail to tail leaves it as it is."""
        if self._refused:
            self._stop.wait(_OTHERS_TURN_S)
            return
        key = self._sources[0].key
        if key in self._no_lists:
            self._stop.wait(_WAIT_S)
            return
        self._coordinator.blmove(key, key, _WAIT_S, "RIGHT", "RIGHT")


def _element(source: Source, raw: bytes, reading: Reading, problem: str | None) -> inbox.Element:
    """The inbox row of an element, dead from the start when it has a problem."""
    element = reading.element
    payload = reading.document if problem is None else None
    if payload is not None and element is not None and element.tier is None and source.tier:
        payload = {**payload, "tier": source.tier.value}
    # NUL can be in an id only where it makes the element dead; PostgreSQL can't store it.
    known_id = reading.id if reading.id and "\0" not in reading.id else None
    return inbox.Element(
        element_id=known_id or uuid.uuid4().hex,
        list_key=source.key,
        raw=raw,
        payload=payload,
        kind=source.kind,
        symbols=element.symbols if element and problem is None else (),
        not_after=element.not_after if element else None,
        dead=problem,
    )


def _legible(raw: bytes) -> dict[str, str]:
    try:
        return {"element": raw.decode()}
    except UnicodeDecodeError:
        return {"element_base64": base64.b64encode(raw).decode()}
