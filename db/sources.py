"""Integer keys for sources; people and other packages know only the names."""

from db.pool import Connection
from db.sql import sql


def source_id(conn: Connection, name: str, adjustment: str = "raw") -> int:
    """The key of a source, made on first use.

    Args:
        conn: Any transaction.
        name: The source's public name, such as ``yfinance`` or ``alpaca.iex``.
        adjustment: ``raw``, ``split`` or ``split_div``; taken when the row is made, kept afterwards.
    """
    # Look first: an INSERT that meets a conflict still burns a key and writes.
    row = conn.execute(sql("sources", "find"), {"name": name}).fetchone()
    if row is None:
        conn.execute(sql("sources", "add"), {"name": name, "adjustment": adjustment})
        row = conn.execute(sql("sources", "find"), {"name": name}).fetchone()
    assert row is not None
    return row[0]


def source_names(conn: Connection) -> dict[int, str]:
    """Every source that was ever written, by key."""
    return dict(conn.execute(sql("sources", "names")).fetchall())
