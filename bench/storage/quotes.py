"""Quotes of 10,000 symbols every five seconds, in the batches of a sweep; a third do not change."""

import random
from dataclasses import replace
from datetime import datetime, timedelta

from bench.report import at_most, exactly
from bench.run import Run
from bench.storage.market import SOURCE, first_open
from core.bars import Quote
from db.quotes import write_quotes

SYMBOLS = 10_000
CYCLE_S = 5.0
_BATCH = 500


def measure(run: Run) -> None:
    """Seconds of one writer for a cycle, and how many rows it adds."""
    with run.place() as place:
        chooser = random.Random(5)
        opened = first_open(run.clock)
        known = [_quote(chooser, opened) for _ in range(SYMBOLS)]
        cycles = run.size(12, 4)
        watch = run.stopwatch()
        added = expected = 0
        for cycle in range(cycles + 1):
            now = opened + cycle * timedelta(seconds=CYCLE_S)
            changed = [cycle == 0 or chooser.random() < 2 / 3 for _ in known]
            known = [
                replace(quote, ts=now, bid=(quote.bid or 0) + 0.01) if moved else quote
                for quote, moved in zip(known, changed, strict=True)
            ]
            batches = [
                [(symbol_id, known[symbol_id - 1]) for symbol_id in range(first, first + _BATCH)]
                for first in range(1, SYMBOLS + 1, _BATCH)
            ]
            stored = watch.time(
                "cycle" if cycle else "first",
                lambda batches=batches: sum(
                    write_quotes(place.db, SOURCE, batch) for batch in batches
                ),
            )
            expected += sum(changed)
            added += stored
        what = f"{SYMBOLS:,} quotes, two thirds new, one writer"
        run.report.number("quotes_cycle_s", what, watch.median("cycle"), "s", at_most(CYCLE_S / 2))
        run.report.number("quotes_per_s", "the same", SYMBOLS / watch.median("cycle"), "quotes/s")
        run.report.number(
            "quotes_miscounted", "rows too many or too few", abs(added - expected), "", exactly(0)
        )


def _quote(chooser: random.Random, at: datetime) -> Quote:
    bid = chooser.randint(1_000, 40_000) / 100
    return Quote(at, bid, bid + 0.02, 300.0, 200.0, bid + 0.01, 100.0)
