"""``ops providers``: health, breakers and reasons; try one, switch one off or on."""

import argparse
import getpass
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

from core.bars import Bar
from core.clock import Clock
from core.errors import ProviderError, UsageError
from core.settings import Settings
from core.windows import Window, floor_to
from core.words import Capability
from db import calendars, switches, universe
from db.pool import Connection, Database
from db.universe import Member
from ops import output, provider_lines
from ops.connect import database, settings
from ops.registering import Commands
from ops.spans import span
from ops.symbols import one
from ops.words import counted
from providers.base import Call, Provider, Raw, Request, SessionNotReadyError
from routing.router import Router, SourceStatus
from workers.wiring import build_router, build_sources

_MINUTE = timedelta(minutes=1)

_SESSION_S = 15.0
"""Real seconds that a provider gets to make a session before it is asked."""


def register(commands: Commands) -> None:
    group = commands.add_parser(
        "providers", help="health and reasons of every source; test, disable or enable one"
    )
    group.add_argument("--json", action="store_true")
    group.set_defaults(run=run_show)
    verbs = group.add_subparsers(dest="verb", metavar="VERB")
    test = verbs.add_parser(
        "test", help="one real call, explained", epilog="Example: ops providers test yfinance"
    )
    test.add_argument("name")
    test.add_argument("--symbol", help="default: the first of the universe")
    test.add_argument("--capability", type=Capability, choices=list(Capability))
    test.set_defaults(run=run_test)
    disable = verbs.add_parser(
        "disable",
        help="ask it no more",
        epilog='Example: ops providers disable finnhub --for 2h --reason "wrong prices"',
    )
    disable.add_argument("name")
    disable.add_argument("--for", dest="span", help="such as 30m, 2h, 1d (default: until enabled)")
    disable.add_argument("--reason", required=True)
    disable.set_defaults(run=run_switch, enabled=False)
    enable = verbs.add_parser(
        "enable", help="ask it again", epilog="Example: ops providers enable finnhub"
    )
    enable.add_argument("name")
    enable.add_argument("--reason", default="enabled by hand")
    enable.set_defaults(run=run_switch, enabled=True, span=None)


@contextmanager
def _router(config: Settings, db: Database) -> Generator[Router]:
    router = build_router(config, db.clock, db)
    try:
        yield router
    finally:
        router.close()


def run_show(options: argparse.Namespace) -> int:
    """Print every source of every policy; 1 when a capability has no source that can be asked."""
    config = settings()
    with database(config) as db, _router(config, db) as router:
        found = router.status()
    why = provider_lines.reasons(found)
    if options.json:
        output.as_json(
            [provider_lines.as_json(one, why[(one.capability, one.source)]) for one in found]
        )
    else:
        _print(found, why)
    wanted = [status for status in found if status.capability is not Capability.OPTIONS_CHAIN]
    served = {status.capability for status in wanted if status.why_not is None}
    return 0 if served >= {status.capability for status in wanted} else 1


def _print(found: Sequence[SourceStatus], why: Mapping[tuple[Capability, str], str | None]) -> None:
    below = [list(provider_lines.details(one, why[(one.capability, one.source)])) for one in found]
    output.table(map(provider_lines.row, found), provider_lines.COLUMNS, below)
    budgets = provider_lines.budget_rows(found)
    if budgets:
        print()
        output.table(budgets, provider_lines.BUDGET_COLUMNS)


