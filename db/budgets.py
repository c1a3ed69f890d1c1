"""Long rolling windows of provider budgets, leased in blocks from PostgreSQL."""

from db.pool import Database
from db.sql import sql


class LongWindowLedger:
    """Counts windows longer than a minute; exact for any number of processes."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def take(self, source: str, name: str, units: int, window_s: float, wanted: int) -> int:
        """Lease up to ``wanted`` units of the window; 0 when it is used up.

        Args:
            source: Whose budget.
            name: The limit's name.
            units: Units that the provider grants per window.
            window_s: Length of the counted window, market seconds.
            wanted: Units that the caller would like.
        """
        row = {
            "source": source,
            "limit_name": name,
            "units": units,
            "window_s": window_s,
            "wanted": wanted,
        }
        with self._db.transaction() as conn:
            conn.execute(sql("budgets", "lock"), row)
            granted = conn.execute(sql("budgets", "take"), row).fetchone()
        return 0 if granted is None else granted[0]

    def seen(self, source: str) -> bool:
        """Whether the source was asked before, in any life of Redis; from now on it was."""
        with self._db.transaction() as conn:
            return conn.execute(sql("budgets", "seen"), {"source": source}).fetchone() is None
