"""Which source wins a bar: append-only rank sets, so that a reload changes no past answer."""

from collections.abc import Sequence
from datetime import datetime

from db import horizon
from db.pool import Connection, Database
from db.sql import sql


def publish(db: Database, capability: str, bands: Sequence[Sequence[str]]) -> bool:
    """Make bands the rank from now on; the same bands again write nothing.

    Args:
        db: Where.
        capability: ``bars_1m``, ``bars_eod`` or ``quotes_l1``.
        bands: Source names, best band first; position breaks ties inside a band.

    Returns:
        Whether the rank changed.
    """
    wanted = [(band, name) for band, names in enumerate(bands) for name in names]

    def work(conn: Connection, as_of: datetime) -> bool:
        if current(conn, capability) == wanted:
            return False
        conn.execute(
            sql("ranks", "add"),
            {
                "capability": capability,
                "as_of": as_of,
                "bands": [band for band, _ in wanted],
                "names": [name for _, name in wanted],
            },
        )
        return True

    return horizon.run(db, work, lock="ranks")


def current(conn: Connection, capability: str) -> list[tuple[int, str]]:
    """Band and source of the newest rank set, in order."""
    return [
        (band, name)
        for band, name in conn.execute(sql("ranks", "current"), {"capability": capability})
    ]
