"""Runs a whole gapless on this machine and shows how it fares."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from core.clock import SystemClock
from core.exchanges import calendar_of
from core.log import mask_url
from core.settings import Settings, load
from core.words import Tier
from db import universe
from db.pool import Database
from ops.embedded.home import Home
from ops.shell import line
from ops.simulated import limited_to, pointed_at
from ops.stack import INTAKE, SCHEDULER, WORKERS, Stack
from ops.status_lines import StatusLines
from ops.supervise.signals import StopSignals
from ops.universe_files import read

_SUMMARY_S = 5.0
_SIM_LIMITS = "3000/60s"
_SIM_SYMBOLS = {"T0": 10, "T1": 20, "T2": 30}
_CALENDAR_YEARS = 2


def up(*, sim: bool, universe_file: Path | None, once_ready: bool) -> int:
    """Start everything, print a summary every few seconds, stop in order on Ctrl-C or SIGTERM.

    Raises:
        AlreadyRunningError: another stack runs in this folder; its message says which.
    """
    config = load()
    clock = SystemClock()
    home = Home(config.gapless_home, clock=clock)
    if sim:
        home = home.within("sim")
    _say(f"state folder {home.path}: servers, data, logs, secrets")
    stack = Stack("ops up --sim" if sim else "ops up", home, clock, _say)
    with StopSignals() as stop:
        try:
            stack.open()
            db = _start(config, stack, universe_file, sim=sim)
            with closing(db):
                _say("everything is up; Ctrl-C stops it")
                for words in _ready(config, stack, sim=sim):
                    _say(words)
                hint = "no internet? `ops up --sim` collects from a simulated market"
                lines = StatusLines(db, hint="" if sim else hint)
                next_summary = 0.0
                while not (stop.requested or once_ready):
                    for event in stack.supervisor.poll():
                        _say(f"{event.name} {event.kind} ({event.detail})")
                    if clock.monotonic() >= next_summary:
                        next_summary = clock.monotonic() + _SUMMARY_S
                        for words in lines.next():
                            _say(words)
                    stop.wait(0.2)
            _say("stopping ...")
        finally:
            stack.close()
    _say(f"stopped; the data stays in {stack.home.path}")
    return 0


def _start(config: Settings, stack: Stack, universe_file: Path | None, *, sim: bool) -> Database:
    own = config.model_fields_set
    endpoints: Mapping[str, Any] | None = None
    if sim:
        market = {"kind": "seeded", "seed": 1, "symbols": _SIM_SYMBOLS, "exchanges": {"24/7": 1.0}}
        endpoints = stack.start_sim({"market": market})
    rows = _rows(universe_file, endpoints)
    names = sorted({row[2] for row in rows}) or ["NYSE"]
    today = stack.clock.now().date()
    stack.begin_calendars(
        names, today - timedelta(days=40), today + timedelta(days=365 * _CALENDAR_YEARS)
    )
    database_url = config.database_url if "database_url" in own and not sim else None
    redis_url = config.redis_url if "redis_url" in own and not sim else None
    _say(starting_words(database_url, redis_url))
    stack.start_servers(database_url=database_url, redis_url=redis_url, durable=True)
    place = stack.home.known_place()
    if place is not None and place.folder != stack.home.path:
        _say(f"as root, the servers keep their data in {place.folder}")
    market_clock = stack.prepare()
    if endpoints is not None:
        # The simulator of this command sets no limits; what a free key allows is too little to look at.
        stack.env |= pointed_at(endpoints) | limited_to(_SIM_LIMITS)
    db = Database(stack.database_url, market_clock, max_size=2, application="gapless-up")
    with db.transaction() as conn:
        empty = not universe.members(conn)
    if universe_file is not None or empty:
        report = universe.load(db, rows, origin=universe_file.name if universe_file else "sample")
        _say(
            f"universe: {report.active} symbols"
            + ("" if universe_file else " (a sample; `ops universe load` takes yours)")
        )
    stack.publish(endpoints["admin"] if endpoints else None)
    stack.start_processes([SCHEDULER, *WORKERS, *([INTAKE] if config.use_rlc else [])])
    return db


def _rows(
    universe_file: Path | None, endpoints: Mapping[str, Any] | None
) -> list[tuple[str, Tier, str, str]]:
    if universe_file is None and endpoints is not None:
        from ops.demo.watch import SimAdmin  # noqa: PLC0415 - only a simulated market has it

        simulated = SimAdmin(endpoints["admin"]).get("/admin/universe")
        return [
            (r["symbol"], Tier(r["tier"]), calendar_of(r["exchange"]), r["exchange"])
            for r in simulated
        ]
    if universe_file is not None:
        listed = read(universe_file, default_tier=Tier.T2)
    else:
        with as_file(files("ops.data") / "sample_universe.csv") as path:
            listed = read(path, default_tier=Tier.T2)
    return [(m.symbol, m.tier, m.calendar, m.exchange) for m in listed]


def starting_words(database_url: str | None, redis_url: str | None) -> str:
    """What is started here, and what the user brought."""
    ours = [
        name for name, url in (("PostgreSQL", database_url), ("Valkey", redis_url)) if url is None
    ]
    brought = [
        f"{name} is yours ({mask_url(url)})"
        for name, url in (("the database", database_url), ("Redis", redis_url))
        if url is not None
    ]
    started = " and ".join([", ".join([*ours, "the scheduler"]), "the workers"])
    return "; ".join([f"starting {started} on this machine", *brought]) + " ..."


def _ready(config: Settings, stack: Stack, *, sim: bool) -> Iterator[str]:
    """What to type next, in another shell."""
    if sim and "database_url" in config.model_fields_set:
        yield "DATABASE_URL is set, so commands ask that database; unset it to ask this one"
        return
    yield "in another shell of this folder:"
    yield f"  {line(stack.home.path, 'status')}"
    if sim:
        past = "enqueue-backfill AAPL MSFT --interval 1m --last 2d --wait"
        yield f"  {line(stack.home.path, past)}"


def _say(words: str) -> None:
    print(words, file=sys.stdout, flush=True)
