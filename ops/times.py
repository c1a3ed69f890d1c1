"""Times as people type them: an instant with Z or an offset, or a bare date meaning a session."""

from collections.abc import Callable
from datetime import UTC, date, datetime

from core.errors import UsageError
from core.sessions import Calendar
from core.windows import Window

_DATE = "2026-11-20"


def instant(text: str, what: str) -> datetime:
    """``2026-11-20T14:30:00Z`` or with an offset, as UTC; a date alone is no instant.

    Raises:
        UsageError: a date, a time without a zone, or neither.
    """
    label = session_date(text.removesuffix("Z"))
    if label is not None:
        raise UsageError(
            f"{what} is {text!r}, a date, which has no one instant; write the time too, such as "
            f"{label}T21:00:00Z, or {label}T00:00:00Z for its begin in UTC"
        )
    return _parsed(text, what, f"a time with a zone such as {_DATE}T14:30:00Z")


def edge_instant(text: str, what: str) -> datetime:
    """As ``instant``, where a session date would do as well.

    Raises:
        UsageError: no zone, or not a time.
    """
    if session_date(text.removesuffix("Z")) is not None:
        raise UsageError(
            f"{what} is {text!r}; write {text.removesuffix('Z')} for the session of that date, "
            f"or the time too, such as {text.removesuffix('Z')}T14:30:00Z"
        )
    return _parsed(
        text,
        what,
        f"a time with a zone such as {_DATE}T14:30:00Z, or a session date such as {_DATE}",
    )


def session_date(text: str) -> date | None:
    """The date when the text is a bare date, None when it is anything else."""
    try:
        return date.fromisoformat(text) if len(text) == len(_DATE) else None
    except ValueError:
        return None


def window(start: str, end: str, calendar: Calendar) -> Window:
    """A window from two words; a bare date is the session's open as a start, its close as an end.

    Raises:
        UsageError: a bad word, a closed day, or an end that is not after the start.
    """
    first = _edge(start, "--start", lambda label: calendar.session(label).open)
    last = _edge(end, "--end", lambda label: calendar.session(label).close)
    return between(first, last)


def between(first: datetime, last: datetime) -> Window:
    """The window of two instants.

    Raises:
        UsageError: the end is not after the start.
    """
    if last <= first:
        raise UsageError(
            f"the window ends at {last:%Y-%m-%dT%H:%M:%SZ}, not after its start {first:%Y-%m-%dT%H:%M:%SZ}; "
            "swap --start and --end"
        )
    return Window(first, last)


def _edge(text: str, what: str, of: Callable[[date], datetime]) -> datetime:
    label = session_date(text)
    return edge_instant(text, what) if label is None else of(label)


def _parsed(text: str, what: str, expected: str) -> datetime:
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{what} is {text!r}; expected {expected}") from None
    if parsed.tzinfo is None:
        raise UsageError(
            f"{what} is {text!r}, a time without a zone; write {text}Z for UTC, or add an offset such as -05:00"
        )
    return parsed.astimezone(UTC)
