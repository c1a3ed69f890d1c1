"""``ops enqueue-backfill`` and ``ops backfill``: ask for windows of the past, and see what became of it."""

import argparse
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path

from core.errors import UsageError
from core.sessions import Calendar
from core.settings import Settings
from core.windows import Window
from core.words import Capability, Interval
from db import backfill, calendars, universe
from db.backfill import NewJob
from db.pool import Database
from ops import output
from ops.connect import database, settings
from ops.lookback import oldest_answerable
from ops.registering import Commands
from ops.times import window
from ops.words import collected_interval, tier

_CAPABILITY = {Interval.M1: Capability.BARS_1M, Interval.D1: Capability.BARS_EOD}
_STATES = ("pending", "running", "done", "failed", "cancelled", "paused")


def register(commands: Commands) -> None:
    command = commands.add_parser(
        "enqueue-backfill",
        help="ask for a window of the past",
        epilog="Example: ops enqueue-backfill AAPL MSFT --interval 1m --start 2026-11-18 --end 2026-11-19 --wait",
    )
    command.add_argument("symbols", nargs="*", metavar="SYMBOL")
    command.add_argument(
        "--tier", type=tier, help="every symbol of the tier; with symbols: their queue"
    )
    command.add_argument("--file", type=Path, help="symbols, one a line")
    command.add_argument("--interval", type=collected_interval, required=True, help="1m or 1d")
    command.add_argument(
        "--start", required=True, help="instant with Z or offset, or a session date"
    )
    command.add_argument(
        "--end", required=True, help="open end: instant, or a session date (its close)"
    )
    command.add_argument("--provider", help="only this source (needs ALLOW_SOURCE_OVERRIDE=true)")
    command.add_argument(
        "--dry-run", action="store_true", help="say what would be asked, change nothing"
    )
    command.add_argument("--wait", action="store_true", help="stay until every row has ended")
    command.set_defaults(run=run_enqueue)

    group = commands.add_parser(
        "backfill", help="list, retry, cancel, pause or resume backfill rows"
    )
    verbs = group.add_subparsers(dest="verb", metavar="VERB", required=True)
    listing = verbs.add_parser(
        "list", help="newest rows", epilog="Example: ops backfill list --state failed"
    )
    listing.add_argument("--state", choices=_STATES)
    listing.add_argument("--limit", type=int, default=50)
    listing.add_argument("--json", action="store_true")
    listing.set_defaults(run=run_list)
    for verb, what in (
        ("retry", "put failed rows back"),
        ("cancel", "end rows that did not begin"),
        ("pause", "hold rows back"),
        ("resume", "let paused rows go on"),
    ):
        change = verbs.add_parser(
            verb, help=what, epilog=f"Example: ops backfill {verb} 12 13 (or --all)"
        )
        change.add_argument("ids", nargs="*", type=int, metavar="ID")
        change.add_argument("--all", action="store_true", help="every row that the verb fits")
        change.set_defaults(run=run_change)


def run_enqueue(options: argparse.Namespace) -> int:
    """Enqueue rows; asking for the same window twice makes no second row."""
    config = settings()
    if options.provider and not config.allow_source_override:
        raise UsageError(
            "--provider needs ALLOW_SOURCE_OVERRIDE=true in the settings of the workers"
        )
    with database(config) as db:
        members = _members(db, options)
        with db.transaction() as conn:
            known = calendars.require(conn, sorted({member.calendar for member in members}))
        jobs: list[NewJob] = []
        for member in members:
            calendar = known[member.calendar]
            span = window(options.start, options.end, calendar)
            _check(config, db, span, options.interval)
            _check_known(calendar, span)
            jobs += [
                NewJob(
                    member.symbol_id,
                    options.interval,
                    piece,
                    options.tier or member.tier,
                    "operator",
                    options.provider,
                )
                for piece in pieces(span, options.interval, calendar, config)
            ]
        if options.dry_run:
            print(f"would ask for {len(members)} symbols in {len(jobs)} rows; nothing was changed")
            return 0
        if not jobs:
            print("nothing to ask: the window holds no trading time")
            return 0
        ids = backfill.enqueue(db, jobs)
        print(f"{len(ids)} rows enqueued, {len(jobs) - len(ids)} were already waiting")
        return wait(db, ids) if options.wait else 0


def pieces(span: Window, interval: Interval, calendar: Calendar, config: Settings) -> list[Window]:
    """The rows that a window makes: trading time only, none longer than BACKFILL_CHUNK_MINUTES."""
    if interval is Interval.D1:
        return [span]
    chunk = timedelta(minutes=config.backfill_chunk_minutes)
    return [piece for hours in _sessions(span, calendar) for piece in hours.chunks(chunk)]


