"""What the workers' tests share: a replayed market, a universe, sources that answer by script."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Self

from redis import Redis

from core.bars import Bar, Quote
from core.clock import ReplayClock, Segment, real_timestamp
from core.errors import ProviderError
from core.sessions import Calendar
from core.settings import Settings
from core.telemetry import Telemetry
from core.windows import Window
from core.words import Capability, Tier
from db import calendars, ranks, universe
from db.clock import announce_segment, set_replay
from db.pool import Database, connect
from providers.base import Call, Limit, Page, Raw, Request, Spec, check_request, chunks, one_each
from routing.router import Router
from routing.sources import Source
from routing.state import RoutingState
from workers.calls import CallPool
from workers.context import Context, Setup
from workers.queues import connect as connect_redis
from workers.reference import Reference
from workers.stopping import Stop

OPEN = datetime(2024, 3, 5, 14, 30, tzinfo=UTC)
CLOSE = datetime(2024, 3, 5, 21, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SESSIONS = {
    "calendar": "NYSE",
    "known_from": "2024-03-01",
    "known_until": "2024-03-31",
    "sessions": [
        [f"2024-03-{day:02d}", [[_open, _open + 23_400]]]
        for day in (4, 5, 6)
        for _open in [int(datetime(2024, 3, day, 14, 30, tzinfo=UTC).timestamp())]
    ],
}


def at(text: str) -> datetime:
    """A time of day of 2024-03-05, UTC."""
    return datetime.fromisoformat(f"2024-03-05T{text}+00:00")


def bar(ts: datetime, close: float = 10.0, session: date | None = None) -> Bar:
    return Bar(ts, close, close + 1, close - 1, close, 100.0, session=session)


Script = Callable[[Call, datetime], Page]


def every_minute(call: Call, _asked_at: datetime) -> Page:
    """A market in which every minute of the window trades, its price told by the minute."""
    assert call.window is not None
    minutes = int(call.window.length / MINUTE)
    starts = [call.window.start + n * MINUTE for n in range(minutes)]
    hours = (OPEN.time(), CLOSE.time())
    bars = [bar(ts, 10.0 + ts.minute) for ts in starts if hours[0] <= ts.time() < hours[1]]
    return Page(bars=dict.fromkeys(call.symbols, bars))


@dataclass(slots=True)
class Scripted:
    """A provider that answers as its script says and remembers every call."""

    name: str
    clock: ReplayClock
    script: Script = every_minute
    batch: int = 1
    span: timedelta = timedelta(days=8)
    lookback: timedelta | None = timedelta(days=30)
    settle: timedelta = timedelta(seconds=60)
    latency_s: float = 0.0
    limits_: tuple[Limit, ...] = ()
    sent: list[Call] = field(default_factory=list)
    _pages: dict[str, Page] = field(default_factory=dict)
    _ids: Iterator[int] = field(default_factory=itertools.count)

    def limits(self) -> tuple[Limit, ...]:
        return self.limits_

    def specs(self) -> Mapping[Capability, Spec]:
        return {
            capability: Spec(
                capability=capability,
                batch=self.batch,
                span=self.span,
                lookback=self.lookback,
                settle=timedelta(minutes=30) if capability is Capability.BARS_EOD else self.settle,
                cost=one_each(self.limits_),
                partial="never",
                adjustment="raw",
                pad=timedelta(0),
                timeout_s=3.0,
            )
            for capability in (Capability.BARS_1M, Capability.BARS_EOD, Capability.QUOTES_L1)
        }

    def plan(self, request: Request) -> list[Call]:
        spec = check_request(self.name, self.specs(), request, self.clock.now())
        windows = [None] if request.window is None else list(request.window.chunks(spec.span))
        return [
            Call(self.name, request.capability, "test", symbols, window, {})
            for window in windows
            for symbols in chunks(request.symbols, spec.batch)
        ]

    def send(self, call: Call, timeout_s: float) -> Raw:
        self.sent.append(call)
        self.clock.sleep(self.latency_s)
        number = str(next(self._ids))
        self._pages[number] = self.script(call, self.clock.now())
        return Raw(200, f"reply {number} of {self.name}".encode(), {"number": number})

    def parse(self, call: Call, raw: Raw, sessions: Calendar | None) -> Page:
        return self._pages[raw.headers["number"]]

    def close_rested(self) -> None: ...

    def close(self) -> None: ...

    def asked(self) -> list[str]:
        """Symbols in the order in which they were asked for."""
        return [symbol for call in self.sent for symbol in call.symbols]


def refusing(error: ProviderError) -> Script:
    def script(_call: Call, _asked_at: datetime) -> Page:
        raise error

    return script


@dataclass(slots=True)
class World:
    """A process's context over a database and a Redis of the test's own."""

    database_url: str
    redis_url: str
    now: datetime
    speed: float = 1.0
    settings_: dict[str, Any] = field(default_factory=dict)
    clock: ReplayClock = field(init=False)
    db: Database = field(init=False)
    redis: Redis = field(init=False)
    stop: Stop = field(init=False)

    def __post_init__(self) -> None:
        segment = Segment(real_timestamp(), self.now.timestamp(), self.speed)
        with connect(self.database_url) as conn:
            set_replay(conn, "test", [segment])
        self.clock = ReplayClock([segment])
        self.db = Database(self.database_url, self.clock)
        calendars.publish(self.db, SESSIONS)
        self.redis = connect_redis(self.redis_url)
        self.stop = Stop(self.clock)

    def jump(self, to: datetime) -> None:
        """Move market time on, for every process of this database."""
        segment = Segment(real_timestamp(), to.timestamp(), self.speed)
        with connect(self.database_url) as conn:
            announce_segment(conn, segment)
        self.clock.update([*self.clock.segments(), segment])

    def load(self, *symbols: str, tier: Tier = Tier.T0) -> dict[str, int]:
        universe.load(
            self.db, [(name, tier, "NYSE", "") for name in symbols], "test", replace=False
        )
        with self.db.transaction() as conn:
            return {m.symbol: m.symbol_id for m in universe.resolve(conn, symbols).values()}

    def settings(self, **changes: Any) -> Settings:
        facts = {
            "database_url": self.database_url,
            "redis_url": self.redis_url,
            "backfill_max_concurrency_t0": 100,
            **self.settings_,
            **changes,
        }
        return Settings(**facts, _env_file=None)  # pyright: ignore[reportCallIssue]

    def context(self, *providers: Scripted, bands: Sequence[str] = (), **changes: Any) -> Context:
        """A context whose policy names the providers in their order, each a band of its own."""
        names = tuple((name,) for name in bands or [provider.name for provider in providers])
        policies = dict.fromkeys(Capability, names)
        for capability in Capability:
            ranks.publish(self.db, capability, names)
        settings = self.settings(**changes)
        router = Router(
            [Source(provider.name, provider) for provider in providers],
            policies,
            RoutingState(self.redis_url, self.clock),
            self.clock,
        )
        return Context(
            setup=Setup(settings, router),
            clock=self.clock,
            db=self.db,
            redis=self.redis,
            reference=Reference(self.db),
            calls=CallPool(settings.worker_threads),
            telemetry=Telemetry(),
            stop=self.stop,
        )

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        with self.db.transaction() as conn:
            return conn.execute(query, parameters or None).fetchall()  # pyright: ignore[reportArgumentType]

    def stored(self, symbol: str, interval: str = "1m") -> dict[datetime, tuple[float, str]]:
        """Bars now: start -> close and source."""
        found = self.rows(
            'SELECT ts, close, provider FROM candles WHERE symbol = %s AND "interval" = %s',
            symbol,
            interval,
        )
        return {ts: (close, provider) for ts, close, provider in found}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.db.close()
        self.redis.close()


def quote(ts: datetime, price: float) -> Quote:
    return Quote(ts, bid=price - 0.01, ask=price + 0.01, last=price)


def window(start: str, end: str) -> Window:
    return Window(at(start), at(end))


def metric(context: Context, name: str, **labels: str) -> float | None:
    """A sample's value as Prometheus would read it."""
    return context.telemetry.registry.get_sample_value(name, labels)
