"""Judges a reply against the calendar: what is complete, what is missing, what is not yet sure. Pure.

A bar that the source had to have and did not send is *lacking*. Whether that means "no trades" is not
decided here: it takes a second answer.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from core.bars import Bar
from core.sessions import Calendar
from core.windows import Window, floor_to, runs
from core.words import Interval
from db.candles import Answer, Refusal


@dataclass(frozen=True, slots=True)
class Judged:
    """What one reply says about one symbol."""

    answer: Answer
    refusals: tuple[Refusal, ...]
    """Rows that can't be bars; their time counts as lacking."""
    expected: int
    """Bars that the source had to have: closed and settled when it was asked."""
    received: int
    """How many of those it sent."""
    settled: tuple[datetime, ...]
    """Starts of the bars that the source had to have."""
    settle: timedelta
    """How long after its end the source may still change a bar."""


def assess(
    symbol_id: int,
    calendar: Calendar,
    interval: Interval,
    settle: timedelta,
    window: Window,
    asked_at: datetime,
    bars: Sequence[Bar],
    rejects: Iterable[tuple[datetime, str]],
    *,
    store_partial: bool,
) -> Judged:
    """Judge the bars that a source sent for one symbol.

    Args:
        symbol_id: Whose bars they are.
        calendar: The symbol's.
        interval: ``1m`` or ``1d``.
        settle: How long after its end the source may still change a bar.
        window: What was asked for, whole bars; daily bars belong to it by their session's open.
        asked_at: Market time just before the request was sent.
        bars: As parsed: inside the window, ascending, unique.
        rejects: Instant and reason of rows that can't be bars.
        store_partial: Keep bars that were asked for before their end, marked; else drop them.
    """
    ends = _expected_ends(calendar, interval, window)
    kept: list[Bar] = []
    refusals = [Refusal(symbol_id, ts, asked_at, reason, None) for ts, reason in rejects]
    sent: set[datetime] = set()
    for bar in bars:
        end = ends.get(bar.ts) or calendar.bar_end(bar.ts, interval.delta)
        if bar.ts >= asked_at:
            reason = f"starts at {bar.ts.isoformat()}, after it was asked for"
            refusals.append(Refusal(symbol_id, bar.ts, asked_at, reason, None))
        elif end <= asked_at:
            kept.append(bar)
            sent.add(bar.ts)
        elif store_partial:
            kept.append(replace(bar, partial=True))
    closed = [(ts, end) for ts, end in ends.items() if end <= asked_at]
    settled_until = _settled_until(interval, window, asked_at - settle, ends)
    settled = [ts for ts, end in closed if end <= settled_until]
    missing = [(ts, end) for ts, end in closed if ts not in sent]
    lacking = (
        runs((ts for ts, _ in missing), interval.delta)
        if interval is not Interval.D1
        else [Window(ts, end) for ts, end in missing]
    )
    return Judged(
        answer=Answer(symbol_id, window, asked_at, tuple(kept), settled_until, tuple(lacking)),
        refusals=tuple(refusals),
        expected=len(settled),
        received=sum(ts in sent for ts in settled),
        settled=tuple(settled),
        settle=settle,
    )


def whole_bars(window: Window, interval: Interval) -> Window:
    """The window, widened to whole one-minute bars; sessions are whole by themselves."""
    if interval is not Interval.M1:
        return window
    end = floor_to(window.end, interval.delta)
    return Window(
        floor_to(window.start, interval.delta), end if end == window.end else end + interval.delta
    )


def _settled_until(
    interval: Interval, window: Window, instant: datetime, ends: Mapping[datetime, datetime]
) -> datetime:
    """The last end of a bar at or before the instant.

    Whole bars only: of a bar of which a part had settled, nothing is certain.
    """
    if interval is Interval.D1:
        return max((end for end in ends.values() if end <= instant), default=window.start)
    return floor_to(instant, interval.delta)


def _expected_ends(
    calendar: Calendar, interval: Interval, window: Window
) -> dict[datetime, datetime]:
    """Start -> bar_end of every bar that trading time lets expect in the window, ascending."""
    if interval is Interval.D1:
        sessions = calendar.between(window)
        return {s.open: s.close for s in sessions if window.contains(s.open)}
    step = interval.delta
    return {start: calendar.bar_end(start, step) for start in calendar.expected(window, step)}
