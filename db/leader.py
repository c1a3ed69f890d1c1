"""Leases with a fencing token, on the database's real clock.

Each call is one statement that commits by itself: a holder that is stopped in the middle keeps no
lock on the row that its successor has to change.
"""

from db.pool import Database
from db.sql import sql


def acquire(db: Database, name: str, holder: str, ttl_s: float) -> int | None:
    """Take a lease that nobody holds or that has run out.

    Returns:
        The fencing token, larger than every token before; None while somebody else holds it.
    """
    parameters = {"name": name, "holder": holder, "ttl_s": ttl_s}
    with db.session() as conn:
        row = conn.execute(sql("leader", "acquire"), parameters).fetchone()
    return None if row is None else row[0]


def renew(db: Database, name: str, holder: str, token: int, ttl_s: float) -> bool:
    """Extend the lease by ``ttl_s`` real seconds from now; False when it is somebody else's by now.

    A lease that ran out and was not taken meanwhile is renewed.
    """
    parameters = {"name": name, "holder": holder, "token": token, "ttl_s": ttl_s}
    with db.session() as conn:
        return conn.execute(sql("leader", "renew"), parameters).rowcount == 1


def release(db: Database, name: str, holder: str, token: int) -> None:
    """Give the lease back at once; does nothing when it is somebody else's."""
    parameters = {"name": name, "holder": holder, "token": token}
    with db.session() as conn:
        conn.execute(sql("leader", "release"), parameters)
