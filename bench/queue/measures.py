"""The measures of the queue bench, in the order in which they run."""

from collections.abc import Callable

from bench.queue import flushall, intake, throughput
from bench.run import Run

MEASURES: dict[str, Callable[[Run], None]] = {
    "throughput": throughput.measure,
    "intake": intake.measure,
    "flushall": flushall.measure,
}
