"""The functions that a queue job may call, by the names that stand on the wire.

A job carries one JSON object. The process's context comes from the worker, never from a global.
"""

from collections.abc import Callable, Mapping

from workers.backfill import backfill
from workers.collect import collect
from workers.context import Context
from workers.queues import BACKFILL_FUNCTION, COLLECT_FUNCTION, BackfillJob, CollectJob

Functions = Mapping[str, Callable[[object], object]]


def functions(context: Context) -> Functions:
    """Wire name -> function of one payload.

    Each raises BadJobError for a payload of another version or an unknown kind.
    """
    return {
        COLLECT_FUNCTION: lambda payload: collect(context, CollectJob.from_wire(payload)),
        BACKFILL_FUNCTION: lambda payload: backfill(context, BackfillJob.from_wire(payload)),
    }
