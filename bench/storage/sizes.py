"""Bytes a row, as rows and in compressed chunks; the same bars as scaled integers beside it.

The rows come as a live market brings them: minute by minute, all symbols at once, each batch with an
as_of and an asked_at of its own; 3 % are restated half a day later. Sizes count the heap, the key's
index and what belongs to them.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import LiteralString

from psycopg import sql

from bench.databases import Owner, compress
from bench.run import Place, Run
from bench.storage.market import DAY, MINUTE, first_open, walk
from bench.storage.peer import Row
from core.bars import Bar

_SYMBOLS_A_BATCH = 100


@dataclass(frozen=True, slots=True)
class Layout:
    """A way to store the numbers of a bar."""

    name: str
    what: str
    price: LiteralString
    volume: LiteralString
    pack: Callable[[float], float | int]
    """A price as it is stored."""


def _as_is(price: float) -> float:
    return price


def _scaled(price: float) -> int:
    return round(price * 10_000)


LAYOUTS = (
    Layout("", "float8, as it is stored", "float8", "float8", _as_is),
    Layout("int8_", "int8, prices times 10,000", "int8", "int8", _scaled),
    Layout("int4_", "int4 prices times 10,000, int8 volume", "int4", "int8", _scaled),
)


def measure(run: Run) -> None:
    """Each layout gets the same rows."""
    symbols, days = run.size(400, 100), run.size(5, 2)
    with run.place() as place:
        for layout in LAYOUTS:
            _measure(run, place, layout, symbols, days)
    run.report.note(
        f"sizes: {symbols} symbols x {days} days x 390 bars, 3 % restated, loaded minute by minute"
    )


def _measure(run: Run, place: Place, layout: Layout, symbols: int, days: int) -> None:
    table = f"bars_{layout.name or 'float8'}".rstrip("_")
    owner, watch = place.owner, run.stopwatch()
    _create(owner, table, layout, timescale=run.timescale)
    count = 0
    for batch in _batches(run, layout, symbols, days):
        count += len(batch)
        watch.time("copy", lambda batch=batch: _copy(owner, table, layout, batch), collect=False)
    owner.execute(sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(table)))
    run.report.number(
        f"bytes_per_row_{layout.name}plain",
        f"bytes a row, {layout.what}",
        _bytes(owner, table, timescale=run.timescale) / count,
    )
    if not layout.name:
        run.report.values["bytes_per_row"] = run.report.values["bytes_per_row_plain"]
    run.report.values[f"copy_{layout.name}rows_per_s"] = round(
        count / (watch.median("copy") * watch.count("copy"))
    )
    if not run.timescale:
        return
    compress(owner, table)
    key = f"bytes_per_row_{layout.name}compressed"
    size = _bytes(owner, table, timescale=True) / count
    run.report.number(key, "the same, compressed", size)


def _create(owner: Owner, table: str, layout: Layout, *, timescale: bool) -> None:
    name = sql.Identifier(table)
    price, volume = sql.SQL(layout.price), sql.SQL(layout.volume)
    owner.execute(
        sql.SQL(
            "CREATE TABLE {name} (symbol_id int4 NOT NULL, interval_s int4 NOT NULL, ts timestamptz NOT NULL,"
            " as_of timestamptz NOT NULL, asked_at timestamptz NOT NULL, open {p}, high {p}, low {p}, close {p},"
            " volume {v}, vwap {p}, trade_count int4, provider_id int2 NOT NULL, status int2 NOT NULL, reason text,"
            " PRIMARY KEY (symbol_id, interval_s, ts, provider_id, as_of))"
        ).format(name=name, p=price, v=volume)
    )
    if timescale:
        owner.execute(
            "SELECT create_hypertable(%s::regclass, by_range('ts', INTERVAL '7 days'),"
            " create_default_indexes => false)",
            [table],
        )
        owner.execute(
            sql.SQL(
                "ALTER TABLE {} SET (timescaledb.enable_columnstore,"
                " timescaledb.segmentby = 'symbol_id, interval_s, provider_id',"
                " timescaledb.orderby = 'ts DESC, as_of DESC')"
            ).format(name)
        )


def _copy(owner: Owner, table: str, layout: Layout, rows: Iterable[Row]) -> None:
    statement = sql.SQL(
        "COPY {} (symbol_id, interval_s, ts, as_of, asked_at, open, high, low, close, volume, vwap, trade_count,"
        " provider_id, status) FROM STDIN (FORMAT BINARY)"
    ).format(sql.Identifier(table))
    prices = [layout.price] * 4
    with owner.transaction(), owner.cursor().copy(statement) as copy:
        copy.set_types(
            [
                *("int4", "int4", "timestamptz", "timestamptz", "timestamptz"),
                *(*prices, layout.volume, layout.price, "int4", "int2", "int2"),
            ]
        )
        for row in rows:
            copy.write_row(row)


def _batches(run: Run, layout: Layout, symbols: int, days: int) -> Iterator[list[Row]]:
    start = first_open(run.clock)
    for day in range(days):
        chooser = random.Random(day)
        opened = start + day * DAY
        bars = {s: walk(chooser, opened, 390) for s in range(1, symbols + 1)}
        for minute in range(390):
            for first in range(1, symbols + 1, _SYMBOLS_A_BATCH):
                asked = opened + (minute + 1) * MINUTE + chooser.random() * timedelta(seconds=2)
                batch = range(first, min(first + _SYMBOLS_A_BATCH, symbols + 1))
                yield [_row(layout, s, bars[s][minute], asked, 0) for s in batch]
        evening = opened + timedelta(hours=12)
        for symbol, found in bars.items():
            late = evening + symbol * timedelta(seconds=1.7)
            yield [
                _row(layout, symbol, bar, late, 1)
                for bar in sorted(chooser.sample(found, 12), key=lambda bar: bar.ts)
            ]


def _row(layout: Layout, symbol: int, bar: Bar, asked: datetime, version: int) -> Row:
    as_of = asked + timedelta(milliseconds=180 + symbol // _SYMBOLS_A_BATCH * 7)
    pack = layout.pack
    volume = (bar.volume or 0) + 100 * version
    return (
        *(symbol, 60, bar.ts, as_of, asked, pack(bar.open), pack(bar.high), pack(bar.low)),
        *(pack(bar.close), volume if layout.pack is _as_is else int(volume)),
        *(pack(bar.vwap or 0), bar.trade_count, 1, 1 + version),
    )


def _bytes(owner: Owner, table: str, *, timescale: bool) -> int:
    query: LiteralString = "SELECT pg_total_relation_size(%s::regclass)"
    if timescale:
        query = "SELECT hypertable_size(%s::regclass)"
    row = owner.execute(query, [table]).fetchone()
    assert row is not None
    return row[0]
