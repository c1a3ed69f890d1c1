"""Takes revisions of another database in, exactly where that is honest, else as news.

A series that nobody ever asked for here is restored: its rows keep their as_of, so that reads of the
past find what the other database knew. It stays open for restoring (a second file, a run that was
killed) until a collector or an import writes to it. From then on an import is new knowledge: judged
by the rules of any other answer, as_of is now, the original as_of is told in the reason.

While anything is restored, readers' horizon is held below the start of the import, so that no read
at a later instant sees half of it. Every batch is one transaction under the locks of ``db.candles``;
the same rows again add nothing.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from types import TracebackType
from typing import Any

import psycopg

from core.errors import UnknownSymbolError
from core.words import Interval, Tier
from db import universe
from db.errors import translate
from db.horizon import announce, patiently, stamp
from db.pool import Connection, Database, connect
from db.reading import safe_as_of
from db.revision_merge import Cursor, Merged, Stored, learn, restore, stretches
from db.revision_rows import Revision
from db.sources import source_id
from db.sql import sql

Rejects = list[tuple[int, str]]
"""Line of the file, reason."""

_Placed = tuple[int, Revision]
"""A revision under its symbol's key here."""
_TYPES = [
    "int2", "timestamptz", "timestamptz", "int2", "text", *["float8"] * 6, "int4", "timestamptz",
]  # fmt: skip


@dataclass(slots=True)
class Counts:
    """What an import did so far, in rows."""

    restored: int = 0
    """Written with the as_of that they had."""
    learnt: int = 0
    """Written as new knowledge."""
    known: int = 0
    """Added nothing: stored already, or older than what is stored."""
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class NewSymbols:
    """What symbols that the universe lacks are made of."""

    tier: Tier
    calendar: str
    exchange: str


