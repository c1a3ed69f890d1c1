"""The flags of ``python -m sim`` and the config that they make."""

import argparse
import csv
import json
from pathlib import Path
from typing import Any, cast

from core.errors import SettingsError
from sim.wire.registry import source_kinds

_PLAIN = ("host", "admin_port", "log_file", "endpoints_file")


def parser() -> argparse.ArgumentParser:
    """All flags; without any, a market in real time from seed 1."""
    made = argparse.ArgumentParser(
        prog="python -m sim", description="A simulated market on localhost, with its providers."
    )
    add = made.add_argument
    add("--config", type=Path, help="JSON config; the flags below come on top")
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
    for name in source_kinds():
        add(f"--{name}-port", type=int)
    add("--log", dest="log_file", help="write the request log to this file, NDJSON")
    add(
        "--endpoints",
        dest="endpoints_file",
        help="write the endpoints to this file once all listen",
    )
    add("--log-level", default="INFO")
    return made


def raw_config(flags: argparse.Namespace) -> dict[str, Any]:
    """The config file, with what the flags say on top; not checked yet.

    Raises:
        SettingsError: a file can't be read, or a flag makes no sense.
    """
    raw = _from_file(flags.config) if flags.config else {}
    raw["market"] = _market(flags, dict(raw.get("market") or {}))
    raw["sources"] = _sources(
        flags, dict(raw.get("sources") or {name: {} for name in source_kinds()})
    )
    if flags.faults:
        raw["faults"] = _decoded(flags.faults)
    for name in _PLAIN:
        value = getattr(flags, name)
        if value is not None:
            raw[name] = value
    replayed = raw.get("clock") or flags.session or flags.bars or flags.start or flags.speed
    if flags.config and not replayed and raw.get("log_file") is None:
        # This market goes on while no process plays it, and so does the log of what it answered.
        log = flags.config.with_suffix(".served.ndjson")
        raw = {"log_kept": True, **raw, "log_file": str(log)}
    return raw


def _market(flags: argparse.Namespace, market: dict[str, Any]) -> dict[str, Any]:
    if flags.seed is not None:
        market["seed"] = flags.seed
    if flags.session:
        market["session"] = flags.session
    if flags.symbols:
        market["symbols"] = _symbols(flags.symbols)
    if flags.universe:
        market["universe"] = _universe(flags.universe)
    if flags.bars:
        market.update(kind="csv", dir=str(flags.bars))
    if flags.calendar and market.get("kind") == "csv":
        market["calendar"] = flags.calendar
    elif flags.calendar:
        market["exchanges"] = {flags.calendar: 1.0}
    return market


def _sources(flags: argparse.Namespace, sources: dict[str, Any]) -> dict[str, Any]:
    for name in source_kinds():
        port = getattr(flags, f"{name}_port")
        if port is not None:
            sources[name] = {**(sources.get(name) or {}), "port": port}
    if flags.premium is not None:
        sources["finnhub"] = {**(sources.get("finnhub") or {}), "premium": flags.premium}
    return sources


def _from_file(path: Path) -> dict[str, Any]:
    raw = _decoded(path)
    if not isinstance(raw, dict):
        raise SettingsError(f"{path} holds {type(raw).__name__}; expected a JSON object")
    return cast("dict[str, Any]", raw)


def _decoded(path: Path) -> object:
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{path} is no JSON: {error}") from error


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
        raise SettingsError(f"--symbols is {text!r}; expected a number or T0=30,T1=70") from error


def _universe(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="") as file:
            table = csv.DictReader(file)
            return [
                {name: row[name] for name in ("symbol", "tier", "exchange") if row.get(name)}
                for row in table
            ]
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {error.strerror}") from error
