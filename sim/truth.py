"""What a perfect collector would know: every bar with every version and its reveal."""

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from sim.market.day import BarVersion, SymbolDay
from sim.market.model import Market
from sim.market.universe import Instrument


def truth_lines(
    market: Market,
    symbols: Sequence[str],
    interval: str,
    start: float,
    end: float,
    *,
    untraded: bool,
) -> Iterator[bytes]:
    """NDJSON of the bars that start in ``[start, end)``, one piece per symbol and session.

    Args:
        market: Whose bars.
        symbols: Which; none means all. Unknown ones are left out.
        interval: ``1m`` or ``1d``.
        start: Epoch seconds, inclusive.
        end: Epoch seconds, exclusive.
        untraded: Include expected bars that never trade, with no versions.
    """
    chosen = [market.universe.get(symbol) for symbol in symbols] or market.universe.instruments
    for one in chosen:
        if one is None:
            continue
        for day in market.days(one, start, end):
            rows = (
                _minutes(one, day, start, end, untraded=untraded)
                if interval == "1m"
                else _session(one, day, start, end, untraded=untraded)
            )
            yield b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)


def _minutes(
    one: Instrument, day: SymbolDay, start: float, end: float, *, untraded: bool
) -> Iterator[dict[str, Any]]:
    expected = day.grid.regular.tolist()
    for row, minute in enumerate(day.minutes):
        if start <= minute < end:
            versions = day.versions(row)
            if versions or (untraded and expected[row]):
                yield {
                    "symbol": one.symbol,
                    "ts": minute,
                    "expected": expected[row],
                    "halted": minute in day.halted,
                    "versions": [_version(version) for version in versions],
                }


def _session(
    one: Instrument, day: SymbolDay, start: float, end: float, *, untraded: bool
) -> Iterator[dict[str, Any]]:
    opened = day.session.open
    if start <= opened < end and (day.daily or untraded):
        yield {
            "symbol": one.symbol,
            "ts": opened,
            "session": day.session.day.isoformat(),
            "expected": True,
            "halted": not day.daily and bool(day.halted),
            "versions": [_version(version) for version in day.daily],
        }


def _version(version: BarVersion) -> dict[str, float]:
    return {
        "reveal": version.reveal,
        "o": version.open,
        "h": version.high,
        "l": version.low,
        "c": version.close,
        "v": version.volume,
    }
