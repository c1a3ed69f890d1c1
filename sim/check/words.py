"""How the checker writes times and limits for people."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any


def utc(epoch: float) -> str:
    """``2025-03-10T16:04:00Z``, with milliseconds where there are any."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=round(epoch * 1000))
    parts = f".{moment.microsecond // 1000:03d}" if moment.microsecond else ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}{parts}Z"


def limit(violation: Mapping[str, Any]) -> str:
    """``its limit of 60 in 60 s, counted by key`` of a violation in the log."""
    return (
        f"its limit of {violation['units']:g} in {violation['seconds']:g} s, "
        f"counted by {violation['scope']}"
    )
