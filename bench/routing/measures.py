"""The measures of the routing bench, in the order in which they run."""

from collections.abc import Callable

from bench.routing import budgets, cost, failover, flapping, outage
from bench.run import Run

MEASURES: dict[str, Callable[[Run], None]] = {
    "failover": failover.measure,
    "flapping": flapping.measure,
    "budgets": budgets.measure,
    "outage": outage.measure,
    "cost": cost.measure,
}
