"""Records as-of reads through the public functions while the system runs.

Reads are spread over the run by market time. Most ask for the newest knowledge that can't change any more
(``safe_as_of()``), where a mistake of the horizon would show; the rest for some instant before it.
"""

import hashlib
import json
import random
import signal
import sys
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import psycopg

from sim.check.stack import StackFile
from sim.check.stored import connect

ONE = """
SELECT symbol, ts, open, high, low, close, volume, vwap, trade_count, provider, status, as_of
FROM candles_as_of(%(symbols)s, %(interval)s, %(start)s, %(end)s, %(as_of)s) ORDER BY symbol, ts, provider
"""
ALL = """
SELECT symbol, ts, open, high, low, close, volume, vwap, trade_count, provider, status, as_of
FROM candles_all_as_of(%(symbols)s, %(interval)s, %(start)s, %(end)s, %(as_of)s) ORDER BY symbol, ts, provider
"""
_NEWEST_SHARE = 0.7
_ALL_SHARE = 0.2
_DAILY_SHARE = 0.05
_AWAY_S = 0.2


def digest(rows: list[Any]) -> str:
    """One word for a whole answer."""
    return hashlib.blake2b(repr(rows).encode(), digest_size=16).hexdigest()


def probe(stack: StackFile, out: Path, *, until: datetime, reads: int, seed: int) -> int:
    """Read until the market instant ``until`` or SIGTERM; one JSON line a read."""
    stop = threading.Event()

    def end(_signum: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    dice = random.Random(seed)  # noqa: S311 - which reads are made is no secret
    progress = _Progress(reads, until)
    with out.open("a") as file:
        while not stop.is_set() and not progress.over:
            try:
                with connect(stack.database_url) as conn:
                    _go_on(conn, file, dice, progress, stop)
            except psycopg.OperationalError as error:
                # A database that goes away takes no answer back that it gave.
                sys.stderr.write(f"reads wait for the database: {error}\n")
                stop.wait(_AWAY_S)
    return 0


@dataclass(slots=True)
class _Progress:
    reads: int
    until: datetime
    began: datetime | None = None
    done: int = 0
    over: bool = False


def _go_on(
    conn: psycopg.Connection[Any],
    file: TextIO,
    dice: random.Random,
    progress: _Progress,
    stop: threading.Event,
) -> None:
    symbols = [
        row[0] for row in conn.execute("SELECT symbol FROM universe WHERE tier IN ('T0', 'T1')")
    ]
    began = progress.began = progress.began or _market_now(conn)
    while not stop.is_set() and not progress.over:
        share = min(1.0, (_market_now(conn) - began) / (progress.until - began))
        while progress.done < progress.reads * share and not stop.is_set():
            file.write(json.dumps(_read(conn, dice, symbols, began)) + "\n")
            progress.done += 1
        file.flush()
        progress.over = share >= 1.0
        stop.wait(0.05)


def _market_now(conn: psycopg.Connection[Any]) -> datetime:
    row = conn.execute("SELECT gapless_now()").fetchone()
    assert row is not None
    return row[0]


def _read(
    conn: psycopg.Connection[Any], dice: random.Random, symbols: list[str], began: datetime
) -> dict[str, Any]:
    row = conn.execute("SELECT safe_as_of()").fetchone()
    assert row is not None
    horizon: datetime = row[0]
    as_of = horizon
    if dice.random() > _NEWEST_SHARE:
        as_of = began + (horizon - began) * dice.random()
    daily = dice.random() < _DAILY_SHARE
    start = as_of - timedelta(days=2) if daily else as_of - timedelta(minutes=dice.randint(3, 45))
    question: dict[str, Any] = {
        "symbols": dice.sample(symbols, 1),
        "interval": "1d" if daily else "1m",
        "start": start,
        "end": as_of + timedelta(minutes=1),
        "as_of": as_of,
    }
    everything = dice.random() < _ALL_SHARE
    rows = conn.execute(ALL if everything else ONE, question).fetchall()
    late = sum(1 for answer in rows if answer[-1] > as_of)
    plain = {
        key: value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
        for key, value in question.items()
    }
    return {**plain, "all": everything, "digest": digest(rows), "rows": len(rows), "beyond": late}
