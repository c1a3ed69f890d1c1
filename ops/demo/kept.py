"""What a person can type while the servers of a finished demo stay up."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from core.windows import Window
from db import counts
from db.counts import RevisedBar
from db.pool import Database
from ops.demo.scenario import Timeline
from ops.shell import line, psql_word

COMMAND = "ops demo --keep"
"""What the stack is called once its scheduler and workers have ended."""
_MINUTE = timedelta(minutes=1)
_FIRST = "AAPL"
"""Shown if it was revised, since everybody knows it."""


def example(db: Database, window: Window) -> RevisedBar | None:
    """A bar whose value changed, for the lines below."""
    with db.transaction() as conn:
        return counts.revised_bar(conn, window, _FIRST)


def lines(home: Path, times: Timeline, bar: RevisedBar | None) -> Iterator[str]:
    """What stays up, what has ended, and commands that work as they stand."""
    yield "servers stay up with the day's data until Ctrl-C: PostgreSQL, Valkey and the simulated market."
    yield "Scheduler and workers have ended: nothing more is collected, and a backfill finds nobody to do it."
    yield "In another shell of this folder:"
    yield f"  {line(home, 'status')}"
    part = "" if times.whole_session else f" --from {_stamp(times.open)} --to {_stamp(times.close)}"
    yield f"  {line(home, f'verify{part}')}"
    if bar is None:
        return
    start, end, then = (_stamp(at) for at in (bar.ts, bar.ts + _MINUTE, bar.as_of))
    read = f"bars {bar.symbol} --start {start} --end {end}"
    yield f"  {line(home, read)}"
    yield f"  {line(home, f'{read} --as-of {then}')}"
    call = f"candles_as_of(ARRAY['{bar.symbol}'], '1m', '{start}', '{end}', '{then}')"
    url = line(home, "url --show-password")
    # Printed for a person to type, never executed here.
    yield f"""  {psql_word()} "$({url})" -c "SELECT close, volume, as_of FROM {call}\""""  # noqa: S608
    yield (
        f"The first shows the bar as it is: close {bar.now[0]:g}, volume {bar.now[1] or 0:,.0f}; the others as it "
        f"was known then: {bar.then[0]:g} and {bar.then[1] or 0:,.0f}."
    )


def _stamp(instant: datetime) -> str:
    return f"{instant:%Y-%m-%dT%H:%M:%SZ}"
