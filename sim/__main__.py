"""``python -m sim``: a simulated market on localhost, from a config file or from flags.

Example: ``python -m sim --session 2024-03-05 --symbols 50 --speed 60``
"""

import argparse
import csv
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core import log
from core.errors import GaplessError, SettingsError
from sim.config import read_config
from sim.market.model import instant
from sim.server import serve
from sim.service import Service
from sim.wire.registry import source_kinds

_LEAD_S = 300
"""A replay started by hand begins this long before the open."""


def main() -> int:
    """Start, say where everything is, serve until stopped."""
    options = _parser().parse_args()
    log.configure(options.log_level)
    try:
        config = read_config(_raw(options), source_kinds())
        service = Service(config)
        if not config.segments and (
            options.session or options.bars or options.start or options.speed
        ):
            begin = service.market.session.open - _LEAD_S
            if options.start:
                begin = instant(options.start, service.market.session)
            service.replay(begin, options.speed or 1.0)
        serve(service, lambda: _announce(service))
    except GaplessError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _announce(service: Service) -> None:
    market, time = service.market, service.time
    print(json.dumps(service.endpoints()), flush=True)
    session = market.session
    notes = [
        *market.notes,
        f"{len(market.universe.instruments)} symbols, session {session.day} of {market.calendar.code}, "
        f"market time {_clock(time.timestamp())}, open {_clock(session.open)}, close {_clock(session.close)}, "
        f"speed {time.speed:g}",
    ]
    print("\n".join(notes), file=sys.stderr, flush=True)


def _clock(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _raw(options: argparse.Namespace) -> dict[str, Any]:
    """The config file, with what flags say on top."""
    raw = _from_file(options.config) if options.config else {}
    market: dict[str, Any] = dict(raw.get("market") or {})
    sources: dict[str, Any] = dict(raw.get("sources") or {"yahoo": {}, "finnhub": {}})
    if options.seed is not None:
        market["seed"] = options.seed
    if options.session:
        market["session"] = options.session
    if options.symbols:
        market["symbols"] = _symbols(options.symbols)
    if options.universe:
        market["universe"] = _universe(options.universe)
    if options.bars:
        market.update(kind="csv", dir=str(options.bars))
    if options.calendar:
        market["calendar" if market.get("kind") == "csv" else "exchanges"] = (
            options.calendar if market.get("kind") == "csv" else {options.calendar: 1.0}
        )
    for name, port in (("yahoo", options.yahoo_port), ("finnhub", options.finnhub_port)):
        if port is not None:
            sources[name] = {**(sources.get(name) or {}), "port": port}
    if options.premium is not None:
        sources["finnhub"] = {**(sources.get("finnhub") or {}), "premium": options.premium}
    if options.faults:
        raw["faults"] = json.loads(options.faults.read_text())
    for name in ("host", "admin_port", "log_file", "endpoints_file"):
        value = getattr(options, name)
        if value is not None:
            raw[name] = value
    return {**raw, "market": market, "sources": sources}


def _from_file(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{path} is no JSON: {error}") from error
    if not isinstance(raw, dict):
        raise SettingsError(f"{path} holds {type(raw).__name__}; expected a JSON object")
    return raw


def _symbols(text: str) -> dict[str, int]:
    """``300`` (a tenth T0, 7/30 T1) or ``T0=30,T1=70``."""
    try:
        if text.isdigit():
            total = int(text)
            t0, t1 = max(1, round(total * 0.1)), round(total * 7 / 30)
            return {"T0": t0, "T1": t1, "T2": max(0, total - t0 - t1)}
        pairs = (part.split("=") for part in text.split(","))
        return {tier: int(count) for tier, count in pairs}
    except ValueError as error:
        raise SettingsError(
            f"--symbols is {text!r}; expected a number or T0=30,T1=70,T2=200"
        ) from error


def _universe(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [
            {name: row[name] for name in ("symbol", "tier", "exchange") if row.get(name)}
            for row in csv.DictReader(file)
        ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sim", description=__doc__)
    add = parser.add_argument
    add("--config", type=Path, help="JSON config; flags below come on top")
    add("--seed", type=int)
    add("--symbols", help="how many: 300, or T0=30,T1=70,T2=200")
    add(
        "--universe",
        type=Path,
        help="CSV with symbol, exchange, tier, in place of invented symbols",
    )
    add("--session", help="trade this day, YYYY-MM-DD, from 5 minutes before its open")
    add("--from", dest="start", help="start at this market time: HH:MM UTC of the session, or ISO")
    add("--speed", type=float, help="market seconds per real second")
    add("--bars", type=Path, help="trade recorded bars: <dir>/<SYMBOL>/<date>.csv")
    add("--calendar", help="exchange: of all symbols (seeded), or of unlisted ones (--bars)")
    add("--faults", type=Path, help="JSON list of faults")
    add("--premium", action=argparse.BooleanOptionalAction, help="whether finnhub serves candles")
    add("--host")
    add("--admin-port", type=int)
    add("--yahoo-port", type=int)
    add("--finnhub-port", type=int)
    add("--log", dest="log_file", help="write the request log to this file, NDJSON")
    add(
        "--endpoints",
        dest="endpoints_file",
        help="write the endpoints to this file once all listen",
    )
    add("--log-level", default="INFO")
    return parser


if __name__ == "__main__":
    sys.exit(main())
