"""A writer as a process of its own: ``python -m bench.storage.writer_process``, its task on stdin.

It writes batch after batch through ``db.candles.write`` and logs label and as_of of each commit. A
restarted one skips what is logged. An error that ``write`` surfaces is complained about on stderr
and the batch is written again, as a worker does.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.storage import pages, story
from bench.storage.processes import read_log
from core.clock import SystemClock
from core.errors import StorageError
from db.batches import Batch
from db.candles import write
from db.errors import sqlstate
from db.pool import Database

COMPLAINT = "write failed"

WORKLOADS: dict[str, Callable[[Mapping[str, Any]], Iterator[tuple[str, Batch]]]] = {
    "story": story.batches,
    "pages": pages.batches,
    "steady": pages.steady,
}


def main() -> None:
    """Write until the task is done or the end file is there."""
    task = json.load(sys.stdin)
    log, end = Path(task["log"]), Path(task["end"])
    done = {label for label, _ in read_log(log)}
    clock = SystemClock()
    with (
        closing(Database(task["url"], clock, max_size=2, application=task["name"])) as db,
        log.open("a", buffering=1) as journal,
    ):
        # The last line before a kill may be torn; it ends here.
        journal.write("\n")
        for label, batch in WORKLOADS[task["workload"]](task):
            if end.exists():
                break
            if label in done:
                continue
            while True:
                try:
                    as_of = write(db, batch).as_of
                    break
                except StorageError as error:
                    print(COMPLAINT, sqlstate(error), error, file=sys.stderr, flush=True)
                    clock.sleep(0.05)
            journal.write(f"{label} {as_of.isoformat()}\n")


if __name__ == "__main__":
    main()
