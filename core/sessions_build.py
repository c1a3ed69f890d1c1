"""Builds session arrays from pandas-market-calendars.

Imports pandas, so it runs in a process of its own (``python -m core.sessions_build``), never inside
a worker. Where the library's own class misses days that its ISO-coded twin has (HKEX has no half day
on 24 December, XHKG has), the twin is taken.
"""

import argparse
import json
import sys
from datetime import UTC, date, datetime, timedelta
from typing import Any

from core.errors import UsageError

ALIASES = {
    "HKEX": "XHKG",
    "JPX": "XTKS",
    "LSE": "XLON",
    "CRYPTO": "24/7",
}
"""House name -> the library's code, where they differ."""


def build(name: str, start: date, end: date) -> dict[str, Any]:
    """Sessions of one exchange between two dates, both inclusive, as plain numbers.

    Returns:
        ``{"calendar", "known_from", "known_until", "sessions": [[label, [[start, end], ...]], ...]}``
        with epoch seconds UTC.

    Raises:
        UsageError: the library knows no such calendar.
    """
    # Pandas costs 80 MB: only this process pays.
    import pandas_market_calendars as mcal  # noqa: PLC0415  # pyright: ignore[reportMissingTypeStubs]

    code = ALIASES.get(name, name)
    if code == "24/7":
        return _always_open(name, start, end)
    known: list[str] = mcal.get_calendar_names()
    if code not in known:
        raise UsageError(
            f"calendar {name!r} is unknown; expected a pandas-market-calendars name such as NYSE, NSE, "
            "XLON or 24/7"
        )
    calendar = mcal.get_calendar(code)
    schedule = calendar.schedule(start_date=start.isoformat(), end_date=end.isoformat())
    sessions: list[Any] = []
    for label, row in schedule.iterrows():
        opened, closed = int(row["market_open"].timestamp()), int(row["market_close"].timestamp())
        segments = [[opened, closed]]
        if "break_start" in row and row["break_start"] == row["break_start"]:
            pause = (int(row["break_start"].timestamp()), int(row["break_end"].timestamp()))
            if pause[0] < pause[1]:
                segments = [[opened, pause[0]], [pause[1], closed]]
        sessions.append([str(label)[:10], segments])
    return _payload(name, start, end, sessions)


def _always_open(name: str, start: date, end: date) -> dict[str, Any]:
    sessions: list[Any] = []
    day = start
    while day <= end:
        opened = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
        sessions.append([day.isoformat(), [[opened, opened + 86_400]]])
        day += timedelta(days=1)
    return _payload(name, start, end, sessions)


def _payload(name: str, start: date, end: date, sessions: list[Any]) -> dict[str, Any]:
    return {
        "calendar": name,
        "known_from": start.isoformat(),
        "known_until": end.isoformat(),
        "sessions": sessions,
    }


def main() -> int:
    """Print one JSON object a line for each calendar named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m core.sessions_build")
    parser.add_argument("calendars", nargs="+")
    parser.add_argument("--start", type=date.fromisoformat, required=True)
    parser.add_argument("--end", type=date.fromisoformat, required=True)
    args = parser.parse_args()
    try:
        for name in args.calendars:
            sys.stdout.write(json.dumps(build(name, args.start, args.end)) + "\n")
    except UsageError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
