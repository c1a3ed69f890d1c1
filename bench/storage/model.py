"""What the store should hold, told by the rules alone: plain Python in memory, no database, no code of ``db``.

Rules. A bar unlike the newest version is a new version from that write's as_of on. What was asked for
earlier than the newest version changes nothing. Unknown volume, vwap and trade count do not replace
known ones. The first closed version is final and owes nothing to the growing ones before it, a later
one is revised, a growing bar never follows a closed one. Two settled answers in a row that both lack
a bar withdraw it. The best ranked source that has the bar and did not withdraw it wins; who has no
rank comes last, by name.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from core.bars import Bar
from core.windows import Window
from db.batches import Answer, Batch

_MINUTE = timedelta(minutes=1)

Numbers = tuple[
    float | None, float | None, float | None, float | None, float | None, float | None, int | None
]
_NOTHING: Numbers = (None, None, None, None, None, None, None)
Seen = tuple[Numbers, str, str, datetime]
"""Numbers, source, status, as_of: what a read should show of a bar."""


@dataclass(slots=True)
class _Version:
    as_of: datetime
    status: str
    numbers: Numbers
    asked_at: datetime


@dataclass(slots=True)
class _Series:
    """One symbol of one source."""

    versions: dict[datetime, list[_Version]] = field(default_factory=dict[datetime, list[_Version]])
    asked: set[datetime] = field(default_factory=set[datetime])
    """Minutes that were ever asked for and answered."""
    lacked: set[datetime] = field(default_factory=set[datetime])
    """Minutes that the newest settled answer lacked."""
    newest_ask: datetime | None = None

    def take(self, answer: Answer, as_of: datetime) -> None:
        """One answer, committed at ``as_of``."""
        for bar in answer.bars:
            self._take_bar(bar, answer.asked_at, as_of)
        window = set(_minutes([answer.window]))
        settled = {ts for ts in window if ts + _MINUTE <= answer.settled_until}
        lacking = set(_minutes(answer.lacking)) & settled
        if self.newest_ask is not None and answer.asked_at > self.newest_ask:
            present = {bar.ts for bar in answer.bars}
            for ts in (lacking & self.lacked) - present:
                self._withdraw(ts, answer.asked_at, as_of)
        if self.newest_ask is None or answer.asked_at >= self.newest_ask:
            self.lacked = (self.lacked - settled) | lacking
            self.newest_ask = answer.asked_at
        else:
            self.lacked |= lacking - self.asked
        self.asked |= window

    def _take_bar(self, bar: Bar, asked_at: datetime, as_of: datetime) -> None:
        numbers: Numbers = (
            bar.open, bar.high, bar.low, bar.close, bar.volume, bar.vwap, bar.trade_count,
        )  # fmt: skip
        history = self.versions.setdefault(bar.ts, [])
        if not history:
            history.append(
                _Version(as_of, "partial" if bar.partial else "final", numbers, asked_at)
            )
            return
        last = history[-1]
        if asked_at < last.asked_at or (bar.partial and last.status != "partial"):
            return
        if last.status == "partial" and not bar.partial:
            history.append(_Version(as_of, "final", numbers, asked_at))
            return
        known = (
            *numbers[:4],
            last.numbers[4] if numbers[4] is None else numbers[4],
            last.numbers[5] if numbers[5] is None else numbers[5],
            last.numbers[6] if numbers[6] is None else numbers[6],
        )
        if known != last.numbers:
            history.append(
                _Version(as_of, "partial" if bar.partial else "revised", known, asked_at)
            )

    def _withdraw(self, ts: datetime, asked_at: datetime, as_of: datetime) -> None:
        history = self.versions.get(ts)
        if history and history[-1].status != "withdrawn":
            history.append(_Version(as_of, "withdrawn", _NOTHING, asked_at))

    def known(self, ts: datetime, instant: datetime) -> _Version | None:
        """The newest version that was known at an instant."""
        history = self.versions.get(ts)
        if not history:
            return None
        place = bisect_right(history, instant, key=lambda version: version.as_of)
        return history[place - 1] if place else None


@dataclass(slots=True)
class Model:
    """The whole store."""

    ranks: Sequence[tuple[datetime, Sequence[str]]]
    """Since when which order of sources holds, oldest first."""
    _series: dict[tuple[int, str], _Series] = field(default_factory=dict[tuple[int, str], _Series])

    def take(self, batch: Batch, as_of: datetime) -> None:
        """A committed batch; call it in the order of as_of. A symbol has one answer in it."""
        for answer in batch.answers:
            key = (answer.symbol_id, batch.source)
            self._series.setdefault(key, _Series()).take(answer, as_of)

    def order(self, instant: datetime) -> list[str]:
        """Sources as they ranked at an instant, best first."""
        sources = {source for _, source in self._series}
        place = bisect_right(self.ranks, instant, key=lambda rank: rank[0])
        ranked = list(self.ranks[place - 1][1]) if place else []
        return ranked + sorted(sources - set(ranked))

    def read(
        self, symbol_ids: Iterable[int], window: Window, instant: datetime
    ) -> dict[tuple[int, datetime], Seen]:
        """What a read of these symbols and that window should show as of an instant."""
        order = self.order(instant)
        times = list(_minutes([window]))
        found: dict[tuple[int, datetime], Seen] = {}
        for symbol_id in symbol_ids:
            told = [(source, self._series.get((symbol_id, source))) for source in order]
            for ts in times:
                for source, series in told:
                    version = series.known(ts, instant) if series else None
                    if version is not None and version.status != "withdrawn":
                        found[symbol_id, ts] = (
                            version.numbers, source, version.status, version.as_of,
                        )  # fmt: skip
                        break
        return found

    def census(self) -> Mapping[str, int]:
        """How many versions of each status there should be."""
        counted: dict[str, int] = {}
        for series in self._series.values():
            for history in series.versions.values():
                for version in history:
                    counted[version.status] = counted.get(version.status, 0) + 1
        return counted


def _minutes(windows: Iterable[Window]) -> Iterable[datetime]:
    for window in windows:
        ts = window.start
        while ts < window.end:
            yield ts
            ts += _MINUTE
