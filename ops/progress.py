"""Progress of long work on stderr: one line that rewrites itself, or a line now and then."""

import sys

from core.clock import Clock

_EVERY_S = 0.5
_EVERY_S_IN_A_LOG = 10.0


class Progress:
    """Says how far work is and how long the rest takes.

    Args:
        what: Begins the line.
        clock: Real time comes from its monotonic side.
    """

    def __init__(self, what: str, clock: Clock) -> None:
        self._what = what
        self._clock = clock
        self._start = clock.monotonic()
        self._rewrites = sys.stderr.isatty()
        self._every_s = _EVERY_S if self._rewrites else _EVERY_S_IN_A_LOG
        self._next = self._start + self._every_s

    def tell(self, fraction: float, rows: int) -> None:
        """Called as often as one likes; prints seldom.

        Args:
            fraction: Done, in [0, 1]; the ETA follows from it.
            rows: Done.
        """
        now = self._clock.monotonic()
        if now < self._next:
            return
        self._next = now + self._every_s
        spent = now - self._start
        rest = f", {spent / fraction - spent:.0f} s left" if fraction > 0 else ""
        line = f"{self._what}: {fraction:.0%}, {rows:,} rows, {rows / spent:,.0f} rows/s{rest}"
        print(f"\r{line:<78}" if self._rewrites else line, end="" if self._rewrites else "\n",
              file=sys.stderr, flush=True)  # fmt: skip

    def done(self, line: str) -> None:
        """Replace the line by a last one."""
        spent = self._clock.monotonic() - self._start
        end = f"{line} in {spent:.1f} s"
        print(f"\r{end:<78}" if self._rewrites else end, file=sys.stderr, flush=True)
