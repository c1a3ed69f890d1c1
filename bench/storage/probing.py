"""Reads that are remembered, and reads that are compared with the model, bar by bar."""

import hashlib
import random
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from bench.run import Place
from bench.storage.market import MINUTE
from bench.storage.model import Model, Seen
from bench.storage.reads import OURS
from bench.storage.story import MINUTES
from core.windows import Window
from db.pool import Connection, Database
from db.reading import safe_as_of

_SYMBOLS, _READ_MINUTES = 10, 25
"""Of one read that probes; each of its minutes is a probe."""
_TICK = timedelta(microseconds=1)


class Reader:
    """Reads a window of some symbols as people do, and remembers what it saw."""

    def __init__(self, db: Database, names: Sequence[str], start: datetime) -> None:
        self.db = db
        self._names = names
        self._start = start
        self._chooser = random.Random(4)
        self.seen: list[tuple[Mapping[str, Any], str]] = []

    def choose(self, symbols: int, minutes: int) -> dict[str, Any]:
        """Random symbols and a random window of a read."""
        first = self._start + self._chooser.randrange(MINUTES - minutes + 1) * MINUTE
        return {
            "names": self._chooser.sample(self._names, symbols),
            "start": first,
            "end": first + minutes * MINUTE,
        }

    def horizon(self) -> datetime:
        with self.db.session() as conn:
            return safe_as_of(conn)

    def look(self) -> None:
        """One more read at the horizon, to be repeated at the end."""
        asked = self.choose(15, 90) | {"as_of": self.horizon()}
        self.seen.append((asked, self.digest(asked)))

    def digest(self, asked: Mapping[str, Any]) -> str:
        with self.db.session() as conn:
            found = sorted(map(str, self.rows(conn, asked)))
        return hashlib.sha256("\n".join(found).encode()).hexdigest()

    def rows(self, conn: Connection, asked: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        return conn.execute(OURS, asked, binary=True).fetchall()

    def changed(self) -> int:
        """How many of the reads give another answer now."""
        return sum(self.digest(asked) != digest for asked, digest in self.seen)


class Probing:
    """Compares reads with the model, bar by bar."""

    def __init__(
        self, reader: Reader, model: Model, ids: Mapping[str, int], commits: Sequence[datetime]
    ) -> None:
        self._reader = reader
        self._model = model
        self._ids = ids
        self._commits = commits
        self._chooser = random.Random(6)
        self._counts = {"lookahead": 0, "misses": 0, "wrong": 0}

    def run(self, probes: int) -> dict[str, int]:
        """So many probes, each minute of each read one."""
        each = _SYMBOLS * _READ_MINUTES
        instants = -(-probes // each)
        with self._reader.db.session() as conn:
            for _ in range(instants):
                self._probe(conn, self._instant())
        return {"probes": instants * each, "instants": instants, **self._counts}

    def _instant(self) -> datetime:
        # The very instant of a commit and the microsecond before it are where a mistake would show.
        known_from = self._chooser.choice(self._commits)
        kind = self._chooser.randrange(4)
        if kind == 0:
            return known_from
        if kind == 1:
            return known_from - _TICK
        span = self._commits[-1] - self._commits[0]
        return self._commits[0] + span * self._chooser.random()

    def _probe(self, conn: Connection, instant: datetime) -> None:
        asked = self._reader.choose(_SYMBOLS, _READ_MINUTES)
        found: dict[tuple[int, datetime], Seen] = {}
        for row in self._reader.rows(conn, asked | {"as_of": instant}):
            name, _, ts, *numbers, provider, status, as_of = row
            key = (self._ids[name], ts)
            self._counts["wrong"] += key in found
            found[key] = (tuple(numbers), provider, status, as_of)
        chosen = [self._ids[name] for name in asked["names"]]
        expected = self._model.read(chosen, Window(asked["start"], asked["end"]), instant)
        if found != expected:
            for key in found.keys() | expected.keys():
                self._judge(found.get(key), expected.get(key), instant)

    def _judge(self, found: Seen | None, expected: Seen | None, instant: datetime) -> None:
        if found == expected:
            return
        if found is not None and (found[3] > instant or expected is None or found[3] > expected[3]):
            self._counts["lookahead"] += 1
        elif found is None or (expected is not None and found[3] < expected[3]):
            self._counts["misses"] += 1
        else:
            self._counts["wrong"] += 1


def census_differs(place: Place, model: Model) -> int:
    """Versions that the store has too many or too few, by status."""
    with place.db.session() as conn:
        stored = dict(
            conn.execute(
                "SELECT gapless_status(status), count(*) FROM candles_intraday GROUP BY 1"
            ).fetchall()
        )
    told = model.census()
    return sum(abs(stored.get(s, 0) - told.get(s, 0)) for s in stored.keys() | told.keys())
