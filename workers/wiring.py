"""The composition root: from settings to the parts of a worker process. Only this module knows providers."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, cast

from redis import Redis
from redis.exceptions import RedisError

from core import metrics
from core.clock import Clock
from core.errors import QueueError
from core.log import mask_url
from core.settings import Settings
from core.telemetry import Telemetry
from core.words import Capability
from db import ranks
from db.budgets import LongWindowLedger
from db.capabilities import SourceFact
from db.clock import connect_clock
from db.live_settings import LiveSettings
from db.pool import Connection, Database
from db.sources import source_id
from providers.base import NotConfigured, Provider
from routing.observer import Observer
from routing.router import Router
from routing.sources import Source
from routing.state import RoutingState
from workers.calls import CallPool
from workers.context import Context, Setup
from workers.intake import Intake
from workers.queues import connect
from workers.reference import Reference
from workers.stopping import Stop
from workers.upkeep import Upkeep, read_switches

log = logging.getLogger(__name__)

SERVED = (Capability.BARS_1M, Capability.BARS_EOD, Capability.QUOTES_L1)
"""Capabilities that workers collect."""
_SPARE_CONNECTIONS = 3
"""Beside one for each batch: claims, the clock, switches."""
_LAST_CALLS_S = 60.0
"""Real seconds after which no call of a replaced provider can still be on the wire."""
_ROUTING_ONLY = ("policy_", "cadence_", "tier_", "backfill_", "live_", "local_", "allow_")
"""Settings that begin so say nothing of a provider."""


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
    state: RoutingState | None = None,
    former: Router | None = None,
) -> Router:
    """The router over all sources, the fleet's state in Redis, long windows in the database.

    Args:
        settings: Policies, providers, where Redis is.
        clock: The database's market clock.
        db: Counts long windows and holds the operator's switches.
        sources: From ``build_sources``, where the caller has them already.
        observer: Who counts calls.
        disabled: Sources that are switched off, with the reason; by default read when asked for.
        state: The scripts in Redis, where the caller has them already.
        former: The router that this one follows when settings changed.
    """
    return Router(
        build_sources(settings, clock) if sources is None else sources,
        {capability: settings.policy(capability) for capability in Capability},
        state or RoutingState(settings.redis_url, clock),
        clock,
        long_windows=LongWindowLedger(db),
        disabled=disabled or (lambda: read_switches(db)),
        allow_override=settings.allow_source_override,
        observer=observer,
        former=former,
    )


@dataclass(frozen=True, slots=True)
class Base:
    """What every kind of worker process stands on."""

    live: LiveSettings
    clock: Clock
    db: Database
    redis: Redis
    reference: Reference
    upkeep: Upkeep

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.live.current()

    def close(self) -> None:
        """Close connections and threads."""
        self.upkeep.close()
        self.redis.close()
        self.db.close()


def open_base(live: LiveSettings, application: str) -> Base:
    """Connect to the servers, and take on the settings that the fleet has.

    Args:
        live: Where they are, among others.
        application: Shown in pg_stat_activity.

    Raises:
        StorageError: the database can't be used; not retryable where its clock is another one.
        QueueError: Redis can't be reached.
    """
    settings = live.current()
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
    live.refresh(db)
    return Base(live, clock, db, redis, Reference(db), Upkeep(db, live))


class Assembly:
    """Builds what the settings decide, and builds it anew when they change.

    Args:
        base: The process.
        observer: Who counts calls.
    """

    def __init__(self, base: Base, observer: Observer) -> None:
        self._base = base
        self._observer = observer
        self._state = RoutingState(base.settings.redis_url, base.clock)
        self._sources: list[Source] = []
        self._told: dict[str, object] = {}
        self._retired: list[tuple[float, Source]] = []
        self.setup = self._build(base.settings, None)

    def turn(self, context: Context, settings: Settings) -> None:
        """Bring settings into force: ready-made, then all at once.

        Raises:
            StorageError: the database is away; nothing has changed.
        """
        self.setup = context.setup = self._build(settings, self.setup.router)

    def facts(self) -> list[SourceFact]:
        """What the sources can do now; what they need no more is let go on the way."""
        self._close_retired()
        for source in self._sources:
            if source.provider is not None:
                source.provider.close_rested()
        return _facts(self.setup.settings, self.setup.router, self._sources)

    def _build(self, settings: Settings, former: Router | None) -> Setup:
        base, sources = self._base, self._sources
        told = {name: value for name, value in settings if not name.startswith(_ROUTING_ONLY)}
        if told != self._told:
            sources = build_sources(settings, base.clock)
        router = build_router(
            settings,
            base.clock,
            base.db,
            sources=sources,
            observer=self._observer,
            disabled=base.upkeep.disabled,
            state=self._state,
            former=former,
        )
        _name_sources(base.db, sources)
        for capability in SERVED:
            ranks.publish(base.db, capability, settings.policy(capability))
        if sources is not self._sources:
            now = base.clock.monotonic()
            self._retired += [(now, source) for source in self._sources]
            self._sources, self._told = sources, told
        return Setup(settings, router)

    def _close_retired(self) -> None:
        now = self._base.clock.monotonic()
        over = [pair for pair in self._retired if now - pair[0] >= _LAST_CALLS_S]
        for pair in over:
            self._retired.remove(pair)
            if pair[1].provider is not None:
                pair[1].provider.close()


def worker_context(base: Base, telemetry: Telemetry, stop: Stop) -> Context:
    """What collectors and backfillers work with; the fleet learns what our sources can do."""
    assembly = Assembly(base, RouterMetrics(telemetry))
    context = Context(
        setup=assembly.setup,
        clock=base.clock,
        db=base.db,
        redis=base.redis,
        reference=base.reference,
        calls=CallPool(base.settings.worker_threads),
        telemetry=telemetry,
        stop=stop,
    )
    base.upkeep.start(assembly.facts, partial(assembly.turn, context))
    return context


def build_intake(base: Base, telemetry: Telemetry, stop: Stop) -> Intake:
    """The coordinator's intake; its lists may be on a Redis of their own."""
    settings = base.settings
    intake = Intake(
        settings=settings,
        db=base.db,
        coordinator=connect(settings.coordinator_url()),
        redis=base.redis,
        reference=base.reference,
        telemetry=telemetry,
        stop=stop,
        providers=_reach(settings, base.clock),
    )
    base.upkeep.start(
        turn=lambda changed: intake.retune(changed, _reach(changed, base.clock)),
    )
    return intake


def _reach(settings: Settings, clock: Clock) -> dict[str, dict[Capability, timedelta | None]]:
    """Every provider that a policy may name -> look-back by capability; empty if not installed."""
    named = {name for c in Capability for band in settings.policy(c) for name in band}
    reach: dict[str, dict[Capability, timedelta | None]] = {name: {} for name in named}
    for source in build_sources(settings, clock):
        if source.provider is not None:
            specs = source.provider.specs()
            reach[source.name] = {capability: specs[capability].lookback for capability in specs}
            source.provider.close()
        else:
            reach.setdefault(source.name, {})
    return reach


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
