"""The composition root: from settings to the parts of a worker process. Only this module knows providers."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, cast

from redis import Redis
from redis.exceptions import RedisError

from core import metrics
from core.clock import Clock, ReplayClock
from core.errors import QueueError, StorageError
from core.log import mask_url
from core.settings import Settings
from core.telemetry import Telemetry
from core.words import Capability
from db import capabilities, ranks, switches
from db.budgets import LongWindowLedger
from db.capabilities import SourceFact
from db.clock import POLL_S, ClockKeeper, connect_clock
from db.pool import Connection, Database
from db.sources import source_id
from providers.base import NotConfigured, Provider
from routing.observer import Observer
from routing.router import Router
from routing.sources import Source
from routing.state import RoutingState
from workers.context import CallPool, Context
from workers.intake import Intake
from workers.queues import connect
from workers.reference import Reference
from workers.stopping import Stop

log = logging.getLogger(__name__)

SERVED = (Capability.BARS_1M, Capability.BARS_EOD, Capability.QUOTES_L1)
"""Capabilities that workers collect."""
_SPARE_CONNECTIONS = 3
"""Beside one for each batch: claims, the clock, switches."""
_SWITCHES_S = 1.0
"""Real seconds between two looks at the operator's switches."""
_FACTS_S = 5.0
"""Real seconds between two looks at what our sources can do."""


class RouterMetrics:
    """Counts what the router does."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def selected(self, capability: Capability, source: str) -> None:
        """A call was routed."""
        self._telemetry.count(metrics.PROVIDER_SELECTED, capability, source)

    def answered(self, source: str, endpoint: str, latency_s: float) -> None:
        """A call was answered."""
        self._telemetry.observe(metrics.PROVIDER_LATENCY, 1000 * latency_s, source, endpoint)

    def failed(self, source: str, endpoint: str, code: str) -> None:
        """A call failed."""
        self._telemetry.count(metrics.PROVIDER_ERRORS, source, endpoint, code)


def build_sources(settings: Settings, clock: Clock) -> list[Source]:
    """Every source that a policy may name: installed, or with the reason why it can't be asked."""
    from providers import csv, finnhub, yfinance  # noqa: PLC0415 - intake and --help do without
    from providers.alpaca import adapter as alpaca  # noqa: PLC0415
    from providers.alphavantage import adapter as alphavantage  # noqa: PLC0415
    from providers.binance import adapter as binance  # noqa: PLC0415
    from providers.polygon import adapter as polygon  # noqa: PLC0415

    builders: Mapping[str, Callable[[Settings, Clock], Provider]] = {
        "yfinance": yfinance.build,
        "finnhub": finnhub.build,
        "alphavantage": alphavantage.build,
        "alpaca.iex": partial(alpaca.build, feed="iex"),
        "alpaca.sip": partial(alpaca.build, feed="sip"),
        "polygon": polygon.build,
        "binance": binance.build,
        "csv": csv.build,
    }
    found: list[Source] = []
    for name, build in builders.items():
        try:
            found.append(Source(name, build(settings, clock)))
        except NotConfigured as missing:
            found.append(Source(name, None, missing.reason))
    return found


def build_router(
    settings: Settings,
    clock: Clock,
    db: Database,
    *,
    sources: Sequence[Source] | None = None,
    observer: Observer | None = None,
    disabled: Callable[[], Mapping[str, str]] | None = None,
) -> Router:
    """The router over all sources, the fleet's state in Redis, long windows in the database.

    Args:
        settings: Policies, providers, where Redis is.
        clock: The database's market clock.
        db: Counts long windows and holds the operator's switches.
        sources: From ``build_sources``, where the caller has them already.
        observer: Who counts calls.
        disabled: Sources that are switched off, with the reason; by default read when asked for.
    """
    return Router(
        build_sources(settings, clock) if sources is None else sources,
        {capability: settings.policy(capability) for capability in Capability},
        RoutingState(settings.redis_url, clock),
        clock,
        long_windows=LongWindowLedger(db),
        disabled=disabled or (lambda: read_switches(db)),
        allow_override=settings.allow_source_override,
        observer=observer,
    )


def read_switches(db: Database) -> dict[str, str]:
    """Sources that the operator switched off now, with the reason."""
    with db.session() as conn:
        return {name: switch.reason for name, switch in switches.disabled(conn).items()}


