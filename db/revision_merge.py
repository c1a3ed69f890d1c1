"""Which rows of a file become rows of a series: the rules of an import, pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Any

from core.windows import Window
from core.words import Interval, Status
from db.horizon import TICK
from db.revision_rows import Revision
from db.revisions import decide

Content = tuple[Any, ...]
"""asked_at, status, reason, the seven values, ts."""
Stored = tuple[datetime, Content]
"""as_of and content of a stored revision."""

MARK = "import: known elsewhere at"
"""How the reason of a row that was imported as new knowledge begins; the original as_of follows."""

_NO_VALUES = (None,) * 7
# Shorter holes are bridged in the cursor: a range for each minute of a thin symbol would make it slow,
# and a hole that is merely unsettled is still a gap.
_BRIDGED = {Interval.M1: timedelta(hours=1), Interval.D1: timedelta(days=7)}


@dataclass(frozen=True, slots=True)
class Cursor:
    """What decides over a series, as it was when its lock was taken."""

    last_as_of: datetime | None
    last_asked_at: datetime | None
    """None: nobody ever asked for it here."""

    def after(self, now: datetime) -> datetime:
        """The first as_of that new knowledge may have."""
        return now if self.last_as_of is None else max(now, self.last_as_of + TICK)


@dataclass(frozen=True, slots=True)
class Row:
    """A row to write."""

    symbol_id: int
    key: datetime | date
    as_of: datetime
    content: Content

    @property
    def ts(self) -> datetime:
        return self.content[-1]


@dataclass(slots=True)
class Merged:
    """What one transaction writes, and what not."""

    restored: list[Row] = field(default_factory=list[Row])
    learnt: list[Row] = field(default_factory=list[Row])
    known: int = 0
    rejects: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])


def restore(
    merged: Merged,
    symbol_id: int,
    versions: Sequence[Revision],
    stored: Sequence[Stored],
    safe: datetime,
) -> None:
    """Versions of one bar, oldest first, with the as_of that they had.

    Args:
        merged: Grows.
        symbol_id: Whose bar it is.
        versions: From the file.
        stored: All that is stored of the bar: restored before, in this run or another.
        safe: No as_of may be later; what is later is of the future here.
    """
    there = dict(stored)
    for version in versions:
        content = _content(version)
        if version.as_of in there:
            if there[version.as_of] == content:
                merged.known += 1
            else:
                reason = "another version of this bar has the same as_of; only one can be right"
                merged.rejects.append((version.line, reason))
        elif version.as_of > safe:
            reason = (
                f"as_of {version.as_of.isoformat()} is not yet past here, at {safe.isoformat()}"
            )
            merged.rejects.append((version.line, reason))
        else:
            there[version.as_of] = content
            merged.restored.append(Row(symbol_id, version.key, version.as_of, content))


def learn(
    merged: Merged,
    symbol_id: int,
    versions: Sequence[Revision],
    stored: Sequence[Stored],
    as_of: datetime,
) -> None:
    """Versions of one bar, oldest first, as answers that arrive now.

    Args:
        merged: Grows.
        symbol_id: Whose bar it is.
        versions: From the file.
        stored: All that is stored of the bar, oldest first.
        as_of: Of the first row; further versions of the bar follow by a microsecond each.
    """
    there = dict(stored)
    reasons = {content[2] for content in there.values()}
    newest = stored[-1][1] if stored else None
    for version in versions:
        reason = f"{MARK} {version.as_of.isoformat()}"
        if version.reason:
            reason += f"; {version.reason}"
        if there.get(version.as_of) == _content(version) or reason in reasons:
            merged.known += 1
            continue
        verdict = _judge(version, newest)
        if verdict is None:
            merged.known += 1
            continue
        status, values = verdict
        newest = (version.asked_at, status, reason, *values, version.ts)
        merged.learnt.append(Row(symbol_id, version.key, as_of, newest))
        reasons.add(reason)
        as_of += TICK


def _judge(version: Revision, newest: Content | None) -> tuple[int, tuple[Any, ...]] | None:
    withdrawn = version.status is Status.WITHDRAWN
    if newest is None:
        return None if withdrawn else (int(version.bar().partial is False), version.values)
    asked_at, status, _, *values, _ = newest
    if withdrawn:
        gone = status != Status.WITHDRAWN and version.asked_at > asked_at
        return (int(Status.WITHDRAWN), _NO_VALUES) if gone else None
    return decide(status, asked_at, tuple(values), version.bar(), version.asked_at)


def _content(version: Revision) -> Content:
    return (version.asked_at, int(version.status), version.reason, *version.values, version.ts)


def stretches(merged: Merged, interval: Interval) -> dict[str, list[Any]]:
    """What cursors must know of the rows: time that holds bars, newest as_of and ask, by symbol.

    A restored series stays one that nobody asked for here.
    """
    found: dict[str, list[Any]] = {
        name: [] for name in ("ids", "starts", "ends", "as_ofs", "asked")
    }
    for rows, restored in ((merged.restored, True), (merged.learnt, False)):
        ordered = sorted(rows, key=attrgetter("symbol_id", "ts"))
        for symbol_id, group in groupby(ordered, key=attrgetter("symbol_id")):
            own = list(group)
            for window in _bridged((row.ts for row in own), interval):
                found["ids"].append(symbol_id)
                found["starts"].append(window.start)
                found["ends"].append(window.end)
                found["as_ofs"].append(max(row.as_of for row in own))
                found["asked"].append(None if restored else max(row.content[0] for row in own))
    return found


def _bridged(times: Iterable[datetime], interval: Interval) -> list[Window]:
    windows: list[Window] = []
    step, bridged = interval.delta, _BRIDGED[interval]
    start = end = None
    for ts in times:
        if start is None or end is None:
            start, end = ts, ts + step
        elif ts <= end + bridged:
            end = max(end, ts + step)
        else:
            windows.append(Window(start, end))
            start, end = ts, ts + step
    if start is not None and end is not None:
        windows.append(Window(start, end))
    return windows
