"""A worker process that dies when it has bars of FATAL_SYMBOL_ID in hand; jobs of the dead are found soon.

REST_S in the environment is how long its provider connections may rest.
"""

import os
import signal
import sys
from typing import Any

from providers import wire
from workers import backfill, exchange, recovery, suspects, worker
from workers.__main__ import main

_assess: Any = exchange.assess


def _fatal(symbol_id: int, *words: Any, **named: Any) -> Any:
    if symbol_id == int(os.environ["FATAL_SYMBOL_ID"]):
        os.kill(os.getpid(), signal.SIGKILL)
    return _assess(symbol_id, *words, **named)


if __name__ == "__main__":
    exchange.assess = _fatal
    recovery.LEASE_S = worker.LEASE_S = backfill.LEASE_S = 2.0
    suspects.SAME_S = 1
    worker._HOUSEKEEPING_S = 0.5
    wire.REST_S = float(os.environ.get("REST_S", "90"))
    sys.exit(main(sys.argv[1:]))
