"""Does the work: job functions, the queue worker, collect, backfill and intake."""
