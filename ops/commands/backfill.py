"""``ops enqueue-backfill`` and ``ops backfill``: ask for windows of the past, and see what became of it."""

import argparse
import sys
from datetime import datetime, timedelta
from pathlib import Path

from core.errors import UsageError
from core.sessions import Calendar
from core.settings import Settings
from core.windows import Window, floor_to
from core.words import Capability, Interval
from db import backfill, calendars, universe
from db.backfill import NewJob
from db.pool import Database
from ops import output
from ops.backfill_wait import Waiting
from ops.connect import database, settings
from ops.lookback import oldest_answerable
from ops.registering import Commands
from ops.shell import ops_word
from ops.spans import span as span_of
from ops.symbols import chosen
from ops.times import window
from ops.words import collected_interval, counted, tier

_CAPABILITY = {Interval.M1: Capability.BARS_1M, Interval.D1: Capability.BARS_EOD}
_FITS = {
    "retry": ("failed", "cancelled"),
    "cancel": ("pending", "paused"),
    "pause": ("pending",),
    "resume": ("paused",),
}
"""The states in which a row can be changed so."""
_MINUTE = timedelta(minutes=1)
_SETTLED = timedelta(minutes=3)
"""By then a bar has settled at every source, so that one answer is enough."""
_NAMED = 5
"""At most so many symbols are written out in a line to type."""
_STATES = ("pending", "running", "done", "failed", "cancelled", "paused")


def register(commands: Commands) -> None:
    command = commands.add_parser(
        "enqueue-backfill",
        help="ask for a window of the past",
        epilog="Example: ops enqueue-backfill AAPL MSFT --interval 1m --last 2d --wait   or   "
        "ops enqueue-backfill --tier T0 --interval 1d --start 2026-11-18 --end 2026-11-19",
    )
    command.add_argument("symbols", nargs="*", metavar="SYMBOL")
    command.add_argument(
        "--tier", type=tier, help="every symbol of the tier; with symbols: their queue"
    )
    command.add_argument("--file", type=Path, help="symbols, one a line")
    command.add_argument("--interval", type=collected_interval, required=True, help="1m or 1d")
    command.add_argument("--start", help="instant with Z or offset, or a session date")
    command.add_argument("--end", help="open end: instant, or a session date (its close)")
    command.add_argument(
        "--last", help="in place of --start and --end: such as 30m, 2h, 5d, up to three minutes ago"
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
        now = db.clock.now()
        jobs: list[NewJob] = []
        for member in members:
            calendar = known[member.calendar]
            span = _window(options, calendar, now)
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
            print(
                f"would ask for {counted(len(members), 'symbol')} in {counted(len(jobs), 'row')}; "
                "nothing was changed"
            )
            return 0
        if not jobs:
            print("nothing to ask: the window holds no trading time")
            return 0
        queued = backfill.same_open(db, jobs)
        new = backfill.enqueue(db, jobs)
        before = f", {len(queued):,} queued already" if queued else ""
        print(f"{counted(len(new), 'row')} enqueued{before}", flush=True)
        if not options.wait:
            return 0
        code = Waiting(db, config.redis_url, [*queued, *new]).run(since=now)
    if code == 0 and len(members) <= _NAMED:
        names = " ".join(member.symbol for member in members)
        first, last = min(job.window.start for job in jobs), max(job.window.end for job in jobs)
        print(
            f"to read them: {ops_word()} bars {names} --interval {options.interval} "
            f"--start {output.text(first)} --end {output.text(last)}",
            file=sys.stderr,
        )
    return code


def _window(options: argparse.Namespace, calendar: Calendar, now: datetime) -> Window:
    if options.last is not None:
        if options.start or options.end:
            raise UsageError("--last stands in place of --start and --end; give one or the other")
        end = floor_to(now - _SETTLED, _MINUTE)
        return Window(end - span_of(options.last, "--last"), end)
    if options.start is None or options.end is None:
        raise UsageError("which window? give --start and --end, or --last such as 2h or 5d")
    return window(options.start, options.end, calendar)


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
        return chosen(conn, names)


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
        print(f"{options.verb}: {counted(count, 'row')}")
        if count == 0:
            print(_why_none(db, options), file=sys.stderr)
    return 0 if count or options.all else 1


def _why_none(db: Database, options: argparse.Namespace) -> str:
    """What stands in the way of a verb that changed nothing."""
    fits = _FITS[options.verb]
    if options.all:
        return f"no row is {fits[0] if options.verb == 'retry' else ' or '.join(fits)}"
    states = backfill.states(db, options.ids)
    reasons: list[str] = []
    for job_id in options.ids:
        state = states.get(job_id)
        if state is None:
            reasons.append(f"there is no row {job_id}")
        elif state in fits:
            reasons.append(f"row {job_id} is {state}, but a newer row of its window is open")
        else:
            reasons.append(f"row {job_id} is {state}; {options.verb} fits {' or '.join(fits)} rows")
    return "; ".join(reasons) + " (`ops backfill list`)"
