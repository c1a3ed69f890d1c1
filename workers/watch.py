"""Ends a process none of whose threads gets a turn any more.

Native code that never lets go of the interpreter, a regular expression without end for one, stops every
thread: the one that vouches for jobs, the one that would notice, SIGTERM's handler. Whoever supervises
the process sees it alive. faulthandler's timer runs in C and needs nobody's leave.
"""

import faulthandler
import threading
from typing import Final

FROZEN_S: Final = 60.0
"""Real seconds after which the process ends: its jobs count as lost since long."""
WOUND_EVERY_S: Final = 5.0


class Watch:
    """The timer of this process, which has one: wound now and then, it never runs out."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._over = False

    def wind(self) -> None:
        """Begin anew; when it runs out, it prints where every thread stands and exits with 1."""
        with self._guard:
            if not self._over:
                faulthandler.dump_traceback_later(FROZEN_S, exit=True)

    def stop(self) -> None:
        """End it for good, whoever is about to wind it."""
        with self._guard:
            self._over = True
            faulthandler.cancel_dump_traceback_later()
