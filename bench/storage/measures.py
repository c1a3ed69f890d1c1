"""The measures of the storage bench, in the order in which they run."""

from collections.abc import Callable

from bench.run import Run
from bench.storage import (
    eight_writers,
    late_rows,
    latest,
    live,
    new_rows,
    probes,
    quotes,
    reads,
    sizes,
    stalled,
    transfer,
)

MEASURES: dict[str, Callable[[Run], None]] = {
    "new_rows": new_rows.measure,
    "late_rows": late_rows.measure,
    "live": live.measure,
    "quotes": quotes.measure,
    "reads": reads.measure,
    "latest": latest.measure,
    "sizes": sizes.measure,
    "probes": probes.measure,
    "writers": eight_writers.measure,
    "stalled": stalled.measure,
    "transfer": transfer.measure,
}
