"""Puts the findings together: the counts that the demo and `ops verify` print."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sim.check import bars as comparing
from sim.check import invariants
from sim.check.failover import failover_seconds
from sim.check.reads import ReadFindings, compare_with_rows, repeat
from sim.check.served import Served, read_served
from sim.check.stack import StackFile
from sim.check.stored import Stored, connect, read_stored
from sim.check.truth import Admin, read_truth

MUST_BE_ZERO = (
    "missing",
    "wrong",
    "duplicate",
    "lookahead",
    "false_confirmed_empty",
    "limit_violations",
    "restated_missed",
)

_GRACE_S = 600.0
"""Market seconds after a bar's close in which a running system need not have it yet: a settling time,
the slowest cadence and one retry fit in."""


@dataclass(frozen=True, slots=True)
class Range:
    """The bars to judge: those that start in ``[start, end)``; None: the simulator's session."""

    start: datetime | None
    end: datetime | None


def verify(stack: StackFile, span: Range, probes: Path | None) -> dict[str, Any]:
    """Everything that can be checked; without a simulator the invariants only, and it says so."""
    if stack.sim_admin is None:
        with connect(stack.database_url) as conn:
            return invariants.check(conn)
    admin = Admin(stack.sim_admin)
    admin.post("/admin/flush")
    health = admin.get("/admin/health")
    start = span.start or datetime.fromtimestamp(health["open"], UTC)
    end = span.end or datetime.fromtimestamp(health["close"], UTC)
    whole = start.timestamp() <= health["open"] and end.timestamp() >= health["close"]
    due = max(start.timestamp(), min(end.timestamp(), health["market"] - _GRACE_S))
    truth = {
        "1m": read_truth(admin, "1m", start.timestamp(), due),
        "1d": read_truth(admin, "1d", start.timestamp(), end.timestamp()) if whole else {},
    }
    sources = admin.get("/admin/endpoints")["sources"]
    providers = {name: source["provider"] for name, source in sources.items()}
    recorded = probes if probes is not None and probes.exists() else None
    with ThreadPoolExecutor(1) as aside, connect(stack.database_url) as conn:
        repeating = aside.submit(repeat, stack.database_url, recorded) if recorded else None
        served = read_served(admin, providers, truth)
        stored = read_stored(conn, start, datetime.fromtimestamp(due, UTC))
        findings = comparing.compare(stored, served, truth, health["market"])
        held = invariants.check(conn)
        reads = repeating.result() if repeating is not None else ReadFindings()
    compare_with_rows(reads, stored, start.timestamp(), due)
    return _report(findings, served, reads, stored, held, admin)


def _report(
    findings: comparing.Findings,
    served: Served,
    reads: ReadFindings,
    stored: Stored,
    held: dict[str, Any],
    admin: Admin,
) -> dict[str, Any]:
    result: dict[str, Any] = asdict(findings)
    examples = (
        result.pop("examples") + reads.examples + served.violation_examples + held["examples"]
    )
    result["lookahead"] += reads.changed + reads.beyond + reads.differ_from_rows
    result["duplicate"] += held["duplicate_quotes"]
    result["as_of_reads"] = reads.reads
    result["as_of_rows"] = reads.rows
    result["as_of_changed"] = reads.changed
    result["requests"] = served.requests
    result["limit_violations"] = served.violations
    result["quotes"] = len(stored.quotes)
    result["quotes_never_served"] = sum(1 for quote in stored.quotes if quote not in served.quotes)
    result["wrong"] += result["quotes_never_served"]
    result["cursor_ahead"] = held["cursor_ahead"]
    result["failover_seconds"] = failover_seconds(admin, served)
    result["ok"] = all(result[name] == 0 for name in MUST_BE_ZERO) and held["ok"]
    result["examples"] = examples[:50]
    return result
