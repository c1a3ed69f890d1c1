"""The functions that a queue job may call, by the names that stand on the wire.

A job carries one JSON object. The process's context comes from the worker, never from a global.
"""

from collections.abc import Callable, Mapping
from functools import partial

from workers.backfill import backfill
from workers.collect import collect
from workers.context import Context
from workers.queues import BACKFILL_FUNCTION, COLLECT_FUNCTION, BackfillJob, CollectJob
from workers.suspects import family

FUNCTIONS: Mapping[str, Callable[[Context, object], object]] = {
    COLLECT_FUNCTION: lambda context, payload: collect(context, CollectJob.from_wire(payload)),
    BACKFILL_FUNCTION: lambda context, payload: backfill(context, BackfillJob.from_wire(payload)),
}
"""Wire name -> what it does with one payload.

Each raises BadJobError for a payload of another version or an unknown kind.
"""


def functions(context: Context) -> dict[str, Callable[[object], object]]:
    """The same for one process."""
    return {name: partial(function, context) for name, function in FUNCTIONS.items()}


def on_death(context: Context) -> dict[str, Callable[[object, str], object]]:
    """What to do about a job whose worker died, told what it carried and a word for this death.

    Backfill rows note it themselves.
    """

    def collecting(payload: object, word: str) -> None:
        job = CollectJob.from_wire(payload)
        context.suspects.died(family(job), job.symbols, word)

    return {COLLECT_FUNCTION: collecting}
