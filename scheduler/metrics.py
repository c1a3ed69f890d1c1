"""Metrics that only the scheduler has; the rest of its metrics are in the catalogue in core."""

from core.metrics import Metric

LEADER = Metric(
    "scheduler_leader",
    "gauge",
    (),
    "1 while this process leads, else 0; the sum over all must be 1.",
)
SLOTS_PUSHED = Metric("slots_pushed_total", "counter", ("type", "tier"), "Cadence slots pushed.")
SLOT_LATENESS = Metric(
    "slot_lateness_ms",
    "histogram",
    (),
    "Real time from a live slot's due instant until its jobs were in the queue, ms.",
    (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000),
)
"""A rising lateness means that this process, PostgreSQL or Redis is short of time."""
GAP_PASS_SECONDS = Metric(
    "gap_pass_seconds",
    "histogram",
    ("reach",),
    "Real duration of one gap pass, s.",
    (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
WRITERS_TERMINATED = Metric(
    "writers_terminated_total",
    "counter",
    (),
    "Write transactions ended because they stood too long.",
)
