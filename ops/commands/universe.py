"""``ops universe``: which symbols are collected, in which tier."""

import argparse
from collections import Counter
from pathlib import Path
from textwrap import fill

from core.errors import UsageError
from core.exchanges import CALENDAR_OF
from core.settings import Settings
from core.words import Tier
from db import universe
from ops import output
from ops.connect import database, settings
from ops.registering import Commands
from ops.times import instant
from ops.universe_files import read
from ops.words import tier

_FILE = f"""\
FILE is CSV in UTF-8, separated by commas, with a header:
  symbol    such as AAPL or BRK-B
  tier      T0, T1 or T2; may be left out: see --tier
  exchange  decides the trading hours; may be left out: NYSE. One of
{fill(", ".join(sorted(CALENDAR_OF)), 90, initial_indent="            ", subsequent_indent="            ")}
or a list in the layout of NASDAQ's symbol directory (nasdaqlisted.txt, otherlisted.txt)."""


def register(commands: Commands) -> None:
    group = commands.add_parser("universe", help="load, show, retier or rename symbols")
    verbs = group.add_subparsers(dest="verb", metavar="VERB", required=True)

    load = verbs.add_parser(
        "load",
        help="make a file the universe; symbols that it lacks become inactive",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_FILE,
        epilog="Example: ops universe load symbols.csv   or   ops universe load nasdaqlisted.txt --tier T2",
    )
    load.add_argument("file", type=Path)
    load.add_argument(
        "--tier", default=Tier.T2, type=tier, help="for rows without one (default: T2)"
    )
    load.add_argument("--add", action="store_true", help="keep symbols that the file lacks active")
    load.add_argument("--dry-run", action="store_true", help="check the file and change nothing")
    load.set_defaults(run=run_load)

    show = verbs.add_parser(
        "show", help="list symbols", epilog="Example: ops universe show --tier T0"
    )
    show.add_argument("--tier", type=tier)
    show.add_argument("--json", action="store_true")
    show.set_defaults(run=run_show)

    retier = verbs.add_parser(
        "retier", help="move symbols to a tier", epilog="Example: ops universe retier T0 AAPL"
    )
    retier.add_argument("tier", type=tier, metavar="TIER", help="T0, T1 or T2")
    retier.add_argument("symbols", nargs="+")
    retier.set_defaults(run=run_retier)

    rename = verbs.add_parser(
        "rename",
        help="a symbol has a new name from an instant on",
        epilog="Example: ops universe rename FB META --from 2022-06-09T13:30:00Z",
    )
    rename.add_argument("old")
    rename.add_argument("new")
    rename.add_argument("--from", dest="since", required=True)
    rename.set_defaults(run=run_rename)


def run_load(options: argparse.Namespace) -> int:
    """Load a file as a new version; loading the same file again changes nothing."""
    config = settings()
    listed = read(options.file, default_tier=options.tier)
    with database(config) as db:
        with db.transaction() as conn:
            kept = universe.members(conn) if options.add else []
        names = {item.symbol for item in listed}
        rows = [(item.symbol, item.tier, item.calendar, item.exchange) for item in listed]
        rows += [(m.symbol, m.tier, m.calendar, m.exchange) for m in kept if m.symbol not in names]
        check_tiers(config, [row[1] for row in rows])
        if options.dry_run:
            print(f"{options.file}: {len(listed)} symbols, no problem found; nothing was changed")
            return 0
        report = universe.load(db, rows, origin=str(options.file.name))
    print(
        f"universe version {report.version}: {report.active} symbols"
        f" ({report.added} added, {report.changed} changed, {report.retired} retired)"
    )
    return 0


def check_tiers(config: Settings, tiers: list[Tier]) -> None:
    """Refuse more symbols in a tier than TIER_MAXS allows."""
    counts = Counter(tiers)
    for word, most in ((Tier.T0, config.tier_maxs.t0), (Tier.T1, config.tier_maxs.t1)):
        if counts[word] > most:
            raise UsageError(
                f"{word} would hold {counts[word]} symbols, TIER_MAXS__{word} allows {most}; "
                "move some to a lower tier or raise the setting"
            )


def run_show(options: argparse.Namespace) -> int:
    """List the active universe."""
    with database() as db, db.transaction() as conn:
        members = universe.members(conn, tier=options.tier)
    rows = [
        {"symbol": m.symbol, "tier": str(m.tier), "calendar": m.calendar, "exchange": m.exchange}
        for m in members
    ]
    if options.json:
        output.as_json(rows)
    else:
        output.table(rows, ["symbol", "tier", "calendar", "exchange"])
    return 0


def run_retier(options: argparse.Namespace) -> int:
    """Move symbols to another tier; those already there stay."""
    config = settings()
    with database(config) as db:
        with db.transaction() as conn:
            after = [
                options.tier if m.symbol in options.symbols else m.tier
                for m in universe.members(conn)
            ]
        check_tiers(config, after)
        report = universe.retier(db, options.symbols, options.tier)
    print(f"universe version {report.version}: {report.changed} moved to {options.tier}")
    return 0


def run_rename(options: argparse.Namespace) -> int:
    """Give a symbol a new name from an instant on; its past keeps the old one."""
    with database() as db:
        universe.rename(db, options.old, options.new, instant(options.since, "--from"))
    print(f"{options.old} is {options.new} from {options.since}")
    return 0
