"""The measures of the storage bench, in the order in which they run."""

from collections.abc import Callable

from bench.run import Run
from bench.storage import new_rows

MEASURES: dict[str, Callable[[Run], None]] = {
    "new_rows": new_rows.measure,
}