class Upkeep:
    """Keeps what a process knows of the database fresh, from a thread of its own.

    The replay's segments, the operator's switches, and what our sources can do for the fleet. So no
    call to a provider ever waits for the database.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._keeper = ClockKeeper()
        self._disabled: Mapping[str, str] = read_switches(db)
        self._tell: Callable[[], list[SourceFact]] = list
        self._told: list[SourceFact] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def disabled(self) -> Mapping[str, str]:
        """Sources that were switched off when last looked."""
        return self._disabled

    def start(self, tell: Callable[[], list[SourceFact]] = list) -> None:
        """Publish what the sources can do, then go on from the thread."""
        self._tell = tell
        self._publish()
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        clock = self._db.clock
        looked = told = clock.monotonic()
        pause_s = POLL_S if isinstance(clock, ReplayClock) else _SWITCHES_S
        while not self._over.wait(pause_s):
            now = clock.monotonic()
            try:
                self._keeper.refresh(self._db)
                if now - looked >= _SWITCHES_S:
                    looked = now
                    self._disabled = read_switches(self._db)
                if now - told >= _FACTS_S:
                    told = now
                    self._publish()
            except StorageError as error:
                log.debug("upkeep: %s", error)

    def _publish(self) -> None:
        facts = self._tell()
        if facts != self._told:
            capabilities.publish(self._db, facts)
            self._told = facts


@dataclass(frozen=True, slots=True)
class Base:
    """What every kind of worker process stands on."""

    settings: Settings
    clock: Clock
    db: Database
    redis: Redis
    reference: Reference
    upkeep: Upkeep

    def close(self) -> None:
        """Close connections and threads."""
        self.upkeep.close()
        self.redis.close()
        self.db.close()


def open_base(settings: Settings, application: str) -> Base:
    """Connect to the servers.

    Args:
        settings: Where they are.
        application: Shown in pg_stat_activity.

    Raises:
        StorageError: the database can't be used; not retryable where its clock is another one.
        QueueError: Redis can't be reached.
    """
    clock = connect_clock(settings.database_url)
    redis = connect(settings.redis_url)
    try:
        cast("Any", redis).ping()
    except RedisError as error:
        where = mask_url(settings.redis_url)
        raise QueueError(
            f"Redis at {where} can't be reached: {error}; is it running, is REDIS_URL right?"
        ) from error
    size = settings.worker_batches + _SPARE_CONNECTIONS
    db = Database(settings.database_url, clock, max_size=size, application=application)
    return Base(settings, clock, db, redis, Reference(db), Upkeep(db))


def worker_context(base: Base, telemetry: Telemetry, stop: Stop) -> Context:
    """What collectors and backfillers work with; the fleet learns what our sources can do."""
    settings, db = base.settings, base.db
    found = build_sources(settings, base.clock)
    router = build_router(
        settings,
        base.clock,
        db,
        sources=found,
        observer=RouterMetrics(telemetry),
        disabled=base.upkeep.disabled,
    )
    _name_sources(db, found)
    for capability in SERVED:
        ranks.publish(db, capability, settings.policy(capability))
    base.upkeep.start(lambda: _facts(settings, router, found))
    return Context(
        settings=settings,
        clock=base.clock,
        db=db,
        redis=base.redis,
        router=router,
        reference=base.reference,
        calls=CallPool(settings.worker_threads),
        telemetry=telemetry,
        stop=stop,
    )


def build_intake(base: Base, telemetry: Telemetry, stop: Stop) -> Intake:
    """The coordinator's intake; its lists may be on a Redis of their own."""
    settings = base.settings
    base.upkeep.start()
    named = {name for c in Capability for band in settings.policy(c) for name in band}
    reach: dict[str, dict[Capability, timedelta | None]] = {name: {} for name in named}
    for source in build_sources(settings, base.clock):
        if source.provider is not None:
            specs = source.provider.specs()
            reach[source.name] = {capability: specs[capability].lookback for capability in specs}
        else:
            reach.setdefault(source.name, {})
    return Intake(
        settings=settings,
        db=base.db,
        coordinator=connect(settings.coordinator_url()),
        redis=base.redis,
        reference=base.reference,
        telemetry=telemetry,
        stop=stop,
        providers=reach,
    )


def _name_sources(db: Database, found: Sequence[Source]) -> None:
    """Make the sources known with their adjustment, before their first bar does so without."""

    def work(conn: Connection) -> None:
        for source in found:
            for spec in source.provider.specs().values() if source.provider else ():
                source_id(conn, source.name, spec.adjustment)

    db.run(work)


def _facts(settings: Settings, router: Router, found: Sequence[Source]) -> list[SourceFact]:
    """What each source of a policy can do, and why not."""
    by_name = {source.name: source for source in found}
    facts: list[SourceFact] = []
    for capability in SERVED:
        eligible = set(router.eligible(capability))
        for name in (name for band in settings.policy(capability) for name in band):
            source = by_name.get(name)
            spec = source.spec(capability) if source else None
            reason = ""
            if name not in eligible:
                offered = "switched off or not entitled" if spec else f"does not offer {capability}"
                reason = (source.ineligible if source else "unknown: no such provider") or offered
            settle_s = None
            if spec is not None and capability.interval is not None:
                settle_s = spec.settle.total_seconds()
            facts.append(SourceFact(name, capability, name in eligible, reason, settle_s))
    return facts
