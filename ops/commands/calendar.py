"""``ops calendar``: the sessions that decide which bars are expected."""

import argparse
import json
import subprocess
import sys
from datetime import date, timedelta

from core.errors import UsageError
from db import calendars
from ops import output
from ops.connect import database
from ops.registering import Commands


def register(commands: Commands) -> None:
    group = commands.add_parser("calendar", help="show or publish trading sessions")
    verbs = group.add_subparsers(dest="verb", metavar="VERB", required=True)
    show = verbs.add_parser(
        "show", help="sessions of a calendar", epilog="Example: ops calendar show NYSE --days 10"
    )
    show.add_argument("calendar")
    show.add_argument("--days", type=int, default=10)
    show.add_argument("--json", action="store_true")
    show.set_defaults(run=run_show)
    publish = verbs.add_parser(
        "publish",
        help="build sessions from pandas-market-calendars as a new version",
        epilog="Example: ops calendar publish NYSE NSE --start 2015-01-01 --end 2027-12-31",
    )
    publish.add_argument("calendars", nargs="+")
    publish.add_argument("--start", type=date.fromisoformat, required=True)
    publish.add_argument("--end", type=date.fromisoformat, required=True)
    publish.set_defaults(run=run_publish)


def run_show(options: argparse.Namespace) -> int:
    """Print the sessions around today and until when the calendar is known."""
    with database() as db:
        with db.transaction() as conn:
            found = calendars.load(conn, [options.calendar])
        now = db.clock.now()
    if options.calendar not in found:
        raise UsageError(
            f"calendar {options.calendar} is not published; "
            f"publish it with `ops calendar publish {options.calendar} ...`"
        )
    calendar = found[options.calendar]
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
    print(f"version {calendar.version}, known until {calendar.known_until}")
    return 0


def run_publish(options: argparse.Namespace) -> int:
    """Publish calendars; the same sessions again make no new version."""
    words = [
        *options.calendars,
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
        raise UsageError(built.stderr.strip())
    with database() as db:
        for line in built.stdout.splitlines():
            payload = json.loads(line)
            version = calendars.publish(db, payload)
            print(f"{payload['calendar']}: version {version}, {len(payload['sessions'])} sessions")
    return 0
