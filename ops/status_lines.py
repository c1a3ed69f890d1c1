"""The line that ``ops up`` prints every few seconds: only what changed, troubles spelled out."""

from collections.abc import Iterator
from typing import Any

from db import backfill, overview
from db.pool import Database


class StatusLines:
    """Remembers what it said, so that a trouble is told when it begins and when it ends."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._told: set[tuple[str, str]] = set()

    def next(self) -> Iterator[str]:
        """One summary line, then a line for each failure that is new or gone."""
        with self._db.transaction() as conn:
            tiers = overview.freshness(conn)
            sources = overview.by_source(conn)
            failures = overview.recent_failures(conn)
        now = self._db.clock.now()
        answered = ", ".join(f"{row['tier']} {row['answered']}/{row['symbols']}" for row in tiers)
        waiting = sum(rows for rows, _age in backfill.depth(self._db).values())
        newest = max((row["last_answered_at"] for row in sources), default=None)
        age = (
            f"last answer {(now - newest).total_seconds():.0f} s ago" if newest else "no answer yet"
        )
        yield f"{now:%H:%M:%S}Z  symbols answered: {answered}  {age}  backfill rows {waiting}"
        yield from self._failures(failures)

    def _failures(self, failures: list[dict[str, Any]]) -> Iterator[str]:
        current = {(row["name"], row["code"]): row for row in failures}
        for key, row in current.items():
            if key not in self._told:
                yield f"  {row['name']} fails ({row['code']}): {row['detail']}; it is asked again by itself"
        for name, code in self._told - current.keys():
            yield f"  {name}: no more {code}"
        self._told = set(current)
