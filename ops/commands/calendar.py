"""``ops calendar``: the sessions that decide which bars are expected."""

import argparse
import json
import subprocess
import sys
from datetime import date, timedelta

from core.errors import UsageError
from core.exchanges import CALENDAR_OF
from db import calendars
from ops import output
from ops.connect import database
from ops.registering import Commands


def register(commands: Commands) -> None:
    group = commands.add_parser("calendar", help="show or publish trading sessions")
    verbs = group.add_subparsers(dest="verb", metavar="VERB", required=True)
    show = verbs.add_parser(
        "show",
        help="sessions of a calendar",
        epilog="Example: ops calendar show NYSE --days 10   or   ops calendar show XLON",
    )
    show.add_argument("calendar", help="calendar, or an exchange that trades on it")
    show.add_argument("--days", type=int, default=10)
    show.add_argument("--json", action="store_true")
    show.set_defaults(run=run_show)
    publish = verbs.add_parser(
        "publish",
        help="build sessions from pandas-market-calendars as a new version",
        epilog="Example: ops calendar publish NYSE NSE --start 2015-01-01 --end 2027-12-31",
    )
    publish.add_argument("calendars", nargs="+", help="calendars, or exchanges that trade on them")
    publish.add_argument("--start", type=_day, required=True, help="first date, YYYY-MM-DD")
    publish.add_argument("--end", type=_day, required=True, help="last date, inclusive")
    publish.set_defaults(run=run_publish)


def _day(text: str) -> date:
    """A date word.

    Raises:
        argparse.ArgumentTypeError: with the form that is expected.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no date; expected YYYY-MM-DD such as 2026-12-31"
        ) from None


def _name(word: str) -> str:
    """The calendar that a word means: itself, or that of an exchange."""
    return CALENDAR_OF.get(word.upper(), word)


def run_show(options: argparse.Namespace) -> int:
    """Print the sessions around today and until when the calendar is known."""
    with database() as db:
        with db.transaction() as conn:
            found = calendars.load(conn, [options.calendar, _name(options.calendar)])
        now = db.clock.now()
    name = options.calendar if options.calendar in found else _name(options.calendar)
    if name not in found:
        raise UsageError(
            f"calendar {name} is not published; publish it with "
            f"`ops calendar publish {name} --start {now.year}-01-01 --end {now.year + 1}-12-31`"
        )
    calendar = found[name]
    first, last = now.date() - timedelta(days=2), now.date() + timedelta(days=options.days)
    rows = [
        {
            "session": session.label,
            "open": session.open,
            "close": session.close,
            "parts": len(session.segments),
        }
        for session in calendar.sessions
        if first <= session.label <= last
    ]
    if options.json:
        output.as_json(
            {"version": calendar.version, "known_until": calendar.known_until, "sessions": rows}
        )
        return 0
    output.table(rows, ["session", "open", "close", "parts"])
    print(f"{name}: version {calendar.version}, known until {calendar.known_until}")
    return 0


def run_publish(options: argparse.Namespace) -> int:
    """Publish calendars; the same sessions again make no new version."""
    if options.end < options.start:
        raise UsageError(f"--end is {options.end}, before --start, {options.start}; swap the two")
    words = [
        *dict.fromkeys(_name(word) for word in options.calendars),
        "--start",
        options.start.isoformat(),
        "--end",
        options.end.isoformat(),
    ]
    built = subprocess.run(
        [sys.executable, "-m", "core.sessions_build", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        raise UsageError(built.stderr.strip().splitlines()[-1])
    with database() as db:
        for line in built.stdout.splitlines():
            payload = json.loads(line)
            version = calendars.publish(db, payload)
            print(f"{payload['calendar']}: version {version}, {len(payload['sessions'])} sessions")
    return 0
