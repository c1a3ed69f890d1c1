"""The fleet's retry budget: retries stay at 20 % of the calls, whatever fails.

Credit is earned by calls and kept in Redis, where it fades with a half-life of 30 real seconds; a
trickle lets a quiet fleet retry at all. This process holds a few credits, so that most answers cost
nothing. While Redis is away a process lives on those and on a fifth of its own calls.
"""

import threading
from collections.abc import Callable

SHARE = 0.20
FLOOR = 10
"""Credit that a quiet fleet grows back to, one in a second."""
_HELD = 4


class RetryBudget:
    """This process's part; thread-safe.

    Args:
        ask: Makes an exchange with the fleet now, asking for so many credits; ends in ``exchanged``.
    """

    def __init__(self, ask: Callable[[int], None]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._calls = 0
        self._held = 0.0

    def called(self) -> None:
        """A call was made."""
        with self._lock:
            self._calls += 1

    def take_calls(self) -> int:
        """Calls since the last exchange, to be reported with the next."""
        with self._lock:
            calls, self._calls = self._calls, 0
            return calls

    def exchanged(self, calls: int, granted: int | None) -> None:
        """An exchange brought credits, or could not be made: then a fifth of the calls is ours."""
        with self._lock:
            if granted is None:
                self._held = min(float(FLOOR), self._held + SHARE * calls)
            else:
                self._held += granted

    def spend(self) -> bool:
        """Whether one more retry may be made; it is spent then."""
        if self._spend_held():
            return True
        self._ask(_HELD)
        return self._spend_held()

    def _spend_held(self) -> bool:
        with self._lock:
            if self._held < 1:
                return False
            self._held -= 1
            return True
