"""One row of a file of revisions: parsed and checked, or refused with the reason."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any

from core.bars import Bar
from core.words import Interval, Status

REQUIRED = (
    "symbol", "interval", "ts", "provider", "as_of", "status", "asked_at", "open", "high", "low", "close",
)  # fmt: skip
OPTIONAL = ("session", "adjustment", "volume", "vwap", "trade_count", "reason")
COLUMNS = (*REQUIRED, *OPTIONAL)
"""The order of a row's cells."""

_INTERVALS: dict[Any, Interval] = {"1m": Interval.M1, "1d": Interval.D1}
_STATUSES: dict[Any, Status] = {status.name.lower(): status for status in Status}
_ADJUSTMENTS = frozenset({"raw", "split", "split_div"})
_NO_VALUES = (None,) * 7
_MOST_TRADES = 2**31 - 1

Values = tuple[
    float | None, float | None, float | None, float | None, float | None, float | None, int | None
]


class BadRowError(ValueError):
    """A row that can't be a revision; the message is its reason."""


@dataclass(frozen=True, slots=True)
class Revision:
    """One version of one bar as another database knew it."""

    line: int
    """Where it stands in the file, from 1."""
    symbol: str
    interval: Interval
    ts: datetime
    session: date | None
    provider: str
    adjustment: str | None
    """None: the file does not say."""
    as_of: datetime
    status: Status
    asked_at: datetime
    values: Values
    """open, high, low, close, volume, vwap, trade_count; all None where withdrawn."""
    reason: str | None

    @property
    def key(self) -> datetime | date:
        """What names the bar in its series: the session of a daily bar, else its start."""
        return self.ts if self.session is None else self.session

    def bar(self) -> Bar:
        """The same as a bar; of a tombstone there is none."""
        o, h, low, c, volume, vwap, trades = self.values
        assert o is not None
        assert h is not None
        assert low is not None
        assert c is not None
        partial = self.status is Status.PARTIAL
        return Bar(self.ts, o, h, low, c, volume, vwap, trades, self.session, partial)


def parse(line: int, cells: Sequence[Any]) -> Revision:
    """A revision from cells as CSV, NDJSON or Parquet give them.

    Args:
        line: Where they stand.
        cells: In the order of ``COLUMNS``; what is missing is None or empty.

    Raises:
        BadRowError: names the column, the value and what was expected.
    """
    (
        symbol, interval_word, ts_given, provider, as_of, status_word, asked_at, o, h, low, c,
        session_given, adjustment, volume, vwap, trades, reason,
    ) = cells  # fmt: skip
    interval = _INTERVALS.get(interval_word)
    if interval is None:
        raise BadRowError(f"interval is {interval_word!r}; expected 1m or 1d")
    status = _STATUSES.get(status_word)
    if status is None:
        raise BadRowError(f"status is {status_word!r}; expected {', '.join(_STATUSES)}")
    ts = _instant("ts", ts_given)
    session = _session(session_given, interval)
    if session is None and (ts.second or ts.microsecond):
        raise BadRowError(f"ts is {ts.isoformat()}; a one-minute bar starts on the minute")
    if adjustment and adjustment not in _ADJUSTMENTS:
        raise BadRowError(f"adjustment is {adjustment!r}; expected raw, split or split_div")
    if not _is_word(symbol) or not _is_word(provider):
        name, word = ("symbol", symbol) if not _is_word(symbol) else ("provider", provider)
        raise BadRowError(f"{name} is {word!r}; expected a word without blanks")
    values = (
        _number("open", o),
        _number("high", h),
        _number("low", low),
        _number("close", c),
        _number("volume", volume),
        _number("vwap", vwap),
        _count(trades),
    )
    revision = Revision(
        line,
        symbol,
        interval,
        ts,
        session,
        provider,
        adjustment or None,
        _instant("as_of", as_of),
        status,
        _instant("asked_at", asked_at),
        values,
        reason or None,
    )
    _check_values(revision)
    return revision


@lru_cache(maxsize=65_536)
def _is_word(word: object) -> bool:
    return isinstance(word, str) and 0 < len(word) <= 64 and word.split() == [word]


def _instant(name: str, given: Any) -> datetime:
    try:
        found = datetime.fromisoformat(given) if isinstance(given, str) else given
    except ValueError:
        found = None
    if not isinstance(found, datetime) or found.tzinfo is None:
        raise BadRowError(
            f"{name} is {given!r}; expected a time with a zone such as 2026-03-02T14:30:00Z"
        )
    return found if found.tzinfo is UTC else found.astimezone(UTC)


def _session(given: Any, interval: Interval) -> date | None:
    if interval is not Interval.D1:
        if given:
            raise BadRowError(f"session is {given!r}; only daily bars have one")
        return None
    try:
        found = date.fromisoformat(given) if isinstance(given, str) else given
    except ValueError:
        found = None
    if not isinstance(found, date):
        raise BadRowError(f"session is {given!r}; a daily bar needs a date such as 2026-03-02")
    return found


def _number(name: str, given: Any) -> float | None:
    if given is None or given == "":
        return None
    try:
        return float(given)
    except (TypeError, ValueError):
        raise BadRowError(f"{name} is {given!r}; expected a number") from None


def _count(given: Any) -> int | None:
    if given is None or given == "":
        return None
    try:
        found = int(given)
    except (TypeError, ValueError):
        found = -1
    if not 0 <= found <= _MOST_TRADES:
        raise BadRowError(f"trade_count is {given!r}; expected a whole number at or above 0")
    return found


def _check_values(revision: Revision) -> None:
    if revision.status is Status.WITHDRAWN:
        if revision.values != _NO_VALUES:
            raise BadRowError("a withdrawn bar has values; expected none")
        return
    if None in revision.values[:4]:
        raise BadRowError("open, high, low or close is missing; only a withdrawn bar has none")
    problem = revision.bar().problem()
    if problem is not None:
        raise BadRowError(problem)
    vwap = revision.values[5]
    if vwap is not None and not math.isfinite(vwap):
        raise BadRowError(f"vwap {vwap} is not a finite number")