def run_test(options: argparse.Namespace) -> int:
    """Make one real call outside of the budget's count and say what came; 1 when it failed."""
    config = settings()
    with database(config) as db:
        provider = _provider(config, db.clock, options.name)
        capability = options.capability or _first(provider)
        if capability not in provider.specs():
            offered = ", ".join(sorted(provider.specs()))
            raise UsageError(f"{options.name} does not offer {capability}; it offers {offered}")
        with db.transaction() as conn:
            member = one(conn, options.symbol) if options.symbol else _first_member(conn)
            calendar = calendars.require(conn, [member.calendar])[member.calendar]
        symbol = member.symbol
        window = None
        if capability.interval is not None:
            session = calendar.session_at(db.clock.now()) or calendar.last_closed(db.clock.now())
            if session is None:
                raise UsageError(
                    f"{calendar.name} knows no session before now; publish a wider calendar"
                )
            end = min(session.close, floor_to(db.clock.now(), _MINUTE))
            window = Window(session.open, max(end, session.open + _MINUTE))
        request = Request(capability, (symbol,), window)
        call = provider.plan(request)[-1]
        began = db.clock.monotonic()
        try:
            raw = _send(provider, call, db.clock)
            page = provider.parse(call, raw, calendar)
        except ProviderError as error:
            print(f"{options.name} {call.endpoint} {symbol}: {error.code}: {error}")
            return 1
        took_ms = (db.clock.monotonic() - began) * 1000
    print(
        f"{options.name} {call.endpoint} {symbol}: status {raw.status}, {len(raw.body):,} bytes, {took_ms:.0f} ms"
    )
    bars, quote, problem = (
        page.bars.get(symbol, ()),
        page.quotes.get(symbol),
        page.problems.get(symbol),
    )
    if problem is not None:
        print(f"  {problem}")
        return 1
    if quote is not None:
        print(f"  bid {quote.bid} ask {quote.ask} last {quote.last} at {output.text(quote.ts)}")
    elif bars:
        print(f"  {counted(len(bars), 'bar')} of {window}; the last: {_words(bars[-1])}")
    else:
        print(f"  no bars in {window}")
    for _symbol, ts, reason in page.rejects[:5]:
        print(f"  refused {output.text(ts)}: {reason}")
    return 0


def _send(provider: Provider, call: Call, clock: Clock) -> Raw:
    """The reply; a session that has to be made first is waited for."""
    deadline = clock.monotonic() + _SESSION_S
    while True:
        try:
            return provider.send(call, 10.0)
        except SessionNotReadyError:
            if clock.monotonic() >= deadline:
                raise
        clock.sleep(0.2)


def _first_member(conn: Connection) -> Member:
    members = universe.members(conn)
    if not members:
        raise UsageError("the universe is empty; load one with `ops universe load FILE`")
    return members[0]


def _words(bar: Bar) -> str:
    values = (bar.open, bar.high, bar.low, bar.close, bar.volume)
    named = zip(("open", "high", "low", "close", "volume"), values, strict=True)
    return " ".join([output.text(bar.ts), *(f"{name} {output.text(v)}" for name, v in named)])


def _provider(config: Settings, clock: Clock, name: str) -> Provider:
    sources = {source.name: source for source in build_sources(config, clock)}
    if name not in sources:
        raise UsageError(
            f"provider {name!r} is unknown; expected one of {', '.join(sorted(sources))}"
        )
    provider = sources[name].provider
    if provider is None:
        raise UsageError(f"{name} can't be asked: {sources[name].ineligible}")
    return provider


def _first(provider: Provider) -> Capability:
    offered = provider.specs()
    order = (Capability.BARS_1M, Capability.QUOTES_L1, Capability.BARS_EOD)
    return next(capability for capability in order if capability in offered)


def run_switch(options: argparse.Namespace) -> int:
    """Turn a source off or on for the whole fleet; it takes effect within two seconds."""
    config = settings()
    with database(config) as db:
        known = {source.name for source in build_sources(config, db.clock)}
        if options.name not in known:
            raise UsageError(
                f"provider {options.name!r} is unknown; expected one of {', '.join(sorted(known))}"
            )
        until = db.clock.now() + span(options.span, "--for") if options.span else None
        switches.switch(
            db,
            options.name,
            enabled=options.enabled,
            who=getpass.getuser(),
            reason=options.reason,
            until=until,
        )
    state = (
        "enabled"
        if options.enabled
        else f"disabled{f' until {output.text(until)}' if until else ''}"
    )
    print(f"{options.name} is {state}")
    return 0
