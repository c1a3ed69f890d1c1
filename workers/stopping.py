"""The wish to stop, shared by everything in a worker process."""

from core.clock import Clock
from core.errors import GaplessError

_NOTICE_S = 0.1


class HandedBackError(GaplessError):
    """The process stops before the job is done; it goes back to its queue as it was."""

    code = "handed_back"


class Stop:
    """Set once by the first SIGTERM or Ctrl-C; a second one changes nothing.

    Work in hand may be finished for a while after the request; new work is not begun. There is no
    lock in here: a signal handler that takes one can meet itself.
    """

    def __init__(self, clock: Clock, *, finish_s: float = 4.0, grace_s: float = 8.0) -> None:
        """Describe the grace.

        Args:
            clock: For its monotonic seconds.
            finish_s: Real seconds after the request in which a batch may still ask providers.
            grace_s: Real seconds after the request when everything has to be over.
        """
        self._clock = clock
        self._finish_s = finish_s
        self._grace_s = grace_s
        self._since: float | None = None

    def request(self) -> None:
        """Ask everything to stop; safe in a signal handler and safe to repeat."""
        if self._since is None:
            self._since = self._clock.monotonic()

    @property
    def requested(self) -> bool:
        """Whether to begin nothing new."""
        return self._since is not None

    @property
    def finish_now(self) -> bool:
        """Whether a batch in hand has to end with what it has."""
        return self._since is not None and self._clock.monotonic() >= self._since + self._finish_s

    def remaining_s(self) -> float:
        """Real seconds of the grace that are left; infinite while nobody asked to stop."""
        if self._since is None:
            return float("inf")
        return max(0.0, self._since + self._grace_s - self._clock.monotonic())

    def wait(self, seconds: float) -> bool:
        """Wait real seconds, less when the request comes; returns whether it came."""
        end = self._clock.monotonic() + seconds
        while not self.requested and (left := end - self._clock.monotonic()) > 0:
            self._clock.sleep(min(_NOTICE_S, left))
        return self.requested
