"""Trading sessions from ``exchange_calendars``, as plain integers."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any, cast

import exchange_calendars  # pyright: ignore[reportMissingTypeStubs]
import numpy as np

from core.errors import SettingsError

FIRST_DAY = date(2000, 1, 1)
"""Sessions before this day are unknown to the simulator; of some exchanges also later ones."""

_ALIASES = {
    "NYSE": "XNYS", "NASDAQ": "XNYS", "XNAS": "XNYS", "XASE": "XNYS", "ARCX": "XNYS", "BATS": "XNYS",
    "IEXG": "XNYS", "AMEX": "XNYS", "NSE": "XBOM", "XNSE": "XBOM", "BSE": "XBOM", "LSE": "XLON",
    "JPX": "XTKS", "HKEX": "XHKG", "CRYPTO": "24/7", "BINANCE": "24/7",
}  # fmt: skip
# Minutes before the open and after the close in which something can trade: extended hours in New York,
# call auctions elsewhere.
_EXTENDED: Mapping[str, tuple[int, int]] = {
    "24/7": (0, 0),
    "XNYS": (330, 240),
    "XBOM": (15, 30),
    "XLON": (10, 10),
    "XHKG": (30, 10),
    "XTKS": (60, 0),
}
_AUCTIONS = (5, 5)


@dataclass(frozen=True, slots=True)
class Session:
    """One trading day of one exchange; epoch seconds UTC, every interval half-open."""

    day: date
    open: int
    close: int
    segments: tuple[tuple[int, int], ...]
    """Regular hours: one interval, two around a lunch break."""
    pre_open: int
    """Start of extended hours or of the opening auction; equals ``open`` where there is none."""
    post_close: int
    """End of extended hours or of the closing auction; equals ``close`` where there is none."""

    @property
    def irregular(self) -> tuple[tuple[int, int], ...]:
        """Extended hours, auctions and the lunch break."""
        pauses = zip(self.segments, self.segments[1:], strict=False)
        between = tuple((first[1], second[0]) for first, second in pauses)
        return (self.pre_open, self.open), *between, (self.close, self.post_close)

    def regular(self, instant: float) -> bool:
        """Whether regular trading runs at ``instant``."""
        return any(start <= instant < end for start, end in self.segments)


class Sessions:
    """The sessions of one exchange, oldest first."""

    def __init__(self, code: str, timezone: str, sessions: Sequence[Session]) -> None:
        self.code = code
        self.timezone = timezone
        self._sessions = sessions
        self._opens = [session.open for session in sessions]
        self._closes = [session.close for session in sessions]
        self._by_day = {session.day: number for number, session in enumerate(sessions)}

    def on(self, day: date) -> Session | None:
        """The session of that date, None on a closed day."""
        number = self._by_day.get(day)
        return None if number is None else self._sessions[number]

    def between(self, start: float, end: float) -> Sequence[Session]:
        """Sessions that share regular time with ``[start, end)``."""
        return self._sessions[bisect_right(self._closes, start) : bisect_left(self._opens, end)]

    def started(self, instant: float) -> Session | None:
        """The newest session whose open is at or before ``instant``."""
        number = bisect_right(self._opens, instant) - 1
        return self._sessions[number] if number >= 0 else None

    def current_or_next(self, instant: float) -> Session | None:
        """The session that has not closed at ``instant``, the soonest one."""
        number = bisect_right(self._closes, instant)
        return self._sessions[number] if number < len(self._sessions) else None

    def last(self, count: int, instant: float) -> Sequence[Session]:
        """The newest ``count`` sessions that opened at or before ``instant``, oldest first."""
        stop = bisect_right(self._opens, instant)
        return self._sessions[max(0, stop - count) : stop]

    def before(self, session: Session) -> Session | None:
        """The session before this one, None for the first known."""
        number = self._by_day[session.day] - 1
        return self._sessions[number] if number >= 0 else None


def sessions_of(exchange: str) -> Sessions:
    """Sessions of an exchange, by its MIC or a known alias; built once.

    Raises:
        SettingsError: exchange_calendars has no such calendar.
    """
    return _build(calendar_code(exchange))


def calendar_code(exchange: str) -> str:
    """The name that exchange_calendars has for an exchange.

    Raises:
        SettingsError: it has none.
    """
    code = _ALIASES.get(exchange.upper(), exchange)
    known = exchange_calendars.get_calendar_names()
    if code not in known:
        raise SettingsError(
            f"exchange {exchange!r} has no calendar in exchange_calendars; expected a MIC such as XNYS, "
            f"XBOM, XLON, 24/7 or one of {', '.join(sorted(_ALIASES))}"
        )
    return code


@lru_cache
def _build(code: str) -> Sessions:
    try:
        calendar = cast("Any", exchange_calendars.get_calendar(code, start=FIRST_DAY.isoformat()))
    except ValueError:  # a calendar that is not known that far back
        calendar = cast("Any", exchange_calendars.get_calendar(code))
    schedule = calendar.schedule
    opens, closes = _seconds(schedule["open"]), _seconds(schedule["close"])
    break_starts, break_ends = _seconds(schedule["break_start"]), _seconds(schedule["break_end"])
    days = [cast(date, stamp.date()) for stamp in schedule.index]
    before, after = _EXTENDED.get(code, _AUCTIONS)
    sessions = [
        Session(
            day=day,
            open=opened,
            close=closed,
            segments=((opened, closed),)
            if pause is None
            else ((opened, pause), (resume or pause, closed)),
            pre_open=opened - before * 60,
            post_close=closed + after * 60,
        )
        for day, opened, closed, pause, resume in zip(
            days,
            cast(list[int], opens),
            cast(list[int], closes),
            break_starts,
            break_ends,
            strict=True,
        )
    ]
    return Sessions(code, str(calendar.tz), sessions)


def _seconds(column: Any) -> list[int | None]:
    stamps = column.dt.tz_convert(None).to_numpy().astype("datetime64[s]")
    missing = np.isnat(stamps)
    values = stamps.astype(np.int64).tolist()
    return [None if gone else value for gone, value in zip(missing.tolist(), values, strict=True)]
