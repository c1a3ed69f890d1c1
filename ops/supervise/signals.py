"""Ctrl-C and its kin as a wish to stop, so that stopping is never interrupted by a second one."""

import os
import select
import signal
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """Turns SIGINT, SIGTERM and SIGHUP into ``requested`` for as long as the block lasts.

    Use it around the whole life of the children, the stopping included: a second Ctrl-C then only
    counts. For the main thread only, as Python allows signal handlers nowhere else.
    """

    def __init__(self) -> None:
        self.received: list[signal.Signals] = []
        """The signals so far, oldest first."""
        self._previous: dict[signal.Signals, Any] = {}
        self._pipe: tuple[int, int] | None = None

    @property
    def requested(self) -> bool:
        """Whether somebody asked us to stop."""
        return bool(self.received)

    def wait(self, seconds: float) -> bool:
        """Wait real seconds, less when a signal arrives; returns ``requested``."""
        if not self.received and self._pipe is not None:
            # A pipe, not a lock: a handler that takes a lock can meet itself.
            select.select([self._pipe[0]], [], [], max(0.0, seconds))
        return self.requested

    def __enter__(self) -> Self:
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        for signum in _SIGNALS:
            self._previous[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous.clear()
        if self._pipe is not None:
            for end in self._pipe:
                os.close(end)
            self._pipe = None

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        first = not self.received
        self.received.append(signal.Signals(signum))
        if first and self._pipe is not None:
            os.write(self._pipe[1], b"!")
