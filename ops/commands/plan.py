"""``ops plan``: what the universe asks for, what the budgets allow, and the cadence that is attainable."""

import argparse
from dataclasses import dataclass
from math import ceil

from core.clock import SystemClock
from core.settings import Settings
from core.words import Capability, Tier
from db import universe
from ops import output
from ops.connect import database, settings
from ops.registering import Commands
from providers.base import Limit, Spec
from workers.wiring import build_sources


def register(commands: Commands) -> None:
    command = commands.add_parser(
        "plan",
        help="demand against budgets, and the attainable cadence",
        epilog="Example: ops plan",
    )
    command.add_argument("--json", action="store_true")
    command.set_defaults(run=run)


@dataclass(frozen=True, slots=True)
class Demand:
    """What one tier asks of one capability in session."""

    tier: Tier
    capability: Capability
    symbols: int
    cadence_s: float


def run(options: argparse.Namespace) -> int:
    """Print the plan; 1 when no source can keep a cadence."""
    config = settings()
    with database(config) as db, db.transaction() as conn:
        members = universe.members(conn)
    counts = {tier: sum(1 for member in members if member.tier is tier) for tier in Tier}
    rows = [row for demand in _demands(config, counts) for row in _by_source(config, demand)]
    if options.json:
        output.as_json(rows)
    else:
        columns = [
            "tier",
            "capability",
            "symbols",
            "wanted s",
            "source",
            "calls/min",
            "budget/min",
            "attainable s",
            "note",
        ]
        rates = ("calls/min", "budget/min")
        output.table(
            ({**row, **{name: _rate(row.get(name)) for name in rates}} for row in rows), columns
        )
        print(
            "\nattainable s: seconds between two asks of a symbol if this source served this row alone"
        )
    return 1 if any(row["note"] == "too slow" and row["first"] for row in rows) else 0


def _rate(value: object) -> float | None:
    """A rate as people read it: one decimal, or two digits where that would say nothing."""
    if not isinstance(value, int | float):
        return None
    return round(value, 1) if value >= 10 else float(f"{value:.2g}")


def _demands(config: Settings, counts: dict[Tier, int]) -> list[Demand]:
    demands: list[Demand] = []
    for tier in Tier:
        for capability in (Capability.BARS_1M, Capability.QUOTES_L1):
            cadence = config.cadence_s(tier, capability)
            if cadence is not None and counts[tier]:
                demands.append(Demand(tier, capability, counts[tier], cadence))
    return demands


def _by_source(config: Settings, demand: Demand) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    sources = {source.name: source for source in build_sources(config, SystemClock())}
    names = [name for band in config.policy(demand.capability) for name in band]
    for name in names:
        source = sources.get(name)
        row: dict[str, object] = {
            "tier": demand.tier,
            "capability": demand.capability,
            "symbols": demand.symbols,
            "wanted s": demand.cadence_s,
            "source": name,
            "first": not rows,
        }
        provider = source.provider if source is not None else None
        if source is None or provider is None:
            rows.append({**row, "note": (source.ineligible if source else None) or "unknown"})
            continue
        spec = provider.specs().get(demand.capability)
        if spec is None:
            rows.append({**row, "note": "does not offer it"})
            continue
        calls = ceil(demand.symbols / spec.batch) * 60 / demand.cadence_s
        budget = budget_per_minute(spec, provider.limits())
        attainable = (
            demand.cadence_s
            if budget is None
            else max(demand.cadence_s, demand.cadence_s * calls / budget)
        )
        note = "too slow" if attainable > demand.cadence_s * 1.001 else "fine"
        rows.append(
            {
                **row,
                "calls/min": calls,
                "budget/min": budget,
                "attainable s": round(attainable, 1),
                "note": note,
            }
        )
    return rows


def budget_per_minute(spec: Spec, limits: tuple[Limit, ...]) -> float | None:
    """Calls a minute that the tightest rolling window allows; None without limits."""
    rates = [
        limit.units / limit.window_s * 60 / spec.cost[limit.name]
        for limit in limits
        if spec.cost.get(limit.name, 0) > 0
    ]
    return min(rates) if rates else None
