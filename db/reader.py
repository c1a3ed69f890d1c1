"""Reads for researchers: bars, quotes and coverage as Arrow tables, exact as of an instant.

    from db.reader import connect

    with connect("postgresql://localhost/gapless") as reader:
        bars = reader.candles(["SPY", "BAC"], "5m", "2026-03-02T14:30:00Z", "2026-03-02T21:00:00Z")
        frame = bars.pandas()     # or bars.polars(), bars.arrow
        bars.as_of                # pass it again and the answer is the same, for ever

Every read is one READ COMMITTED, read-only transaction: its horizon is taken by a first statement,
the read is a second one. Docs: ``docs/reading.md``.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any, LiteralString

from core.errors import UnknownSymbolError, UsageError
from core.words import Interval
from db.clock import connect_clock
from db.copy_arrow import pa, schema, stream
from db.pool import Connection, Database
from db.reading import safe_as_of
from db.sql import sql

Instant = datetime | str
"""Aware, or ISO text with Z or an offset."""

CANDLES = {
    "symbol": "text", "interval": "text", "ts": "timestamptz", "open": "float8", "high": "float8", "low": "float8",
    "close": "float8", "volume": "float8", "vwap": "float8", "trade_count": "int8", "provider": "text",
    "status": "text", "as_of": "timestamptz",
}  # fmt: skip
QUOTES = {
    "symbol": "text", "ts": "timestamptz", "provider": "text", "bid": "float8", "ask": "float8", "bid_size": "float8",
    "ask_size": "float8", "last": "float8", "last_size": "float8", "as_of": "timestamptz",
}  # fmt: skip
COVERAGE = {
    "symbol": "text", "interval": "text", "start_ts": "timestamptz", "end_ts": "timestamptz", "state": "text",
    "provider": "text", "reason": "text", "as_of": "timestamptz",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Frame:
    """One answer, as Arrow; other libraries take it as it is through ``__arrow_c_stream__``."""

    arrow: Any
    """A ``pyarrow.Table``; times are ``timestamp[us, tz=UTC]``."""
    as_of: datetime
    """The knowledge that was read; the same read at it gives the same answer for ever."""
    index: str
    """The column of event time."""

    def __len__(self) -> int:
        return self.arrow.num_rows

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.arrow.__arrow_c_stream__(requested_schema)

    def pandas(self) -> Any:
        """A ``pandas.DataFrame`` under an index of aware UTC times."""
        return self.arrow.to_pandas().set_index(self.index)

    def polars(self) -> Any:
        """A ``polars.DataFrame``; times are ``Datetime("us", "UTC")``.

        Raises:
            UsageError: polars is not installed.
        """
        try:
            polars = import_module("polars")
        except ModuleNotFoundError:
            raise UsageError(
                "polars is not installed; `pip install polars`, or install gapless[frames]"
            ) from None
        return polars.from_arrow(self.arrow)


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer of any length."""

    as_of: datetime
    schema: Any
    batches: Iterator[Any]
    """Record batches; valid until the ``with`` block that gave the stream ends."""


