"""Every metric's name, kind, labels and what an operator reads from it. Never a label per symbol."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the metric catalogue."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


_MS = (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)
_GAP_S = (60, 120, 180, 300, 600, 1200, 3600, 14_400, 86_400)

PROVIDER_SELECTED = Metric(
    "provider_selected_total", "counter", ("capability", "provider"), "Calls routed to a source."
)
PROVIDER_ERRORS = Metric(
    "provider_errors_total",
    "counter",
    ("provider", "endpoint", "code"),
    "Failed calls by error code.",
)
PROVIDER_LATENCY = Metric(
    "provider_latency_ms", "histogram", ("provider", "endpoint"), "Answer time of a call, ms.", _MS
)
CIRCUIT_STATE = Metric(
    "circuit_state",
    "gauge",
    ("provider",),
    "0 open, 0.5 half-open, 1 closed; the worst capability.",
)
PROVIDER_HEALTH = Metric(
    "provider_health_score",
    "gauge",
    ("provider", "capability"),
    "Health in [0, 1]; routed above 0.55.",
)
JOBS_PROCESSED = Metric(
    "jobs_processed_total", "counter", ("type", "provider"), "Batches finished, by kind and source."
)
JOBS_STALE = Metric(
    "jobs_stale_total",
    "counter",
    ("type", "tier"),
    "Jobs dropped because their deadline had passed.",
)
SYMBOLS_LEFT_OUT = Metric(
    "symbols_left_out_total",
    "counter",
    ("type", "tier"),
    "Symbols of live batches that were not asked for, because their answers killed workers.",
)
SLOTS_MISSED = Metric(
    "slots_missed_total",
    "counter",
    ("type", "tier"),
    "Cadence slots that nobody pushed or answered in time.",
)
GAPS_FOUND = Metric(
    "gaps_found_total", "counter", ("interval",), "Missing bars found by the gap pass."
)
GAP_SECONDS = Metric(
    "gap_seconds",
    "histogram",
    ("interval", "tier"),
    "Age of a bar when it became stored or explained, from bar_end, s.",
    _GAP_S,
)
BACKFILL_ENQUEUED = Metric(
    "backfill_jobs_enqueued_total", "counter", ("tier",), "Backfill rows created."
)
BACKFILL_COMPLETED = Metric(
    "backfill_jobs_completed_total",
    "counter",
    ("tier", "status"),
    "Backfill rows that ended, by state.",
)
BACKFILL_DEPTH = Metric("backfill_queue_depth", "gauge", (), "Backfill rows waiting or running.")
BACKFILL_OLDEST = Metric(
    "backfill_oldest_age_seconds", "gauge", (), "Age of the oldest waiting backfill row, market s."
)
WRITE_BATCH = Metric(
    "write_batch_ms", "histogram", (), "One write transaction, lock to commit, ms.", _MS
)
INGESTION_LAG = Metric(
    "ingestion_lag_seconds",
    "gauge",
    ("interval",),
    "Market now minus the median cursor, in session, s.",
)
QUEUE_DEPTH = Metric("queue_depth", "gauge", ("queue",), "Jobs waiting in an RQ queue.")
DEAD_ELEMENTS = Metric(
    "rlc_dead_total", "counter", (), "Coordinator elements put on the dead list."
)
QUARANTINED = Metric(
    "quarantined_total",
    "counter",
    ("provider", "code"),
    "Rows, quotes and replies that were refused and put aside, by short reason.",
)
SECOND_OPINIONS = Metric(
    "second_opinions_total",
    "counter",
    ("provider",),
    "Calls made to hold another source's answer against this one's.",
)
SOURCES_DISAGREE = Metric(
    "sources_disagree_total",
    "counter",
    ("provider", "other"),
    "Second opinions in which the other source told other prices.",
)

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
    "Real time from a live slot's due instant until its jobs were queued, ms; rising: short of time.",
    (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000),
)
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

CATALOGUE: tuple[Metric, ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Metric)
)
