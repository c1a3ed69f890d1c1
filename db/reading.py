"""Reads for people: bars through the public functions, at a horizon that can't change any more."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from core.errors import UnknownSymbolError
from core.windows import Window
from core.words import Interval
from db.pool import Connection, Database
from db.sql import sql


def safe_as_of(conn: Connection) -> datetime:
    """The newest instant of knowledge that no open write can still change.

    Call it in a statement before the one that reads (READ COMMITTED), or before BEGIN.

    Raises:
        ClockMismatchError: on a standby, which does not see the primary's open writes.
    """
    row = conn.execute(sql("reading", "safe_as_of")).fetchone()
    assert row is not None
    return row[0]


def candles(
    db: Database,
    symbols: Sequence[str],
    interval: Interval,
    window: Window,
    *,
    as_of: datetime | None = None,
    providers: Sequence[str] | None = None,
    every_source: bool = False,
) -> list[dict[str, Any]]:
    """Bars whose start lies in the window, by symbol and time, as known at ``as_of``.

    Args:
        db: Where.
        symbols: Names, meant at each bar's own time.
        interval: ``5m``, ``15m`` and ``1h`` are made from the one-minute bars then known.
        window: Of bar starts.
        as_of: None: the horizon, which is a moment ago.
        providers: Look at these sources only; None: all.
        every_source: One row a source instead of the winner's; withdrawn bars have no prices.

    Returns:
        One dict a bar with the columns of the view ``candles``.

    Raises:
        UnknownSymbolError: a name that nobody ever had.
        HorizonError: ``as_of`` lies where open writes can still change the answer.
    """
    parameters: dict[str, Any] = {
        "symbols": list(symbols),
        "interval": str(interval),
        "start": window.start,
        "end": window.end,
        "as_of": as_of,
        "providers": None if providers is None else list(providers),
    }
    with db.transaction() as conn:
        known = {name for (name,) in conn.execute(sql("reading", "known_names"), parameters)}
        unknown = [name for name in dict.fromkeys(symbols) if name not in known]
        if unknown:
            raise UnknownSymbolError(
                f"symbol {', '.join(unknown)} was never in the universe; see `ops universe show`"
            )
        with conn.cursor(row_factory=dict_row, binary=True) as cursor:
            name = "candles_all" if every_source else "candles"
            return cursor.execute(sql("reading", name), parameters).fetchall()


def first_known(
    db: Database, symbols: Sequence[str], interval: Interval, window: Window
) -> datetime | None:
    """When the first bar of the symbols that starts in the window was learnt; None: none ever was.

    Args:
        db: Where.
        symbols: Names, meant at any time.
        interval: Derived bars are known when their first minute is.
        window: Of bar starts.
    """
    parameters = {
        "symbols": list(symbols),
        "interval_s": 0 if interval is Interval.D1 else Interval.M1.seconds,
        "start": window.start,
        "end": window.end,
    }
    with db.transaction() as conn:
        row = conn.execute(sql("reading", "first_known"), parameters).fetchone()
    assert row is not None
    return row[0]
