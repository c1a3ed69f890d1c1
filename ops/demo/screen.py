"""What a person sees while the market runs: a live panel on a terminal, plain lines elsewhere."""

import sys
from collections import deque
from datetime import datetime
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ops.demo.scenario import Timeline
from ops.demo.watch import Snapshot

_EVENTS = 10
_PLAIN_STEPS = 12
_WIDEST = 88


class Screen:
    """Shows progress and events. On a pipe: one line for each event and about twelve for progress."""

    def __init__(self, title: str, timeline: Timeline, console: Console | None = None) -> None:
        self._title = title
        self._timeline = timeline
        self._console = console or Console(file=sys.stdout)
        self._events: deque[str] = deque(maxlen=_EVENTS)
        self._live = (
            Live(console=self._console, refresh_per_second=4, transient=False)
            if self._console.is_terminal
            else None
        )
        self._printed_step = -1

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def event(self, market: datetime, words: str) -> None:
        """Something happened."""
        line = f"{market:%H:%M} {words}"
        self._events.append(line)
        if not self._live:
            print(f"  {line}", flush=True)

    def show(self, market: datetime, speed: float, seen: Snapshot) -> None:
        """The state of things."""
        span = (self._timeline.end - self._timeline.start).total_seconds()
        done = min(1.0, max(0.0, (market - self._timeline.start).total_seconds() / span))
        if self._live:
            self._live.update(self._panel(market, speed, seen, done))
            return
        step = int(done * _PLAIN_STEPS)
        if step > self._printed_step:
            self._printed_step = step
            self._print(market, speed, seen, done)

    def last(self, market: datetime, speed: float, seen: Snapshot) -> None:
        """The state in which the run ends."""
        if self._live:
            self._live.update(self._panel(market, speed, seen, 1.0))
        else:
            self._print(market, speed, seen, 1.0)

    def _print(self, market: datetime, speed: float, seen: Snapshot, done: float) -> None:
        print(
            f"{market:%H:%M} UTC  {done:4.0%}  {speed:.0f}x  bars {seen.bars:,}  revised {seen.revised:,}  "
            f"quotes {seen.quotes:,}  found missing {seen.found_missing:,}, {seen.explained:,} explained",
            flush=True,
        )

    def _panel(self, market: datetime, speed: float, seen: Snapshot, done: float) -> Panel:
        width = min(self._console.width, _WIDEST)
        numbers = Table.grid(padding=(0, 2))
        for _ in range(4):
            numbers.add_column(justify="left", no_wrap=True)
        numbers.add_row(
            f"[bold]{seen.bars:,}[/] bars", f"[bold]{seen.revised:,}[/] revised", f"[bold]{seen.quotes:,}[/] quotes",
            f"[bold]{seen.requests:,}[/] requests",
        )  # fmt: skip
        numbers.add_row(
            f"[bold]{seen.found_missing:,}[/] found missing", f"[bold]{seen.explained:,}[/] explained",
            f"[bold]{seen.backfill_open:,}[/] backfilling", f"[bold]{seen.violations:,}[/] over limit",
        )  # fmt: skip
        # A grid ends its line, a bar alone does not: what follows would go on beside it.
        bar = Table.grid()
        bar.add_row(ProgressBar(total=1.0, completed=done, width=width - 6))
        phase = "before the open"
        if market >= self._timeline.close:
            phase = "after the close"
        elif market >= self._timeline.open:
            phase = "in session"
        head = Text.assemble(
            (f"{market:%Y-%m-%d %H:%M:%S} UTC", "bold"), f"  {phase}  {speed:.0f}x"
        )
        faults = (
            Text("faults now: " + ", ".join(seen.active_faults), style="red")
            if seen.active_faults
            else Text("all sources up", style="green")
        )
        events = Text("\n".join(self._events), style="dim")
        return Panel(
            Group(
                head,
                bar,
                numbers,
                faults,
                Text(""),
                events,
            ),
            title=self._title,
            width=width,
        )
