"""The demo's day: who is collected, how fast, within which limits, and what goes wrong when."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from core.windows import Window
from core.words import Tier
from ops.demo.options import DemoOptions
from ops.simulated import pointed_at

QUOTE_CADENCE_S = {Tier.T0: 60.0, Tier.T1: 300.0}
BAR_CADENCE_S = {Tier.T0: 60.0, Tier.T1: 300.0}
BEFORE_OPEN = timedelta(minutes=5)
AFTER_CLOSE = timedelta(minutes=60)
REFUSED_MINUTES = 20
OUTAGE_MINUTES = 5
ERRORS_MINUTES = 10
_FAULTS_NEED = 210
"""Minutes that the default faults need to begin, end and be healed: those of a half day."""
LEAST_UNITS = 20
"""A handful of symbols gets at least this many calls a minute: less is lost to safety margins."""
_WITHOUT_BUDGETS = 8
"""By how much the limits are cut for a run that ignores them."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """The market instants of one run."""

    start: datetime
    """The replay starts here."""
    open: datetime
    """First expected minute."""
    close: datetime
    """Open end of the expected minutes."""
    end: datetime
    """The replay ends here, once the work is drained."""
    whole_session: bool
    """False for a part of a session, which has no end of day."""

    @property
    def session(self) -> Window:
        """The bars that are expected, and judged."""
        return Window(self.open, self.close)


def timeline(options: DemoOptions, session_open: datetime, session_close: datetime) -> Timeline:
    """From the session's hours and ``--from --to``."""
    start = _at(session_open, options.start) if options.start else None
    end = _at(session_open, options.end) if options.end else None
    opened = max(session_open, start) if start else session_open
    closed = min(session_close, end) if end else session_close
    whole = opened == session_open and closed == session_close
    tail = AFTER_CLOSE if whole else timedelta(minutes=8)
    return Timeline((start or opened) - BEFORE_OPEN, opened, closed, closed + tail, whole)


def _at(day: datetime, clock_time: Any) -> datetime:
    return datetime.combine(day.date(), clock_time, tzinfo=day.tzinfo)


def tiers(symbols: int) -> dict[str, int]:
    """How many symbols of each tier: 30, 70 and 200 of 300."""
    t0, t1 = max(1, round(symbols * 0.1)), max(1, round(symbols * 7 / 30))
    return {"T0": t0, "T1": t1, "T2": max(1, symbols - t0 - t1)}


def limits(counts: Mapping[str, int], session_minutes: float) -> dict[str, list[dict[str, Any]]]:
    """Rolling limits of the sources: twice the demand of a plain minute and of the whole day, no more.

    finnhub is asked for bars and quotes of every T0 and T1 symbol. yfinance is asked for the same when
    finnhub is away, quotes of up to 20 symbols in one call, and for the end-of-day bars of all.
    """
    bars = sum(counts[tier] * 60 / BAR_CADENCE_S[tier] for tier in (Tier.T0, Tier.T1))
    quotes = sum(counts[tier] * 60 / QUOTE_CADENCE_S[tier] for tier in (Tier.T0, Tier.T1))
    finnhub, yahoo = math.floor(2 * (bars + quotes)), math.floor(2 * (bars + quotes / 20))
    day = 86_400
    return {
        "finnhub": [
            {"units": max(finnhub, LEAST_UNITS), "seconds": 60},
            {"units": max(int(finnhub * session_minutes), 400), "seconds": day},
        ],
        "yahoo": [
            {"units": max(yahoo, LEAST_UNITS), "seconds": 60},
            {"units": max(int(yahoo * session_minutes), 400), "seconds": day},
        ],
    }


def limits_text(windows: Sequence[Mapping[str, Any]]) -> str:
    """The same limits as the setting that our side reads: ``units/seconds`` joined by commas."""
    return ",".join(f"{window['units']}/{window['seconds']}s" for window in windows)


