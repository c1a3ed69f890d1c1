"""What the storage tests share: a database handle, a small universe, bars and answers by the minute."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from core.bars import Bar
from core.clock import SystemClock
from core.windows import Window
from core.words import Interval, Tier
from db import universe
from db.candles import Answer, Batch, WriteResult, write
from db.pool import Database

OPEN = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
"""A Monday's open in New York."""
MINUTE = timedelta(minutes=1)
LONG_AFTER = OPEN + timedelta(days=1)


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """The test's own database as the processes use it: pooled, as gapless_writer."""
    database = Database(database_url, SystemClock(), max_size=8)
    yield database
    database.close()


@pytest.fixture
def symbol(db: Database) -> int:
    """The id of SPY, alone in the universe."""
    return symbols(db, "SPY")["SPY"]


def symbols(
    db: Database, *names: str, tier: Tier = Tier.T0, calendar: str = "NYSE"
) -> dict[str, int]:
    """Make names the universe; their ids."""
    universe.load(db, [(name, tier, calendar, "") for name in names], "test")
    with db.transaction() as conn:
        return {m.symbol: m.symbol_id for m in universe.resolve(conn, names).values()}


def at(minute: float) -> datetime:
    """So many minutes after the open."""
    return OPEN + minute * MINUTE


def span(start: float, end: float) -> Window:
    """Minutes after the open, half-open."""
    return Window(at(start), at(end))


def bar(minute: float, close: float = 10.0, **fields: Any) -> Bar:
    """A one-minute bar around ``close``."""
    facts: dict[str, Any] = {"volume": 100.0} | fields
    return Bar(at(minute), close, close + 1, close - 1, close, **facts)


def daily(day: date, close: float = 10.0, **fields: Any) -> Bar:
    """A daily bar of a New York session in winter."""
    opened = datetime(day.year, day.month, day.day, 14, 30, tzinfo=UTC)
    facts: dict[str, Any] = {"volume": 1e6} | fields
    return Bar(opened, close, close + 1, close - 1, close, session=day, **facts)


def with_parts(url: str, **parts: str) -> str:
    """A connection string with some parts replaced."""
    known: dict[str, Any] = dict(conninfo_to_dict(url)) | parts
    return make_conninfo(**known)


def answer(
    symbol_id: int,
    bars: Sequence[Bar],
    *,
    window: Window | None = None,
    asked: datetime = LONG_AFTER,
    settled: datetime | None = None,
    lacking: Sequence[Window] = (),
) -> Answer:
    """An answer over the bars' own hull, settled when it was asked unless said otherwise."""
    window = window or Window(bars[0].ts, bars[-1].ts + MINUTE)
    return Answer(symbol_id, window, asked, bars, settled or asked, lacking)


def put(
    db: Database,
    *answers: Answer,
    source: str = "yfinance",
    interval: Interval = Interval.M1,
    **more: Any,
) -> WriteResult:
    """Write one batch."""
    return write(db, Batch(source, interval, answers, **more))


def rows(db: Database, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    """What a query finds, as the reader of a test wrote it."""
    with db.transaction() as conn:
        return conn.execute(query, parameters or None).fetchall()  # pyright: ignore[reportArgumentType]


def revisions(db: Database, symbol_id: int) -> list[tuple[Any, ...]]:
    """(minute after the open, status, close, volume) of every stored revision, oldest first."""
    found = rows(
        db,
        "SELECT ts, status, close, volume FROM candles_intraday WHERE symbol_id = %s ORDER BY ts, as_of",
        symbol_id,
    )
    return [((ts - OPEN) / MINUTE, *rest) for ts, *rest in found]
