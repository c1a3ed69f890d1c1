"""Renews a lease from a thread of its own for as long as a block of work lasts."""

import logging
import threading
from collections.abc import Callable
from types import TracebackType

from core.errors import StorageError

log = logging.getLogger(__name__)


class Renewal:
    """One lease; the work that it covers is done twice at worst, which changes nothing."""

    def __init__(self, every_s: float, renew: Callable[[], object], what: str) -> None:
        """Prepare.

        Args:
            every_s: Real seconds between two renewals; the first comes after as many.
            renew: Extends the lease; what it raises of the database is logged, then it is called again.
            what: The lease in a word, for the log.
        """
        self._every_s = every_s
        self._renew = renew
        self._what = what
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=what, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            try:
                self._renew()
            except StorageError as error:
                log.warning("%s not renewed: %s", self._what, error)
