"""Reads universe files: our CSV, and the public NASDAQ symbol-directory layout.

Our CSV is UTF-8 with commas and a header. ``symbol`` is needed; ``tier`` (T0, T1, T2; default: what
the command says, else T2) and ``exchange`` (default NYSE; ``core.exchanges`` lists them) may be left out,
as a column or in a row.

NASDAQ layout: https://www.nasdaqtrader.com/trader.aspx?id=symboldirdefs (``nasdaqlisted.txt`` and
``otherlisted.txt``: pipe-separated, a footer line ``File Creation Time``).
"""

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from core.errors import UsageError
from core.exchanges import calendar_of
from core.words import Tier

_OTHER_LISTED = {"A": "AMEX", "N": "NYSE", "P": "ARCA", "Z": "BATS", "V": "IEX"}
_COLUMNS = ("symbol", "tier", "exchange")
_OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs"}


@dataclass(frozen=True, slots=True)
class Listed:
    """One symbol as a file lists it."""

    symbol: str
    tier: Tier
    exchange: str
    calendar: str


def read(path: Path, *, default_tier: Tier, default_exchange: str = "NYSE") -> list[Listed]:
    """Every row of a universe file.

    Raises:
        UsageError: lists every bad row with its line number; nothing is returned then.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UsageError(f"universe file {path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(
            f"universe file {path} is not UTF-8 text (byte {error.start} is 0x{error.object[error.start]:02x}); "
            "save it as CSV in UTF-8"
        ) from None
    if not lines:
        raise UsageError(
            f"universe file {path} is empty; expected a header such as symbol,tier,exchange"
        )
    rows = _nasdaq(lines) if "|" in lines[0] else _ours(path, lines, default_tier, default_exchange)
    listed: list[Listed] = []
    problems: list[str] = []
    for number, symbol, tier, exchange in rows:
        try:
            listed.append(_checked(symbol, tier or default_tier.value, exchange))
        except UsageError as error:
            problems.append(f"line {number}: {error}")
    counts = Counter(item.symbol for item in listed)
    problems += [
        f"symbol {name} stands {count} times; keep one"
        for name, count in counts.items()
        if count > 1
    ]
    if problems:
        shown = "\n".join(f"  - {problem}" for problem in problems[:20])
        more = f"\n  ... and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise UsageError(
            f"universe file {path} has {len(problems)} problem(s), nothing was loaded:\n{shown}{more}"
        )
    return listed


def _checked(symbol: str, tier: str, exchange: str) -> Listed:
    if not symbol or len(symbol) > 32 or any(c.isspace() or c in ",;'\"" for c in symbol):
        raise UsageError(
            f"symbol {symbol!r} is no symbol; expected letters, digits, . - ^ = such as BRK-B"
        )
    if tier not in Tier.__members__:
        raise UsageError(f"tier {tier!r} of {symbol} is unknown; expected T0, T1 or T2")
    return Listed(symbol, Tier(tier), exchange, calendar_of(exchange))


def _ours(
    path: Path, lines: list[str], default_tier: Tier, default_exchange: str
) -> list[tuple[int, str, str, str]]:
    reader = csv.DictReader(lines)
    header = [name.strip().lower() for name in reader.fieldnames or []]
    unknown = [name for name in header if name not in _COLUMNS]
    other = next((mark for mark in _OTHER_DELIMITERS if mark in lines[0]), None)
    if len(header) == 1 and other is not None:
        raise UsageError(
            f"universe file {path} is separated by {_OTHER_DELIMITERS[other]}; expected commas, such as "
            "symbol,tier,exchange"
        )
    if "symbol" not in header or unknown:
        raise UsageError(
            f"universe file {path} has the columns {', '.join(header)}; expected symbol and, optionally, "
            f"tier and exchange{f' (not {unknown[0]})' if unknown else ''}"
        )
    reader.fieldnames = header
    return [
        (
            reader.line_num,
            (row["symbol"] or "").strip(),
            (row.get("tier") or default_tier.value).strip().upper(),
            (row.get("exchange") or default_exchange).strip(),
        )
        for row in reader
    ]


def _nasdaq(lines: list[str]) -> list[tuple[int, str, str, str]]:
    header = lines[0].split("|")
    other = "ACT Symbol" in header
    rows: list[tuple[int, str, str, str]] = []
    for number, line in enumerate(lines[1:], start=2):
        if line.startswith("File Creation Time"):
            continue
        row = dict(zip(header, line.split("|"), strict=False))
        if row.get("Test Issue") == "Y":
            continue
        symbol = (row.get("ACT Symbol") if other else row.get("Symbol")) or ""
        exchange = _OTHER_LISTED.get(row.get("Exchange", ""), "NYSE") if other else "NASDAQ"
        # Yahoo and most vendors write share classes with a dash: BRK.B is BRK-B.
        rows.append((number, symbol.strip().replace(".", "-").replace("$", "-P"), "", exchange))
    return rows