def default_faults(times: Timeline) -> list[dict[str, Any]]:
    """Refused for 20 minutes; 5xx for a while; 5 minutes without any source of one-minute bars.

    A window that is too short for this day gets the same day in small: every fault begins and ends in it.
    """
    minutes = (times.close - times.open) / timedelta(minutes=1)
    scale = min(1.0, minutes / _FAULTS_NEED)

    def fault(
        name: str, source: str, what: str, kind: str, begins: int, lasts: int
    ) -> dict[str, Any]:
        start = times.open + timedelta(minutes=begins * scale)
        return {
            "id": name,
            "source": source,
            "capability": what,
            "kind": kind,
            "from": start.isoformat(),
            "minutes": lasts * scale,
        }

    return [
        fault("finnhub refused", "finnhub", "*", "refuse", 45, REFUSED_MINUTES),
        fault("yahoo 5xx", "yahoo", "*", "5xx", 110, ERRORS_MINUTES),
        fault("no 1m bars from finnhub", "finnhub", "bars_1m", "5xx", 180, OUTAGE_MINUTES),
        fault("no 1m bars from yahoo", "yahoo", "bars_1m", "5xx", 180, OUTAGE_MINUTES),
    ]


def sim_config(options: DemoOptions, log_file: str) -> dict[str, Any]:
    """The simulator's configuration; limits, faults and clock follow over its admin port."""
    counts = tiers(options.symbols)
    market: dict[str, Any] = {
        "kind": "seeded",
        "seed": options.seed,
        "symbols": counts,
        "exchanges": {"XNYS": 1.0},
    }
    if options.bars:
        market = {"kind": "csv", "dir": str(options.bars), "calendar": options.calendar}
    market["session"] = options.session.isoformat()
    demand = dict.fromkeys(("T0", "T1", "T2"), 0) | counts
    windows: dict[str, list[dict[str, Any]]] = {"yahoo": [], "finnhub": []}
    if not options.bars:
        windows = limits(demand, 460)
    if not options.budgets:
        windows = {
            name: [
                {**window, "units": max(1, window["units"] // _WITHOUT_BUDGETS)}
                for window in rolling
            ]
            for name, rolling in windows.items()
        }
    return {
        "log_file": log_file,
        "market": market,
        "sources": {
            "yahoo": {"limits": windows["yahoo"]},
            "finnhub": {"limits": windows["finnhub"], "premium": True},
            # No policy of the demo names these; should anything ask them, it asks the simulator.
            **{name: {"limits": []} for name in ("alphavantage", "alpaca", "polygon", "binance")},
        },
    }


def environment(
    options: DemoOptions,
    endpoints: Mapping[str, Any],
    windows: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, str]:
    """Settings of the processes: who is asked, where, within what."""
    env = pointed_at(endpoints) | {
        # In the default policies, but no part of this story.
        "ALPHA_VANTAGE_API_KEY": "",
        "CADENCE_T0__bars_1m": str(BAR_CADENCE_S[Tier.T0]),
        "CADENCE_T1__bars_1m": str(BAR_CADENCE_S[Tier.T1]),
        "CADENCE_T0__quotes_l1": str(QUOTE_CADENCE_S[Tier.T0]),
        "CADENCE_T1__quotes_l1": str(QUOTE_CADENCE_S[Tier.T1]),
        "LOG_LEVEL": "INFO",
    }
    if windows["finnhub"]:
        env["FINNHUB_LIMITS"] = limits_text(windows["finnhub"])
        env["YFINANCE_LIMITS"] = limits_text(windows["yahoo"])
    if not options.budgets:
        env["FINNHUB_LIMITS"] = env["YFINANCE_LIMITS"] = "1000000/60s"
    if options.bars:
        env["POLICY_BARS_1M"] = "yfinance,finnhub"
        env["FINNHUB_LIMITS"] = env["YFINANCE_LIMITS"] = "6000/60s"
    return env
