"""Backfill rows on their way through the sources: what is asked next, what is still missing.

Rows of one symbol that fit into one call are asked together as a series. For each bar that lacks,
the sources that lacked it are remembered, so that the next source is asked for just that.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from core.errors import GaplessError
from core.sessions import Calendar
from core.windows import Window, merge, subtract
from core.words import Interval
from db.backfill import Job
from db.candles import Answer
from db.universe import Member
from workers.assess import whole_bars
from workers.questions import Question, Unanswered
from workers.verdict import Findings


@dataclass(slots=True)
class Series:
    """Rows of one symbol, interval and provider that are asked together."""

    tag: int
    member: Member
    calendar: Calendar
    interval: Interval
    rows: Sequence[Job]
    answered_before: frozenset[str]
    """Sources whose answer of an earlier run lacked bars of these rows."""
    missing: dict[datetime, frozenset[str]] = field(default_factory=dict[datetime, frozenset[str]])
    """Start of each settled bar that lacks -> sources that lacked it."""
    unsettled: set[datetime] = field(default_factory=set[datetime])
    """Starts of bars that lacked and may still come."""
    answered_now: set[str] = field(default_factory=set[str])
    asked: bool = False
    error: GaplessError | None = None
    asked_at: datetime | None = None
    _open: list[Window] = field(default_factory=list[Window])
    """What was put to sources and has not ended."""
    _never: list[Window] = field(default_factory=list[Window])
    """What no source answered."""

    def first_questions(self, eligible: Set[str], chunk: timedelta) -> list[Question]:
        """The trading time of the rows, cut to calls; sources that lacked it before go last."""
        fresh = eligible - self.answered_before
        barred = self.answered_before if fresh else frozenset[str]()
        hull = Window(
            min(row.window.start for row in self.rows), max(row.window.end for row in self.rows)
        )
        whole = whole_bars(hull, self.interval)
        # Daily bars are few: how many fit into one call is the source's own limit.
        calls = whole.chunks(chunk) if self.interval is Interval.M1 else [whole]
        hulls = [hull for hull in map(self._trading_hull, calls) if hull is not None]
        return self._ask(hulls, barred)

    def answered(self, source: str, answer: Answer) -> None:
        """Take an answer to a part of the series."""
        self._open = subtract(self._open, [answer.window])
        self._never = subtract(self._never, [answer.window])
        self.answered_now.add(source)
        self.asked = True
        self.asked_at = answer.asked_at
        before, self.missing = (
            self.missing,
            {
                start: sources
                for start, sources in self.missing.items()
                if not answer.window.contains(start)
            },
        )
        self.unsettled = {s for s in self.unsettled if not answer.window.contains(s)}
        for start in self._starts(answer.lacking):
            if not any(row.window.contains(start) for row in self.rows):
                continue
            if self._end(start) <= answer.settled_until:
                self.missing[start] = before.get(start, self.answered_before) | {source}
            else:
                self.unsettled.add(start)

    def failed(self, result: Unanswered) -> None:
        """Take note that a part of the series got no answer in this round."""
        window = result.question.window
        assert window is not None, "bars are asked for over a window"
        blame = result.question.blame
        self.asked |= result.source is not None or blame is not None
        # Why the last one asked failed says more than that nobody else is there.
        self.error = blame.error if result.source is None and blame else result.error
        self._open = subtract(self._open, [window])
        if not any(window.contains(start) for start in self.missing):
            self._never = merge([*self._never, window])

    def next_questions(self, eligible: Set[str]) -> list[Question]:
        """What to ask of the next source, once this round is over: only bars that still lack."""
        if self._open or self._never or self.error is not None:
            return []
        rounds: dict[frozenset[str], list[datetime]] = {}
        for start, sources in self.missing.items():
            if eligible - sources:
                rounds.setdefault(sources, []).append(start)
        questions: list[Question] = []
        for sources, starts in rounds.items():
            window = Window(min(starts), max(self._end(start) for start in starts))
            questions += self._ask([window], sources)
        return questions

    @property
    def ended(self) -> bool:
        """Whether nothing is being asked any more."""
        return not self._open

    def findings(self, row: Job) -> Findings:
        """What this run learnt about one row."""
        missing = {s: by for s, by in self.missing.items() if row.window.contains(s)}
        answered_by = self.answered_before | self.answered_now
        for sources in missing.values():
            answered_by &= sources
        return Findings(
            lacking=self._windows(missing),
            unsettled=self._windows(s for s in self.unsettled if row.window.contains(s)),
            answered_by=frozenset(answered_by) if missing else frozenset(),
            answered_now=frozenset(self.answered_now),
            unanswered=any(row.window.intersect(part) is not None for part in self._never),
            asked=self.asked,
            error=self.error,
            asked_at=self.asked_at,
            missing=len(missing),
            expected=self._expected(row.window),
        )

    def _ask(self, windows: Sequence[Window], barred: frozenset[str]) -> list[Question]:
        self._open = merge([*self._open, *windows])
        return [Question(self.member, window, barred, tag=self.tag) for window in windows]

    def _trading_hull(self, window: Window) -> Window | None:
        first, last = window.start.date(), window.end.date()
        if first < self.calendar.known_from or last > self.calendar.known_until:
            # The calendar does not speak of it: ask, expect nothing.
            return window
        trading = self.calendar.trading(window)
        return Window(trading[0].start, trading[-1].end) if trading else None

    def _expected(self, window: Window) -> int:
        if self.interval is Interval.D1:
            return sum(1 for _ in self.calendar.between(window))
        hours = self.calendar.trading(window)
        return sum(-(-part.length // self.interval.delta) for part in hours)

    def _starts(self, windows: Iterable[Window]) -> Iterable[datetime]:
        step = self.interval.delta
        for window in windows:
            if self.interval is Interval.D1:
                yield window.start
                continue
            start = window.start
            while start < window.end:
                yield start
                start += step

    def _windows(self, starts: Iterable[datetime]) -> list[Window]:
        return merge(Window(start, self._end(start)) for start in starts)

    def _end(self, start: datetime) -> datetime:
        return self.calendar.bar_end(start, self.interval.delta)


def group(
    rows: Sequence[Job],
    calendars: Mapping[str, Calendar],
    chunk: timedelta,
) -> list[Series]:
    """Rows of one symbol that fit into one call together become one series."""
    clusters: list[list[Job]] = []
    for row in sorted(rows, key=lambda row: (_kinship(row), row.window)):
        last = clusters[-1] if clusters else []
        if (
            last
            and _kinship(last[0]) == _kinship(row)
            and max(row.window.end, *(other.window.end for other in last))
            <= last[0].window.start + chunk
        ):
            last.append(row)
        else:
            clusters.append([row])
    return [
        Series(
            tag=tag,
            member=_member(cluster[0]),
            calendar=calendars[cluster[0].calendar],
            interval=cluster[0].interval,
            rows=cluster,
            answered_before=frozenset(cluster[0].answered_by),
        )
        for tag, cluster in enumerate(clusters)
    ]


def _kinship(row: Job) -> tuple[int, str, str, tuple[str, ...]]:
    return (row.symbol_id, row.interval, row.provider or "", tuple(sorted(row.answered_by)))


def _member(row: Job) -> Member:
    return Member(row.symbol_id, row.symbol, row.tier, row.calendar, exchange="")
