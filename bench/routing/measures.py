"""The measures of the routing bench, in the order in which they run."""

from collections.abc import Callable

from bench.routing import failover
from bench.run import Run

MEASURES: dict[str, Callable[[Run], None]] = {
    "failover": failover.measure,
}
