"""Lengths of time as people type them."""

import re
from datetime import timedelta

from core.errors import UsageError

_SPAN = re.compile(r"(\d+)([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def span(text: str, what: str) -> timedelta:
    """``30m``, ``2h`` or ``1d``.

    Raises:
        UsageError: with the form that is expected.
    """
    found = _SPAN.fullmatch(text)
    if found is None or int(found[1]) == 0:
        raise UsageError(f"{what} is {text!r}; expected a number with m, h or d such as 2h")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
