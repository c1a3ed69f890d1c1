"""One active scheduler: a lease with a fencing token in PostgreSQL.

The token goes with every claim of a slot and grows with every change of leader, so an old leader that
was paused and wakes up claims nothing. What it had claimed and was about to push carries the same job
ids as what its successor pushed meanwhile.
"""

import logging
import threading
from collections.abc import Callable

from db import leader as leases
from db.pool import Database
from scheduler import facts

log = logging.getLogger(__name__)

_MARGIN_S = 0.25
"""Real seconds before the lease's end from which nothing new is begun under it."""


class Leader:
    """This process's view of the lease. ``step`` runs in one thread, ``token`` is asked from any."""

    def __init__(
        self,
        db: Database,
        holder: str,
        *,
        ttl_s: float = facts.LEASE_TTL_S,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._db = db
        self._clock = db.clock
        self._holder = holder
        self._ttl_s = ttl_s
        self._changed = changed
        self._lock = threading.Lock()
        self._token: int | None = None
        self._good_until = 0.0

    def token(self) -> int | None:
        """The fencing token while the lease surely holds, else None."""
        with self._lock:
            return self._token if self._clock.monotonic() < self._good_until else None

    def step(self) -> float:
        """Renew the lease or try to get it; returns the real seconds until the next try."""
        asked = self._clock.monotonic()
        with self._lock:
            token = self._token
        if token is None:
            token = leases.acquire(self._db, facts.LEASE_NAME, self._holder, self._ttl_s)
            if token is not None:
                self._hold(token, asked)
                log.info("leading", extra={"holder": self._holder, "token": token})
                self._changed()
                return self._ttl_s / 3
            return self._ttl_s / 12
        if leases.renew(self._db, facts.LEASE_NAME, self._holder, token, self._ttl_s):
            self._hold(token, asked)
            return self._ttl_s / 3
        self.lost()
        return 0.0

    def lost(self) -> None:
        """Step down: somebody else leads, or the database said so."""
        with self._lock:
            token, self._token, self._good_until = self._token, None, 0.0
        if token is not None:
            log.warning("lost the lease", extra={"holder": self._holder, "token": token})
            self._changed()

    def resign(self) -> None:
        """Give the lease back, so that a successor need not wait for its end."""
        with self._lock:
            token, self._token, self._good_until = self._token, None, 0.0
        if token is not None:
            leases.release(self._db, facts.LEASE_NAME, self._holder, token)
            log.info("resigned", extra={"holder": self._holder, "token": token})

    def _hold(self, token: int, asked: float) -> None:
        # Counted from before the question: the database's lease can only end later than ours.
        with self._lock:
            self._token = token
            self._good_until = asked + self._ttl_s - _MARGIN_S
