"""``ops status``: one page of how everything fares."""

import argparse
from datetime import datetime, timedelta
from typing import Any

from core.errors import GaplessError
from core.log import mask_url
from core.words import Tier
from db import backfill, overview
from db.pool import Database
from ops import output
from ops.connect import database, redis_client, settings, stack_of
from ops.demo.kept import COMMAND
from ops.registering import Commands
from ops.words import counted
from workers.queues import depths

_LISTED = 1000
_SILENT = timedelta(minutes=5)
"""Market time for which a source may fail without an answer between, before a person should look."""


def register(commands: Commands) -> None:
    command = commands.add_parser(
        "status", help="how everything fares", epilog="Example: ops status --json"
    )
    command.add_argument("--json", action="store_true")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the page; 1 when something needs a person."""
    config = settings()
    stack = stack_of(config)
    kept = stack is not None and stack.command == COMMAND
    with database(config) as db:
        page = _page(db, kept=kept)
    try:
        page["queues"] = depths(redis_client(config.redis_url))
    except GaplessError as error:
        page["queues"] = {}
        page["trouble"].append(f"{error} (runbook: Redis was lost)")
    if options.json:
        output.as_json(page)
    else:
        print(f"database {mask_url(config.database_url)}")
        _print(page)
        if kept:
            print("this demo is over: its scheduler and workers have ended, its data can be read")
    return 1 if page["trouble"] else 0


def _page(db: Database, *, kept: bool) -> dict[str, Any]:
    with db.transaction() as conn:
        page: dict[str, Any] = {
            "market_time": db.clock.now(),
            "leader": overview.leader(conn),
            "stored": _stored(overview.estimates(conn)),
            "tiers": overview.freshness(conn),
            "sources": overview.by_source(conn),
            "failures": overview.recent_failures(conn),
        }
    waiting = backfill.depth(db)
    page["backfill"] = {
        str(tier): {"rows": waiting[tier][0], "oldest_age_s": waiting[tier][1]} for tier in Tier
    }
    failed = backfill.list_jobs(db, state="failed", limit=_LISTED)
    trouble: list[str] = []
    if not kept and (page["leader"] is None or not page["leader"]["alive"]):
        trouble.append(
            "no scheduler leads: start one (`ops up`, or the Procfile's scheduler) "
            "(runbook: Nothing is collected)"
        )
    if failed:
        more = " or more" if len(failed) == _LISTED else ""
        trouble.append(
            f"{counted(len(failed), 'backfill row')}{more} given up (runbook: Gaps do not heal)"
        )
    answered: dict[str, datetime] = {}
    for row in page["sources"]:
        answered[row["name"]] = max(
            row["last_answered_at"], answered.get(row["name"], row["last_answered_at"])
        )
    for row in page["failures"]:
        last = answered.get(row["name"])
        if last is None or row["last_at"] - last > _SILENT:
            since = "never" if last is None else f"not since {output.text(last)}"
            trouble.append(
                f"{row['name']} has {since} answered, and fails ({row['code']}): see `ops providers` "
                f"and `ops providers test {row['name']}` (runbook: A provider is failing)"
            )
    if not page["tiers"]:
        trouble.append(
            "the universe is empty: `ops universe load FILE` (runbook: Nothing is collected)"
        )
    page["trouble"] = trouble
    return page


def _print(page: dict[str, Any]) -> None:
    stored = page["stored"]
    print(f"market time {output.text(page['market_time'])}")
    leader = page["leader"]
    print(
        f"leader {leader['holder']} (token {leader['token']})"
        if leader and leader["alive"]
        else "leader none"
    )
    print(
        f"about {stored['bar_rows']:,} rows of bars (each revision of each source is one), "
        f"{stored['quotes']:,} quotes, {stored['bytes'] / 1e6:,.0f} MB\n"
    )
    now: datetime = page["market_time"]
    output.table(
        (
            {
                "tier": row["tier"],
                "symbols": row["symbols"],
                "answered": row["answered"],
                "median answer, s ago": _ago(now, row["median_answered"]),
                "oldest answer, s ago": _ago(now, row["oldest_answered"]),
                "backfill rows": page["backfill"][row["tier"]]["rows"],
                "oldest row, s": _round(page["backfill"][row["tier"]]["oldest_age_s"]),
            }
            for row in page["tiers"]
        ),
        [
            "tier",
            "symbols",
            "answered",
            "median answer, s ago",
            "oldest answer, s ago",
            "backfill rows",
            "oldest row, s",
        ],
    )
    print()
    output.table(page["sources"], ["name", "interval", "series", "last_answered_at"])
    if page["failures"]:
        print("\nfailures of the last market hour")
        output.table(page["failures"], ["name", "code", "times", "last_at", "detail"])
    print("\n" + ("\n".join(f"TROUBLE {line}" for line in page["trouble"]) or "nothing needs you"))


def _stored(estimates: dict[str, Any]) -> dict[str, Any]:
    """Named for what is counted: a bar has a row for each revision and source."""
    return {
        "bar_rows": estimates["bars"],
        "quotes": estimates["quotes"],
        "bytes": estimates["bytes"],
    }


def _ago(now: datetime, then: datetime | None) -> int | None:
    return None if then is None else round((now - then).total_seconds())


def _round(value: float | None) -> int | None:
    return None if value is None else round(value)
