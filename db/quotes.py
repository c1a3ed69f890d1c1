"""The write path of quotes: the newest of each series is locked and compared, only changes are kept.

``quote_heads`` plays the part that cursors play for bars: it is what a writer locks, in key order,
before it takes its as_of.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

from core.bars import Quote
from core.errors import StorageError
from db.evidence import PackedPayload, Payload, add_payloads, pack
from db.horizon import TICK, patiently
from db.inbox import answered
from db.pool import Connection, Database
from db.sources import source_id
from db.sql import sql

_NO_ELEMENTS: Mapping[int, Sequence[str]] = MappingProxyType({})
_TYPES = ["int4", "timestamptz", "int2", "timestamptz", *["float8"] * 6]

_Key = tuple[int, datetime]
_Values = tuple[float | None, ...]
"""bid, ask, bid_size, ask_size, last, last_size."""


class _UnknownSeriesError(StorageError):
    """A head of the batch does not exist yet."""


def write_quotes(
    db: Database,
    source: str,
    quotes: Sequence[tuple[int, Quote]],
    *,
    payloads: Sequence[Payload] = (),
    inbox: Mapping[int, Sequence[str]] = _NO_ELEMENTS,
) -> int:
    """Store quotes that differ from what is known; the same quotes again add nothing.

    A quote is one symbol's, one source's, at one market time. Other values for a time that is stored
    already are a new version of it; a quote older than the newest is stored in its place.

    Args:
        db: Where.
        source: Who said so.
        quotes: Symbol id and quote.
        payloads: Raw replies to keep.
        inbox: Coordinator element -> symbols answered.

    Returns:
        Rows added.
    """
    wanted: dict[int, dict[datetime, _Values]] = {}
    for symbol_id, quote in quotes:
        wanted.setdefault(symbol_id, {})[quote.ts] = _values(quote)
    packed = pack(payloads)

    def attempt() -> int:
        try:
            return db.run(lambda conn: _write(conn, source, wanted, packed, inbox))
        except _UnknownSeriesError:
            db.run(lambda conn: _make_heads(conn, source, wanted))
            return db.run(lambda conn: _write(conn, source, wanted, packed, inbox))

    return patiently(db, attempt)


def _make_heads(conn: Connection, source: str, wanted: Mapping[int, Any]) -> None:
    parameters = {"ids": sorted(wanted), "provider_id": source_id(conn, source)}
    conn.execute(sql("quotes", "ensure_heads"), parameters)


def _write(
    conn: Connection,
    source: str,
    wanted: Mapping[int, Mapping[datetime, _Values]],
    payloads: Sequence[PackedPayload],
    inbox: Mapping[int, Sequence[str]],
) -> int:
    with conn.pipeline():
        conn.execute(sql("horizon", "write_lock"))
        locked = conn.execute(
            sql("quotes", "lock_heads"), {"ids": sorted(wanted), "source": source}, binary=True
        )
        stamped = conn.execute(sql("horizon", "stamp"))
    heads = {row[0]: row[1:] for row in locked}
    if len(heads) < len(wanted):
        raise _UnknownSeriesError(f"{len(wanted) - len(heads)} quote heads do not exist yet")
    row = stamped.fetchone()
    assert row is not None
    as_of: datetime = max([row[0], *(h[1] + TICK for h in heads.values() if h[1] is not None)])
    provider_id = next(iter(heads.values()))[0] if heads else source_id(conn, source)

    stored = _stored(conn, provider_id, wanted, heads)
    rows: list[tuple[Any, ...]] = []
    newest: dict[int, tuple[datetime, _Values]] = {}
    for symbol_id in sorted(wanted):
        head_ts = heads[symbol_id][2]
        for ts, values in sorted(wanted[symbol_id].items()):
            if stored.get((symbol_id, ts)) != values:
                rows.append((symbol_id, ts, provider_id, as_of, *values))
                if head_ts is None or ts >= head_ts:
                    newest[symbol_id] = (ts, values)
    if rows:
        with conn.cursor().copy(sql("quotes", "copy")) as copy:
            copy.set_types(_TYPES)
            for values in rows:
                copy.write_row(values)
    _move_heads(conn, provider_id, as_of, wanted, newest)
    add_payloads(conn, payloads, provider_id=provider_id, as_of=as_of)
    answered(conn, inbox)
    return len(rows)


def _stored(
    conn: Connection,
    provider_id: int,
    wanted: Mapping[int, Mapping[datetime, _Values]],
    heads: Mapping[int, tuple[Any, ...]],
) -> dict[_Key, _Values]:
    """Newest stored values of the wanted times; the heads know most of them."""
    found: dict[_Key, _Values] = {
        (symbol_id, head[2]): head[3:] for symbol_id, head in heads.items() if head[2] is not None
    }
    late = [
        (symbol_id, ts)
        for symbol_id, by_time in wanted.items()
        for ts in by_time
        if heads[symbol_id][2] is not None and ts < heads[symbol_id][2]
    ]
    if late:
        parameters: dict[str, Any] = {
            "ids": [symbol_id for symbol_id, _ in late],
            "times": [ts for _, ts in late],
            "low": min(ts for _, ts in late),
            "high": max(ts for _, ts in late),
            "provider_id": provider_id,
        }
        for row in conn.execute(sql("quotes", "stored"), parameters, binary=True):
            found[row[0], row[1]] = row[2:]
    return found


def _move_heads(
    conn: Connection,
    provider_id: int,
    as_of: datetime,
    wanted: Mapping[int, Any],
    newest: Mapping[int, tuple[datetime, _Values]],
) -> None:
    moved = sorted(newest.items())
    parameters: dict[str, Any] = {"provider_id": provider_id, "as_of": as_of}
    if moved:
        columns = list(zip(*(values for _, (_, values) in moved), strict=True))
        names = ("bid", "ask", "bid_size", "ask_size", "last", "last_size")
        conn.execute(
            sql("quotes", "move_heads"),
            {
                **parameters,
                "ids": [symbol_id for symbol_id, _ in moved],
                "times": [ts for _, (ts, _) in moved],
                **{name: list(column) for name, column in zip(names, columns, strict=True)},
            },
        )
    quiet = sorted(wanted.keys() - newest.keys())
    if quiet:
        conn.execute(sql("quotes", "touch_heads"), {**parameters, "ids": quiet})


def _values(quote: Quote) -> _Values:
    return (
        quote.bid,
        quote.ask,
        quote.bid_size,
        quote.ask_size,
        quote.last,
        quote.last_size,
    )
