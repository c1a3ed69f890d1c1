"""Bars to measure with: made before any clock runs, realistic in shape and size.

Prices walk at random in cents, volumes are log-normal whole numbers, each bar has a vwap and a trade
count. All days lie a month back, so that nothing depends on the date of the run.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from core.bars import Bar
from core.clock import Clock
from core.windows import Window, floor_to
from db.candles import Answer, Payload

SOURCE = "yfinance"
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
SETTLE = timedelta(seconds=60)
"""How long after its end the source may still change a bar, as design assumes it of yfinance."""


def first_open(clock: Clock) -> datetime:
    """14:30 UTC of a Monday that is five to six weeks ago."""
    midnight = floor_to(clock.now(), DAY) - 35 * DAY
    return midnight - midnight.weekday() * DAY + timedelta(hours=14, minutes=30)


def walk(chooser: random.Random, start: datetime, minutes: int) -> list[Bar]:
    """Consecutive one-minute bars of one symbol."""
    bars: list[Bar] = []
    cents = chooser.randint(2_000, 40_000)
    for minute in range(minutes):
        opened = cents
        cents = max(cents + chooser.randint(-12, 12), 100)
        high = max(opened, cents) + chooser.randint(0, 8)
        low = min(opened, cents) - chooser.randint(0, 8)
        bars.append(
            Bar(
                start + minute * MINUTE,
                opened / 100,
                high / 100,
                low / 100,
                cents / 100,
                float(int(chooser.lognormvariate(7, 1.2))),
                round((opened + high + low + cents) / 400, 4),
                int(chooser.lognormvariate(4, 1)),
            )
        )
    return bars


def page(
    symbol_id: int,
    bars: Sequence[Bar],
    *,
    asked_at: datetime,
    lacks_last: bool = False,
    settle: timedelta = SETTLE,
) -> Answer:
    """An answer over the bars' own window; ``lacks_last``: one expected minute more, without a bar."""
    end = bars[-1].ts + MINUTE
    lacking = (Window(end, end + MINUTE),) if lacks_last else ()
    window = Window(bars[0].ts, end + MINUTE if lacks_last else end)
    return Answer(symbol_id, window, asked_at, bars, asked_at - settle, lacking)


def asked_again(answer: Answer, later: timedelta, bars: Sequence[Bar] | None = None) -> Answer:
    """The same window asked for later; other bars where they are given."""
    return replace(
        answer,
        asked_at=answer.asked_at + later,
        settled_until=answer.settled_until + later,
        bars=answer.bars if bars is None else bars,
    )


def restated(bar: Bar) -> Bar:
    """The bar after a late trade."""
    return replace(bar, high=bar.high + 0.01, volume=(bar.volume or 0) + 100)


def reply(answer: Answer) -> Payload:
    """A raw reply such as a chart's endpoint sends it for that window."""
    columns = {
        name: [getattr(bar, name) for bar in answer.bars]
        for name in ("open", "high", "low", "close", "volume")
    }
    times = [int(bar.ts.timestamp()) for bar in answer.bars]
    body = {"chart": {"result": [{"timestamp": times, "indicators": {"quote": [columns]}}]}}
    symbol = f"S{answer.symbol_id}"
    return Payload(
        SOURCE, f"chart/{symbol}", [symbol], answer.asked_at, 200, json.dumps(body).encode()
    )