@dataclass(slots=True)
class Importer:
    """One import; use it in a ``with`` block, which holds the horizon where it must."""

    db: Database
    create: NewSymbols | None = None
    """Add symbols that the universe lacks; None: refuse them."""
    as_news: bool = False
    """Restore nothing, take everything as new knowledge."""
    counts: Counts = field(default_factory=Counts)
    _open: ExitStack = field(default_factory=ExitStack)
    _hold: Connection | None = None
    _key: int = 0
    _safe: datetime | None = None
    _cut: datetime | None = None
    _names: dict[str, list[tuple[int, datetime | None, datetime | None]]] = field(
        default_factory=dict[str, list[tuple[int, datetime | None, datetime | None]]]
    )
    _sources: dict[str, tuple[int, str]] = field(default_factory=dict[str, tuple[int, str]])
    _cursors: set[tuple[int, int, int]] = field(default_factory=set[tuple[int, int, int]])

    def __enter__(self) -> "Importer":
        with self.db.transaction() as conn:
            row = conn.execute(sql("transfer", "retention_cut")).fetchone()
        self._cut = row[0] if row else None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The hold ends with its connection, but only when the server has noticed that it is gone;
        # who reads right after the import is to find all of it.
        with self._open:  # which tells of psycopg's errors in our words
            if self._hold is not None and error is None:
                self._hold.execute(sql("transfer", "release_horizon"), {"key": self._key})

    def add(self, revisions: Sequence[Revision]) -> Rejects:
        """Store what a batch of rows adds, one transaction for each source and interval in it.

        Returns:
            The rows that can't be stored, each with the reason.

        Raises:
            UnknownSymbolError: a symbol that the universe lacks, unless they are to be created.
            StorageError: the database can't be written; what went before is committed.
        """
        self._learn_names(dict.fromkeys(revision.symbol for revision in revisions))
        rejects: Rejects = []
        groups: dict[tuple[Interval, str], list[_Placed]] = {}
        for revision in revisions:
            symbol_id, refused = self._place(revision)
            if symbol_id is None:
                rejects.append((revision.line, refused))
            else:
                group = groups.setdefault((revision.interval, revision.provider), [])
                group.append((symbol_id, revision))
        for (interval, provider), placed in sorted(groups.items(), key=itemgetter(0)):
            placed.sort(key=lambda row: (row[0], row[1].key, row[1].as_of, row[1].line))
            rejects += self._write(interval, self._sources[provider][0], placed)
        self.counts.rejected += len(rejects)
        return rejects

    def _place(self, revision: Revision) -> tuple[int | None, str]:
        if self._cut is not None and revision.ts < self._cut:
            return None, (
                f"ts {revision.ts.isoformat()} lies before {self._cut.isoformat()}, "
                "where the retention of candles ends"
            )
        _, adjustment = self._source(revision)
        if revision.adjustment not in (None, adjustment):
            return None, (
                f"prices of {revision.provider} are {adjustment} here, {revision.adjustment} in the "
                "file; the two are never mixed, give the file's provider another name"
            )
        for symbol_id, start, end in self._names[revision.symbol]:
            if (start is None or start <= revision.ts) and (end is None or revision.ts < end):
                return symbol_id, ""
        return None, f"nobody had the name {revision.symbol} at {revision.ts.isoformat()}"

    def _source(self, revision: Revision) -> tuple[int, str]:
        name = revision.provider
        if name not in self._sources:
            with self.db.transaction() as conn:
                provider_id = source_id(conn, name, revision.adjustment or "raw")
                row = conn.execute(
                    sql("transfer", "adjustment"), {"provider_id": provider_id}
                ).fetchone()
                assert row is not None
                self._sources[name] = (provider_id, row[0])
        return self._sources[name]

    def _learn_names(self, names: Mapping[str, None]) -> None:
        new = [name for name in names if name not in self._names]
        if not new:
            return
        found = self._find_names(new)
        missing = [name for name in new if name not in found]
        if missing and self.create is not None:
            given = (self.create.tier, self.create.calendar, self.create.exchange)
            universe.load(
                self.db, [(name, *given) for name in missing], origin="import", replace=False
            )
            found |= self._find_names(missing)
        elif missing:
            more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
            raise UnknownSymbolError(
                f"symbol {', '.join(missing[:10])}{more} is not in the universe; load it with "
                "`ops universe load --add FILE`, or repeat with --create-symbols "
                "(what was imported before this row stays and is not imported twice)"
            )
        self._names |= found

    def _find_names(
        self, names: Sequence[str]
    ) -> dict[str, list[tuple[int, datetime | None, datetime | None]]]:
        found: dict[str, list[tuple[int, datetime | None, datetime | None]]] = {}
        parameters = {"symbols": list(names), "start": None, "end": None}
        with self.db.transaction() as conn:
            for symbol_id, name, start, end in conn.execute(sql("transfer", "names"), parameters):
                found.setdefault(name, []).append((symbol_id, start, end))
        return found

    def _write(self, interval: Interval, provider_id: int, placed: Sequence[_Placed]) -> Rejects:
        ids = sorted({symbol_id for symbol_id, _ in placed})
        common: dict[str, Any] = {
            "interval_s": interval.seconds,
            "provider_id": provider_id,
            "ids": ids,
        }
        self._make_ready(common)
        merged = patiently(
            self.db,
            lambda: self.db.run(lambda conn: self._merge(conn, interval, common, placed)),
        )
        self.counts.restored += len(merged.restored)
        self.counts.learnt += len(merged.learnt)
        self.counts.known += merged.known
        return merged.rejects

    def _make_ready(self, common: Mapping[str, Any]) -> None:
        """Before the write: cursor rows to lock, and the horizon held if anything is restored."""
        made = {
            (common["interval_s"], common["provider_id"], symbol_id) for symbol_id in common["ids"]
        }
        if not made <= self._cursors:
            self.db.run(lambda conn: conn.execute(sql("transfer", "ensure_cursors"), common))
            self._cursors |= made
        if self.as_news:
            return
        with self.db.transaction() as conn:
            row = conn.execute(sql("transfer", "never_asked"), common).fetchone()
        if row is None or not row[0]:
            return
        if self._hold is None:
            self._hold = self._open.enter_context(
                connect(self.db.url, application="gapless-import")
            )
            row = self._hold.execute(sql("transfer", "hold_horizon")).fetchone()
            assert row is not None
            self._key = row[0]
            self._safe = safe_as_of(self._hold)
        else:
            # Fails when the connection, and so the hold, was lost: a repeated run goes on from here.
            try:
                safe_as_of(self._hold)
            except psycopg.Error as error:
                raise translate(error) from error

    def _merge(
        self,
        conn: Connection,
        interval: Interval,
        common: Mapping[str, Any],
        placed: Sequence[_Placed],
    ) -> Merged:
        announce(conn)
        cursors = {
            symbol_id: Cursor(last_as_of, last_asked_at)
            for symbol_id, last_as_of, last_asked_at in conn.execute(
                sql("transfer", "lock_cursors"), common, binary=True
            )
        }
        now = stamp(conn)
        stored = _stored(conn, interval, common, placed)
        merged = Merged()
        for (symbol_id, key), rows in groupby(placed, key=lambda row: (row[0], row[1].key)):
            versions = [revision for _, revision in rows]
            before = stored.get((symbol_id, key), [])
            cursor = cursors[symbol_id]
            if cursor.last_asked_at is None and self._safe is not None and not self.as_news:
                restore(merged, symbol_id, versions, before, self._safe)
            else:
                learn(merged, symbol_id, versions, before, cursor.after(now))
        added = merged.restored + merged.learnt
        if added:
            added.sort(key=lambda row: (row.symbol_id, row.key, row.as_of))
            daily = interval is Interval.D1
            with conn.cursor().copy(
                sql("transfer", "copy_daily" if daily else "copy_intraday")
            ) as copy:
                copy.set_types(["int4", "date" if daily else "int4", *_TYPES])
                for row in added:
                    second = row.key if daily else interval.seconds
                    copy.write_row(
                        (row.symbol_id, second, common["provider_id"], row.as_of, *row.content)
                    )
            conn.execute(
                sql("transfer", "touch_cursors"),
                {**common, "as_of": now, **stretches(merged, interval)},
            )
        if merged.restored:
            restored = sorted({row.symbol_id for row in merged.restored})
            conn.execute(sql("transfer", "backdate_names"), {"ids": restored})
        return merged


def _stored(
    conn: Connection, interval: Interval, common: Mapping[str, Any], placed: Sequence[_Placed]
) -> dict[tuple[int, Any], list[Stored]]:
    """Every stored revision in the hull of each series' rows, by symbol and bar, oldest first."""
    ids: list[int] = []
    starts: list[Any] = []
    ends: list[Any] = []
    for symbol_id, rows in groupby(placed, key=itemgetter(0)):
        keys = [revision.key for _, revision in rows]
        ids.append(symbol_id)
        starts.append(keys[0])
        ends.append(keys[-1])
    parameters = {
        **common,
        "ids": ids,
        "starts": starts,
        "ends": ends,
        "low": min(starts),
        "high": max(ends),
    }
    name = "stored_daily" if interval is Interval.D1 else "stored_intraday"
    found: dict[tuple[int, Any], list[Stored]] = {}
    for symbol_id, key, as_of, *content in conn.execute(
        sql("transfer", name), parameters, binary=True
    ):
        found.setdefault((symbol_id, key), []).append((as_of, tuple(content)))
    return found
