"""What one process knows of a source before the fleet does: doubt after the first sign of trouble.

A fleet needs many calls to be sure. A process needs only a few that fail in a row: it lets no more
than these go, and then opens the breaker for everyone. So an outage costs each process the calls
that were on their way and a handful after it.
"""

import math
from itertools import count

_LEAST_RUN, _LONGEST_RUN = 4, 20
_CHANCE = 1e-6
_PRIOR = 0.02
_WEIGHT = 0.02
_FORGET_S = 60.0
_OVERDUE_FACTOR = 3.0
_OVERDUE_LEAST_S = 0.1
_OVERDUE_UNKNOWN = 1 / 3


def run_allowed(error_rate: float) -> int:
    """Failures in a row that chance still explains at this error rate: 4 at 2 %, 12 at 30 %."""
    rate = min(max(error_rate, 1e-9), 0.99)
    return min(_LONGEST_RUN, max(_LEAST_RUN, math.ceil(math.log(_CHANCE) / math.log(rate))))


class Guard:
    """Calls of one process to one source and capability. Not thread-safe: the caller locks.

    All times are monotonic seconds.
    """

    def __init__(self) -> None:
        self._flying: dict[int, float] = {}
        self._tickets = count(1)
        self._error_rate = _PRIOR
        self._run = 0
        self._last_bad = self._last_good = -math.inf
        self._doubt: float | None = None

    @property
    def run(self) -> int:
        """Failures since the last good call."""
        return self._run

    def refusal(self, now: float, usual_s: float | None, timeout_s: float) -> str | None:
        """Why another call should wait for those that are out; None when it may go.

        Args:
            now: The present.
            usual_s: Usual latency, None while unknown.
            timeout_s: The source's time limit; a call that never reports is forgotten after twice it.
        """
        if self._doubt is None and not self._flying:
            return None
        self._forget(now, 2 * timeout_s + 1)
        if self._doubt is None:
            overdue = (
                _OVERDUE_UNKNOWN * timeout_s
                if usual_s is None
                else max(_OVERDUE_LEAST_S, _OVERDUE_FACTOR * usual_s)
            )
            oldest = next(iter(self._flying.values()), now)
            if now - oldest <= overdue or self._last_good >= oldest:
                return None
            # What went wrong began when the overdue call left, not when that was noticed.
            self._doubt = oldest
        out = 0
        for started in reversed(self._flying.values()):
            if started < self._doubt:
                break
            out += 1
        if out == 0 or self._run + out < run_allowed(self._error_rate):
            # With nothing out there is nothing to wait for: one call goes and tells.
            return None
        if self._run:
            return f"{self._run} failures in a row here, {out} calls still out"
        return f"answers are overdue here, {out} calls still out"

    def begin(self, now: float) -> int:
        """A call leaves; returns its ticket."""
        ticket = next(self._tickets)
        self._flying[ticket] = now
        return ticket

    def drop(self, ticket: int) -> None:
        """A call ended without saying anything of the source."""
        self._flying.pop(ticket, None)

    def good(self, ticket: int, now: float) -> None:
        """A call was answered."""
        self._flying.pop(ticket, None)
        self._learn()
        self._error_rate *= 1 - _WEIGHT
        self._run, self._doubt, self._last_good = 0, None, now

    def bad(self, ticket: int, now: float) -> bool:
        """A call failed; True when these are more failures in a row than chance explains."""
        self._flying.pop(ticket, None)
        if now - self._last_bad > _FORGET_S:
            self._run = 0
        self._run, self._last_bad = self._run + 1, now
        if self._doubt is None:
            self._doubt = now
        return self._run >= run_allowed(self._error_rate)

    def reset(self) -> None:
        """The breaker moved: what was seen before it is settled."""
        self._learn()
        self._run, self._doubt = 0, None

    def _learn(self) -> None:
        if self._run:
            self._error_rate = 1 - (1 - self._error_rate) * (1 - _WEIGHT) ** self._run

    def _forget(self, now: float, longest_s: float) -> None:
        for ticket, started in list(self._flying.items()):
            if now - started <= longest_s:
                break
            del self._flying[ticket]
        if self._run and now - self._last_bad > _FORGET_S:
            self.reset()
