"""The rows that answers add to what is stored: fetch the newest versions, compare, copy."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any

from core.bars import Bar
from core.windows import Window
from core.words import Interval, Status
from db.batches import Series
from db.pool import Connection
from db.revisions import combine, decide
from db.sql import sql

ABSENT_TWICE = "absent from two settled answers in a row"

Row = tuple[Any, ...]
"""key, as_of, provider_id, asked_at, status, reason, then the fields of the bar; see ``_TYPES``."""
Versions = Mapping[Any, Row]
"""Newest stored version of a symbol's bars by ts, by session where daily; see the queries newest_*."""

_FIELDS: Callable[[Bar], Row] = attrgetter(
    "ts", "open", "high", "low", "close", "volume", "vwap", "trade_count"
)
_PARTIAL: Callable[[Bar], bool] = attrgetter("partial")
_NO_VALUES = (None,) * 7
_FINAL, _PARTIAL_STATUS = int(Status.FINAL), int(Status.PARTIAL)
_STATUS, _TS = 5, 7
_TYPES = [
    "timestamptz",
    "int2",
    "timestamptz",
    "int2",
    "text",
    "timestamptz",
    *["float8"] * 6,
    "int4",
]


def newest_versions(
    conn: Connection, interval: Interval, provider_id: int, asked: Sequence[Series]
) -> dict[int, dict[Any, Row]]:
    """Newest stored versions in each series' window, by symbol and bar key."""
    if not asked:
        return {}
    start = min(series.window.start for series in asked)
    end = max(series.window.end for series in asked)
    parameters: dict[str, Any] = {
        "ids": [series.symbol_id for series in asked],
        "provider_id": provider_id,
        "interval_s": interval.seconds,
        "start_ts": start,
        "end_ts": end,
    }
    name = "newest_same_window"
    if interval is Interval.D1 or any(series.window != asked[0].window for series in asked):
        name = "newest_daily" if interval is Interval.D1 else "newest_each_window"
        parameters["starts"] = [series.window.start for series in asked]
        parameters["ends"] = [series.window.end for series in asked]
    found: dict[int, dict[Any, Row]] = {series.symbol_id: {} for series in asked}
    for row in conn.execute(sql("candles", name), parameters, binary=True).fetchall():
        found[row[0]][row[1]] = row
    return found