def _sessions(span: Window, calendar: Calendar) -> list[Window]:
    whole = [
        Window(session.open, session.close).intersect(span) for session in calendar.between(span)
    ]
    return [hours for hours in whole if hours is not None]


def _members(db: Database, options: argparse.Namespace) -> list[universe.Member]:
    names: list[str] = list(options.symbols)
    if options.file:
        try:
            names += [
                line.strip() for line in options.file.read_text().splitlines() if line.strip()
            ]
        except OSError as error:
            raise UsageError(
                f"symbol file {options.file} can't be read: {error.strerror}"
            ) from None
    with db.transaction() as conn:
        if not names:
            if options.tier is None:
                raise UsageError("no symbols: name some, or give --tier T0 or --file FILE")
            return universe.members(conn, tier=options.tier)
        found = universe.resolve(conn, names)
    unknown = sorted(set(names) - set(found))
    if unknown:
        raise UsageError(
            f"symbol {', '.join(unknown)} is not in the universe; add it with `ops universe load --add FILE`"
        )
    return [found[name] for name in dict.fromkeys(names)]


def _check(config: Settings, db: Database, span: Window, interval: Interval) -> None:
    now = db.clock.now()
    if span.end > now:
        raise UsageError(
            f"the window ends at {span.end:%Y-%m-%dT%H:%M:%SZ}, in the future "
            f"(market time is {now:%Y-%m-%dT%H:%M:%SZ}); "
            "choose an end that has passed"
        )
    kept_since = config.candles_kept_since(now)
    if kept_since is not None and span.start < kept_since:
        raise UsageError(
            f"the window starts at {span.start:%Y-%m-%dT%H:%M:%SZ}; bars from before {kept_since:%Y-%m-%dT%H:%M:%SZ} "
            f"expire (CANDLE_RETENTION_DAYS={config.candle_retention_days}); start later or keep them longer"
        )
    oldest = oldest_answerable(config, db.clock, _CAPABILITY[interval])
    if oldest is not None and span.start < oldest:
        raise UsageError(
            f"the window starts at {span.start:%Y-%m-%dT%H:%M:%SZ}; no provider of the policy answers {interval} bars "
            f"from before {oldest:%Y-%m-%dT%H:%M:%SZ}; start later or add a provider that reaches further back"
        )


def _check_known(calendar: Calendar, span: Window) -> None:
    if span.start.date() < calendar.known_from or span.end.date() > calendar.known_until:
        raise UsageError(
            f"the window {span} reaches beyond what is known of {calendar.name}, {calendar.known_from} to "
            f"{calendar.known_until}; publish more with `ops calendar publish {calendar.name} --start ... --end ...`"
        )


def wait(db: Database, ids: list[int]) -> int:
    """Show progress until every row has ended; 0 when all are done, 1 when any failed."""
    began = db.clock.monotonic()
    live = sys.stderr.isatty()
    while True:
        states = Counter(backfill.states(db, ids).values())
        ended = states["done"] + states["failed"] + states["cancelled"]
        passed = db.clock.monotonic() - began
        eta = (
            f"about {passed / ended * (len(ids) - ended):.0f} s left"
            if ended
            else "waiting for a worker"
        )
        if live:
            print(f"\r{ended}/{len(ids)} rows ended, {eta}   ", end="", file=sys.stderr, flush=True)
        if ended == len(ids):
            if live:
                print(file=sys.stderr)
            print(", ".join(f"{count} {state}" for state, count in sorted(states.items()) if count))
            if states["failed"]:
                print("see why with `ops backfill list --state failed`", file=sys.stderr)
            return 1 if states["failed"] else 0
        db.clock.sleep(0.2)


def run_list(options: argparse.Namespace) -> int:
    """List rows, newest first."""
    with database() as db:
        rows = backfill.list_jobs(db, state=options.state, limit=options.limit)
    if options.json:
        output.as_json(rows)
    else:
        output.table(
            rows,
            [
                "job_id",
                "symbol",
                "interval",
                "start_ts",
                "end_ts",
                "tier",
                "origin",
                "state",
                "attempts",
                "reason",
            ],
        )
    return 0


def run_change(options: argparse.Namespace) -> int:
    """Apply one verb to rows."""
    if not options.ids and not options.all:
        raise UsageError(f"ops backfill {options.verb}: name row ids, or --all")
    change = {
        "retry": backfill.retry,
        "cancel": backfill.cancel,
        "pause": backfill.pause,
        "resume": backfill.resume,
    }[options.verb]
    with database() as db:
        count = change(db, None if options.all else options.ids)
    print(f"{options.verb}: {count} rows")
    return 0 if count or options.all else 1
