"""Puts the findings together: the counts that the demo and `ops verify` print."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from math import ceil
from pathlib import Path
from typing import Any

import psycopg

from sim.check import bars as comparing
from sim.check import invariants
from sim.check.failover import failover_seconds
from sim.check.listing import expected_since, sessions_between
from sim.check.logged import ALWAYS, Logged, read_logged
from sim.check.reads import ReadFindings, compare_with_rows, repeat
from sim.check.served import Served, read_served
from sim.check.stack import StackFile
from sim.check.stored import Stored, connect, first_known, read_stored
from sim.check.truth import Admin, read_truth
from sim.check.words import utc

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
_DAILY_GRACE_S = 7200.0
"""The same after a session's close for its daily bar: it settles, is swept for and asked for again."""
_FLYING_S = 60.0
"""Market seconds after which an answer to a running system is stored or will be asked for again."""
_SESSIONS_DAYS = 14
"""No exchange is closed for longer."""


@dataclass(frozen=True, slots=True)
class Range:
    """The bars to judge: those that start in ``[start, end)``; None: the newest session's edge."""

    start: datetime | None
    end: datetime | None


@dataclass(frozen=True, slots=True)
class _Judged:
    """What is judged and by what; market epoch seconds."""

    start: float
    end: float
    due: float
    """End of the bars that must be there by now."""
    logged: Logged
    running: bool
    notes: tuple[str, ...]


def verify(stack: StackFile, span: Range, probes: Path | None) -> dict[str, Any]:
    """Everything that can be checked; without a simulator the invariants only, and it says so."""
    if stack.sim_admin is None:
        with connect(stack.database_url) as conn:
            return invariants.check(conn)
    admin = Admin(stack.sim_admin)
    admin.post("/admin/flush")
    recorded = probes if probes is not None and probes.exists() else None
    sources = admin.get("/admin/endpoints")["sources"]
    providers = {name: source["provider"] for name, source in sources.items()}
    with ThreadPoolExecutor(1) as aside, connect(stack.database_url) as conn:
        now: float = admin.get("/admin/health")["market"]
        judged = _judged(admin, conn, span, now)
        repeating = aside.submit(repeat, stack.database_url, recorded) if recorded else None
        # What a running system stores meanwhile was served before the log is read, never the other way.
        stored = read_stored(conn, judged.start, judged.due)
        truth = {
            "1m": read_truth(admin, "1m", judged.start, judged.due),
            "1d": read_truth(admin, "1d", judged.start, judged.end),
        }
        since = judged.start - _FLYING_S if judged.running else None
        served = read_served(admin, providers, truth, since)
        case = comparing.Case(
            now=now,
            settled=now - _FLYING_S if judged.running else float("inf"),
            logged=judged.logged,
            since=expected_since(admin, stored.listed),
            running=judged.running,
            daily=_daily(admin, judged, {ts for _, ts in truth["1d"]}, now),
        )
        findings = comparing.compare(stored, served, truth, case)
        held = invariants.check(conn)
        reads = repeating.result() if repeating is not None else ReadFindings()
    compare_with_rows(reads, stored, judged.start, judged.due)
    return _report(findings, served, reads, stored, held, judged, admin)


def _judged(admin: Admin, conn: psycopg.Connection[Any], span: Range, now: float) -> _Judged:
    running = not admin.get("/admin/clock")["segments"]
    first, last = _session(admin, now) if running else _replayed(admin)
    start = first if span.start is None else span.start.timestamp()
    end = last if span.end is None else span.end.timestamp()
    logged, notes = ALWAYS, ()
    if running:
        logged = read_logged(admin)
        known = first_known(conn)
        if known is not None and known < logged.since:
            # Another simulator, perhaps of another market, answered what is older.
            start = max(start, ceil(logged.since / 60) * 60.0)
            begins = (
                f"the simulator's log begins at {utc(logged.since)}, the database at {utc(known)}"
            )
            notes = (f"{begins}: bars before the log are not judged",)
    due = max(start, min(end, (now - _GRACE_S) // 60 * 60))
    if due <= start:
        notes = (*notes, f"no bar is due yet: each may take {_GRACE_S / 60:.0f} minutes to come")
    return _Judged(start, max(start, end), due, logged, running, notes)


def _daily(admin: Admin, judged: _Judged, opens: set[int], now: float) -> frozenset[float]:
    """Opens of the sessions whose daily bars must be there: those that the range holds to their close."""
    if not judged.running:
        first, last = _replayed(admin)
        return frozenset(opens if judged.start <= first and judged.end >= last else ())
    sessions = sessions_between(admin, judged.start, judged.end)
    closes = {session["open"]: session["close"] for session in sessions}
    ends = {ts: closes.get(ts, ts + 86_400) for ts in opens}
    due = min(judged.end, now - _DAILY_GRACE_S)
    return frozenset(ts for ts, close in ends.items() if close <= due)


def _replayed(admin: Admin) -> tuple[float, float]:
    health = admin.get("/admin/health")
    return float(health["open"]), float(health["close"])


def _session(admin: Admin, now: float) -> tuple[float, float]:
    """The newest session that has been open for long enough to be judged."""
    days = _SESSIONS_DAYS * 86_400
    sessions = sessions_between(admin, now - days, now + days)
    begun = [s for s in sessions if s["open"] + _GRACE_S < now] or sessions[:1]
    return float(begun[-1]["open"]), float(begun[-1]["close"])


def _report(
    findings: comparing.Findings,
    served: Served,
    reads: ReadFindings,
    stored: Stored,
    held: dict[str, Any],
    judged: _Judged,
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
    kept = [
        quote[:3]
        for quote in stored.quotes
        if judged.logged.holds(quote[3], quote[3])
        and (not judged.running or quote[3] >= judged.start)
    ]
    result["quotes"] = len(kept)
    result["quotes_never_served"] = sum(1 for quote in kept if quote not in served.quotes)
    result["wrong"] += result["quotes_never_served"]
    result["cursor_ahead"] = held["cursor_ahead"]
    result["failover_seconds"] = failover_seconds(admin, served)
    result["ok"] = all(result[name] == 0 for name in MUST_BE_ZERO) and held["ok"]
    result["examples"] = examples[:50]
    result["judged_from"], result["judged_to"] = utc(judged.start), utc(judged.due)
    result["notes"] = list(judged.notes)
    if findings.unjudged:
        result["notes"].append(
            f"{findings.unjudged} revisions were learnt while no whole log was kept (a simulator was "
            "killed): they are not judged"
        )
    return result