class Reader:
    """Reads of one database; close it, or use it in a ``with`` block.

    Args:
        db: The database; ``connect`` makes one with the reader's role.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; a second call does nothing."""
        self._db.close()

    def safe_as_of(self) -> datetime:
        """The newest instant whose answers can't change any more; what ``as_of=None`` reads at."""
        with self._db.transaction() as conn:
            return safe_as_of(conn)

    def candles(
        self,
        symbols: str | Sequence[str] | None,
        interval: str = "1m",
        start: Instant | None = None,
        end: Instant | None = None,
        *,
        as_of: Instant | None = None,
        providers: Sequence[str] | None = None,
        all_sources: bool = False,
    ) -> Frame:
        """Bars that start in ``[start, end)``, by symbol and time, as known at ``as_of``.

        Args:
            symbols: Names, meant at each bar's own time; None: all.
            interval: ``1m``, ``1d``, or made from the one-minute bars then known: ``5m``, ``15m``, ``1h``.
            start: None: from the first.
            end: Open; None: to the last.
            as_of: None: the horizon, which is a moment ago; ``Frame.as_of`` says which.
            providers: Look at these sources only; None: all.
            all_sources: A row a source instead of the winner's; a withdrawn bar has no prices.

        Raises:
            UnknownSymbolError: a name that nobody ever had.
            HorizonError: ``as_of`` lies where open writes can still change the answer.
        """
        with self.stream_candles(
            symbols, interval, start, end, as_of=as_of, providers=providers, all_sources=all_sources
        ) as found:
            return _frame(found, "ts")

    @contextmanager
    def stream_candles(
        self,
        symbols: str | Sequence[str] | None,
        interval: str = "1m",
        start: Instant | None = None,
        end: Instant | None = None,
        *,
        as_of: Instant | None = None,
        providers: Sequence[str] | None = None,
        all_sources: bool = False,
    ) -> Generator[Stream]:
        """As ``candles``, batch by batch, for answers larger than memory."""
        _check_interval(interval)
        statement = sql("reader", "candles_all" if all_sources else "candles")
        parameters = _parameters(symbols, start, end, as_of, providers) | {"interval": interval}
        with self._read(statement, parameters, CANDLES) as found:
            yield found

    def latest(
        self,
        symbols: str | Sequence[str] | None = None,
        interval: str = "1m",
        *,
        as_of: Instant | None = None,
        look_back: timedelta = timedelta(days=7),
        providers: Sequence[str] | None = None,
    ) -> Frame:
        """The newest bar (``1m`` or ``1d``) of each symbol as known at ``as_of``; see ``candles``.

        Symbols without a bar in the last ``look_back`` before ``as_of`` are left out.

        Raises:
            UsageError: an interval that is derived.
        """
        parameters = _parameters(symbols, None, None, as_of, providers)
        parameters |= {"interval": interval, "look_back": look_back}
        with self._read(sql("reader", "latest"), parameters, CANDLES) as found:
            return _frame(found, "ts")

    def quotes(
        self,
        symbols: str | Sequence[str] | None,
        start: Instant | None = None,
        end: Instant | None = None,
        *,
        as_of: Instant | None = None,
        providers: Sequence[str] | None = None,
    ) -> Frame:
        """Quotes of every source with ``start <= ts < end``, as known at ``as_of``; see ``candles``."""
        parameters = _parameters(symbols, start, end, as_of, providers)
        with self._read(sql("reader", "quotes"), parameters, QUOTES) as found:
            return _frame(found, "ts")

    def coverage(
        self,
        symbols: str | Sequence[str] | None,
        interval: str = "1m",
        start: Instant | None = None,
        end: Instant | None = None,
        *,
        as_of: Instant | None = None,
        providers: Sequence[str] | None = None,
    ) -> Frame:
        """What was known at ``as_of`` of each stretch of ``1m`` or ``1d`` bars; see ``candles``.

        States: present, partial, withdrawn, lacked, unsettled, confirmed_empty, halted, failed,
        refused, not_entitled. Time in no stretch was never asked for by then.
        """
        _check_interval(interval)
        parameters = _parameters(symbols, start, end, as_of, providers) | {"interval": interval}
        with self._read(sql("reader", "coverage"), parameters, COVERAGE) as found:
            return _frame(found, "start_ts")

    @contextmanager
    def _read(
        self, statement: LiteralString, parameters: dict[str, Any], columns: Mapping[str, str]
    ) -> Generator[Stream]:
        with self._db.transaction() as conn:
            conn.execute(sql("reader", "read_only"))
            _refuse_unknown(conn, parameters["symbols"])
            # A statement of its own: in the statement that reads, the snapshot would be older
            # than the horizon.
            horizon = parameters["as_of"] or safe_as_of(conn)
            batches = stream(conn, statement, parameters | {"as_of": horizon}, columns)
            yield Stream(horizon, schema(columns), batches)


@contextmanager
def connect(url: str) -> Generator[Reader]:
    """A reader of the database at a connection string; takes the role ``gapless_reader`` where it may.

    Raises:
        StorageError: unreachable, refused, or not migrated.
    """
    reader = Reader(
        Database(
            url, connect_clock(url), max_size=2, role="gapless_reader", application="gapless-reader"
        )
    )
    with reader:
        yield reader


def _frame(found: Stream, index: str) -> Frame:
    return Frame(
        pa.Table.from_batches(list(found.batches), schema=found.schema), found.as_of, index
    )


def _parameters(
    symbols: str | Sequence[str] | None,
    start: Instant | None,
    end: Instant | None,
    as_of: Instant | None,
    providers: Sequence[str] | None,
) -> dict[str, Any]:
    if isinstance(symbols, str):
        symbols = [symbols]
    return {
        "symbols": None if symbols is None else list(dict.fromkeys(symbols)),
        "start": _instant(start, "start"),
        "end": _instant(end, "end"),
        "as_of": _instant(as_of, "as_of"),
        "providers": None if providers is None else list(providers),
    }


def _instant(given: Instant | None, what: str) -> datetime | None:
    if given is None:
        return None
    try:
        found = datetime.fromisoformat(given) if isinstance(given, str) else given
    except ValueError:
        raise UsageError(
            f"{what} is {given!r}; expected a time with a zone such as 2026-03-02T14:30:00Z"
        ) from None
    if found.tzinfo is None:
        raise UsageError(
            f"{what} is {given}, a time without a zone; write 2026-03-02T14:30:00Z or "
            "datetime(..., tzinfo=UTC)"
        )
    return found.astimezone(UTC)


def _check_interval(interval: str) -> None:
    if interval not in list(Interval):
        raise UsageError(f"interval {interval!r} is unknown; expected {', '.join(Interval)}")


def _refuse_unknown(conn: Connection, symbols: Sequence[str] | None) -> None:
    if symbols is None:
        return
    unknown = [
        name for (name,) in conn.execute(sql("reader", "unknown_names"), {"symbols": symbols})
    ]
    if unknown:
        raise UnknownSymbolError(
            f"symbol {', '.join(unknown)} was never in the universe; see `ops universe show`"
        )
