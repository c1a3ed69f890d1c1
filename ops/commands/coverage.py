"""``ops coverage`` and ``ops gaps``: what is explained, and what is still missing."""

import argparse
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from core.sessions import Calendar
from core.windows import Window, floor_to, subtract
from core.words import Interval, Tier
from db import calendars, judging, overview, universe
from db.pool import Connection, Database
from db.universe import Member
from ops import output
from ops.connect import database
from ops.registering import Commands
from ops.symbols import chosen, symbols_and_window
from ops.words import collected_interval, tier

_MINUTE = timedelta(minutes=1)
_COLLECTED = {Tier.T0: Interval.M1, Tier.T1: Interval.M1, Tier.T2: Interval.D1}
"""The interval in which a tier is collected all day."""


def register(commands: Commands) -> None:
    command = commands.add_parser(
        "coverage",
        help="what is known of each stretch of some symbols, and what was not asked for",
        epilog="Example: ops coverage AAPL --start 2026-11-20 --end 2026-11-20   (docs/glossary.md says what "
        "each state means)",
    )
    command.add_argument("symbols", nargs="+", metavar="SYMBOL")
    command.add_argument(
        "--interval",
        type=collected_interval,
        help="1m or 1d (default: 1m, of T2 symbols 1d); 5m, 15m and 1h are made from 1m",
    )
    command.add_argument(
        "--start", required=True, help="instant with Z or offset, or a session date"
    )
    command.add_argument(
        "--end", required=True, help="open end: instant, or a session date (its close)"
    )
    command.add_argument("--json", action="store_true")
    command.set_defaults(run=run_coverage)

    missing = commands.add_parser(
        "gaps", help="what is missing now", epilog="Example: ops gaps --tier T0"
    )
    missing.add_argument("--tier", type=tier)
    missing.add_argument("--limit", type=int, default=50)
    missing.add_argument("--json", action="store_true")
    missing.set_defaults(run=run_gaps)


def run_coverage(options: argparse.Namespace) -> int:
    """Print the stretches; exit 0 whatever they are."""
    with database() as db:
        _, span = symbols_and_window(db, options.symbols, options.start, options.end)
        now = db.clock.now()
        with db.transaction() as conn:
            members = chosen(conn, options.symbols)
            known = calendars.load(conn, sorted({member.calendar for member in members}))
            rows: list[overview.Row] = []
            for member in members:
                interval = options.interval or _COLLECTED[member.tier]
                found = overview.coverage(conn, [member.symbol], span, interval)
                rows += _with_not_asked(member, interval, found, known, span, now)
    if options.json:
        output.as_json(rows)
    elif rows:
        columns = ["symbol", "interval", "start_ts", "end_ts", "state", "provider", "times"]
        output.table(rows, [*columns, "reason"])
    else:
        print(f"no session of {', '.join(m.symbol for m in members)} has begun in {span}")
    return 0


def _with_not_asked(
    member: Member,
    interval: Interval,
    found: list[overview.Row],
    known: Mapping[str, Calendar],
    span: Window,
    now: datetime,
) -> list[overview.Row]:
    """The rows with trading time in between of which nobody was asked and which nobody waits for."""
    calendar = known.get(member.calendar)
    if calendar is None or span.start >= floor_to(now, _MINUTE):
        return found
    trading = calendar.trading(Window(span.start, min(span.end, floor_to(now, _MINUTE))))
    holes = subtract(trading, (Window(row["start_ts"], row["end_ts"]) for row in found))
    rows = found + [
        {
            "symbol": member.symbol,
            "interval": str(interval),
            "start_ts": hole.start,
            "end_ts": hole.end,
            "state": "not asked",
            "provider": None,
            "reason": None,
            "as_of": None,
            "times": None,
        }
        for hole in holes
    ]
    return sorted(rows, key=lambda row: (row["start_ts"], row["end_ts"], row["state"]))


def run_gaps(options: argparse.Namespace) -> int:
    """Print what is missing; 1 when anything is, or when nothing was ever answered."""
    with database() as db, db.transaction() as conn:
        rows = overview.gaps(conn, options.tier, options.limit)
        answered = overview.by_source(conn)
        by_hand = overview.asked_by_hand(conn)
        members = universe.members(conn, tier=options.tier)
        since = _judged_since(conn, db, members)
    if options.json:
        output.as_json(rows)
    elif rows:
        columns = ["symbol", "tier", "interval", "start_ts", "end_ts", "state", "attempts", "age_s"]
        output.table(rows, [*columns, "reason"])
    else:
        print(_no_gaps(since, answered=bool(answered)))
    if not options.json:
        _print_limits(since, by_hand)
    return 1 if rows or (members and not answered) else 0


def _no_gaps(since: datetime | None, *, answered: bool) -> str:
    if since is None:
        return "no gaps: nothing is expected of anybody (`ops universe show`, `ops calendar show`)"
    if not answered:
        return (
            f"no gaps are known since {output.text(since)}, but no source has answered anything yet: "
            "see `ops providers`"
        )
    return f"no gaps: every minute expected since {output.text(since)} is stored or explained"


def _print_limits(since: datetime | None, by_hand: Sequence[Mapping[str, Any]]) -> None:
    if since is not None:
        print(
            f"judged since {output.text(since)}, of symbols added later since then; what lies before is "
            "asked for only by `ops enqueue-backfill`"
        )
    for row in by_hand:
        print(
            f"{row['count']} backfill {'row' if row['count'] == 1 else 'rows'} by hand or coordinator "
            f"{row['state']}: `ops backfill list --state {row['state']}`"
        )


def _judged_since(conn: Connection, db: Database, members: Sequence[Member]) -> datetime | None:
    """From when bars of somebody are judged: the horizon of the gap pass, or since the first was listed."""
    from scheduler.expectation import horizon  # noqa: PLC0415 - loads the queues; only `gaps` needs it

    listed = judging.listed_since(conn)
    known = calendars.load(conn, sorted({member.calendar for member in members}))
    now = db.clock.now()
    found: list[datetime] = []
    for member in members:
        calendar, at = known.get(member.calendar), listed.get(member.symbol_id)
        oldest = None if calendar is None else horizon(calendar, now)
        if calendar is None or oldest is None or at is None:
            continue
        session = calendar.session_at(at)
        found.append(max(oldest, at if session is None else session.open))
    return min(found, default=None)
