"""Every stored revision of a selection, as Arrow batches in constant memory.

One COPY a symbol, in the order of the primary key: nothing is sorted, no transaction lasts longer than
a symbol. All of them look at one horizon that was taken before, so together they are one answer.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.errors import UnknownSymbolError, UsageError
from core.words import Interval
from db.copy_arrow import schema, stream
from db.pool import Database
from db.reading import safe_as_of
from db.sql import sql

COLUMNS = {
    "symbol": "text", "interval": "text", "ts": "timestamptz", "session": "date", "provider": "text",
    "adjustment": "text", "as_of": "timestamptz", "status": "text", "asked_at": "timestamptz", "open": "float8",
    "high": "float8", "low": "float8", "close": "float8", "volume": "float8", "vwap": "float8",
    "trade_count": "int4", "reason": "text",
}  # fmt: skip
"""What a revision is made of, by name and PostgreSQL type; the columns of a file."""

_STATEMENTS = {Interval.M1: "export_intraday", Interval.D1: "export_daily"}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which revisions."""

    symbols: Sequence[str] | None = None
    """Names, meant at each bar's own time; None: all."""
    intervals: Sequence[Interval] = (Interval.M1, Interval.D1)
    start: datetime | None = None
    """First bar start, None: from the first."""
    end: datetime | None = None
    """Open end of bar starts, None: to the last."""
    providers: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Export:
    """A selection being read."""

    as_of: datetime
    """The horizon: what was learnt later is not in it."""
    symbols: int
    """Parts to come, for a measure of progress."""
    schema: Any
    parts: Iterator[Iterator[Any]]
    """One iterator of record batches a symbol, to be used in order."""


@contextmanager
def export(db: Database, selection: Selection, as_of: datetime | None = None) -> Generator[Export]:
    """Open a selection for reading, as known at ``as_of`` (None: the horizon).

    Raises:
        UnknownSymbolError: a name that nobody had in the window.
        UsageError: an interval that is not stored, or ``as_of`` beyond the horizon.
    """
    derived = [i for i in selection.intervals if i not in _STATEMENTS]
    if derived:
        raise UsageError(
            f"interval {', '.join(derived)} is not stored but made from 1m; export 1m or 1d, "
            "or take derived bars from `ops bars`"
        )
    with db.transaction() as conn:
        horizon = safe_as_of(conn)
        if as_of is not None and as_of > horizon:
            raise UsageError(
                f"as_of {as_of.isoformat()} lies beyond the horizon {horizon.isoformat()}: "
                "open writes can still change it; leave it out for the horizon"
            )
        known_by = as_of or horizon
        names = conn.execute(
            sql("transfer", "names"),
            {
                "symbols": None if selection.symbols is None else list(selection.symbols),
                "start": selection.start,
                "end": selection.end,
            },
        ).fetchall()
    missing = sorted(set(selection.symbols or ()) - {name for _, name, _, _ in names})
    if missing:
        raise UnknownSymbolError(
            f"symbol {', '.join(missing)} was never in the universe; see `ops universe show`"
        )
    yield Export(
        known_by,
        len(names),
        schema(COLUMNS),
        (_symbol(db, selection, known_by, name) for name in names),
    )


def _symbol(
    db: Database, selection: Selection, known_by: datetime, name: tuple[Any, ...]
) -> Iterator[Any]:
    symbol_id, symbol, low, high = name
    parameters = {
        "symbol": symbol,
        "symbol_id": symbol_id,
        "low": low,
        "high": high,
        "as_of": known_by,
        "providers": None if selection.providers is None else list(selection.providers),
    }
    for interval in selection.intervals:
        with db.transaction() as conn:
            yield from stream(conn, sql("transfer", _STATEMENTS[interval]), parameters, COLUMNS)
