"""What every measure is given: where to measure, where to put figures, how much of it."""

import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from bench.databases import Owner, connected, database
from bench.report import Report
from bench.timing import Stopwatch
from core.clock import Clock
from db.pool import Database


class MeasureError(Exception):
    """A measure could not be made; the message says what was in its way."""


@dataclass(frozen=True, slots=True)
class Place:
    """A database of a measure's own."""

    url: str
    db: Database
    """As a collector has it: pooled, as gapless_writer."""
    owner: Owner
    """The peer's connection, and whatever the measure needs besides."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a bench."""

    server_url: str
    report: Report
    clock: Clock
    quick: bool
    timescale: bool

    def stopwatch(self) -> Stopwatch:
        return Stopwatch(self.clock)

    def size(self, full: int, quick: int) -> int:
        """How much: the full measure's, or a quick look's."""
        return quick if self.quick else full

    def say(self, text: str) -> None:
        """Progress, for whoever waits."""
        print(text, file=sys.stderr, flush=True)

    @contextmanager
    def place(self) -> Generator[Place]:
        """A migrated database; dropped afterwards.

        Raises:
            MeasureError: the two sides would commit with different promises.
        """
        with (
            database(self.server_url) as url,
            connected(url) as owner,
            closing(Database(url, self.clock, max_size=8)) as db,
        ):
            with db.session() as conn:
                ours = conn.execute("SHOW synchronous_commit").fetchone()
            theirs = owner.execute("SHOW synchronous_commit").fetchone()
            if ours != theirs:
                raise MeasureError(f"synchronous_commit is {ours} for us and {theirs} for the peer")
            yield Place(url, db, owner)