class RowBuilder:
    """Builds the rows of one write and counts them by status."""

    def __init__(
        self, interval: Interval, as_of: datetime, provider_id: int, reason: str | None
    ) -> None:
        self._fresh: list[Series] = []
        self._changed: list[Sequence[Row]] = []
        self.counts = dict.fromkeys(Status, 0)
        """Rows by status."""
        self._daily = interval is Interval.D1
        self._interval_s = interval.seconds
        self._as_of = as_of
        self._provider_id = provider_id
        self._reason = reason

    def add_new(self, asked: Sequence[Series]) -> None:
        """Rows of series of which nothing is stored in their windows; in key order, like all."""
        if self._daily:
            for series in asked:
                self.add_changed(series, {}, (), None)
            return
        for series in asked:
            if len(series.answers) == 1:
                self._fresh.append(series)
            elif series.answers:
                self.add_changed(series, {}, (), None)
        bars = [series.answers[0].bars for series in self._fresh]
        growing = sum(map(_PARTIAL, chain.from_iterable(bars)))
        self.counts[Status.PARTIAL] += growing
        self.counts[Status.FINAL] += sum(map(len, bars)) - growing

    def rows(self) -> Iterator[Row]:
        """The rows in key order, made while they are copied.

        20,000 tuples at once cost the collector of garbage more than the copy.
        """
        changed = iter(sorted(self._changed, key=lambda rows: rows[0][0]))
        later = next(changed, None)
        shared = (self._interval_s, self._as_of, self._provider_id)
        for series in self._fresh:
            while later is not None and later[0][0] < series.symbol_id:
                yield from later
                later = next(changed, None)
            answer = series.answers[0]
            final = (series.symbol_id, *shared, answer.asked_at, _FINAL, None)
            for bar in answer.bars:
                yield ((*final[:5], _PARTIAL_STATUS, None) if bar.partial else final) + _FIELDS(bar)
        while later is not None:
            yield from later
            later = next(changed, None)

    def add_changed(
        self,
        series: Series,
        stored: Versions,
        lacked_before: Sequence[Window],
        answered_before: datetime | None,
    ) -> None:
        """Rows for what differs from the newest stored versions, and tombstones.

        Args:
            series: The answers.
            stored: Newest stored versions in the series' window.
            lacked_before: Time that the newest settled answer before this batch lacked.
            answered_before: When that answer was asked for; the same ask again is no second one.
        """
        bars = self._fold(series)
        rows: list[Row] = []
        for key, (bar, asked_at) in bars.items():
            row = self._row(series.symbol_id, key, bar, asked_at, stored.get(key))
            if row is not None:
                rows.append(row)
        if lacked_before:
            gone = self._gone(series, bars.keys(), stored, lacked_before, answered_before)
            rows += [
                self._tombstone(series.symbol_id, key, stored[key], asked_at)
                for key, asked_at in gone.items()
            ]
        # Key order keeps the index's pages together.
        rows.sort(key=itemgetter(_TS))
        if rows:
            self._changed.append(rows)
        for row in rows:
            self.counts[row[_STATUS]] += 1

    def _fold(self, series: Series) -> dict[datetime | date | None, tuple[Bar, datetime]]:
        bars: dict[datetime | date | None, tuple[Bar, datetime]] = {}
        for answer in series.answers:
            for bar in answer.bars:
                key = bar.session if self._daily else bar.ts
                earlier = bars.get(key)
                bars[key] = (
                    (bar, answer.asked_at)
                    if earlier is None
                    else (combine(earlier[0], bar), answer.asked_at)
                )
        return bars

    def _row(
        self, symbol_id: int, key: Any, bar: Bar, asked_at: datetime, stored: Row | None
    ) -> Row | None:
        if stored is None:
            status, values = int(not bar.partial), _FIELDS(bar)[1:]
        else:
            decided = decide(stored[2], stored[3], stored[4:11], bar, asked_at)
            if decided is None:
                return None
            status, values = decided
        reason = self._reason if status == Status.REVISED else None
        return (
            symbol_id,
            key if self._daily else self._interval_s,
            self._as_of,
            self._provider_id,
            asked_at,
            status,
            reason,
            bar.ts,
            *values,
        )

    def _gone(
        self,
        series: Series,
        answered: Any,
        stored: Versions,
        lacked_before: Sequence[Window],
        answered_before: datetime | None,
    ) -> dict[Any, datetime]:
        gone: dict[Any, datetime] = {}
        for answer in series.answers:
            if answered_before is None or answer.asked_at <= answered_before:
                continue
            lacking = answer.settled_lacking()
            for key, row in stored.items():
                ts = row[11] if self._daily else key
                if (
                    row[2] != Status.WITHDRAWN
                    and key not in answered
                    and any(window.contains(ts) for window in lacking)
                    and any(window.contains(ts) for window in lacked_before)
                ):
                    gone[key] = answer.asked_at
        return gone

    def _tombstone(self, symbol_id: int, key: Any, stored: Row, asked_at: datetime) -> Row:
        return (
            symbol_id,
            key if self._daily else self._interval_s,
            self._as_of,
            self._provider_id,
            asked_at,
            int(Status.WITHDRAWN),
            ABSENT_TWICE,
            stored[11] if self._daily else key,
            *_NO_VALUES,
        )


def copy_rows(conn: Connection, interval: Interval, rows: Iterable[Row]) -> None:
    """Append rows by binary COPY; they should come in key order."""
    daily = interval is Interval.D1
    with conn.cursor().copy(sql("candles", "copy_daily" if daily else "copy_intraday")) as copy:
        copy.set_types(["int4", "date" if daily else "int4", *_TYPES])
        write_row = copy.write_row
        for row in rows:
            write_row(row)
