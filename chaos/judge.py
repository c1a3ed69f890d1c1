"""Whether a run kept every promise: the checker's verdict, and what a restarted system may not leave behind."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg
from redis import Redis

from chaos.schedule import Kind
from chaos.strike import Struck
from chaos.trace import trace_examples
from chaos.traffic import Asked, Element, Traffic
from chaos.world import LISTS, World
from core.windows import Window
from sim.check.cursors import ahead_of_data
from sim.check.stored import FINAL, REVISED, Stored, read_stored
from sim.check.truth import Admin, TrueBar, read_truth

CHECKED = (
    "missing",
    "wrong",
    "duplicate",
    "lookahead",
    "false_confirmed_empty",
    "limit_violations",
)
"""Counts of the checker that must be 0."""
TOLD = (
    "restated_missed",
    "expected",
    "present",
    "requests",
    "as_of_reads",
    "gaps_found",
    "gaps_filled",
)
"""Counts of the checker that are told. A restated value may have died with the process that was told it: what
was settled is asked again at the end of the session, which these runs don't reach."""
OWN = (
    "lost",
    "cursor_ahead",
    "stuck",
    "elements_lost",
    "elements_doubled",
    "unfenced",
    "late",
    "unread",
)
"""Counts of this module that must be 0."""
MUST_BE_ZERO = (*CHECKED, *OWN)

_FORGETFUL: Mapping[Kind, float] = {
    Kind.REDIS_KILL: 2.5,
    Kind.REDIS_TRUNCATED: 2.5,
}
"""Real seconds of acknowledged pushes that such an end of Redis may take with it: the coordinator's loss."""
_OPEN_ROWS: LiteralString = """
SELECT j.state || ' backfill row ' || j.job_id || ' of ' || n.name || ', ' || j.tier || ' ' || j.origin || ', attempt '
       || j.attempts || ', due in ' || round(extract(epoch FROM j.next_try - clock_timestamp())) || ' s, not before '
       || coalesce(j.not_before::text, '-') || ', pushed until '
       || coalesce(round(extract(epoch FROM j.dispatched_until - clock_timestamp()))::text, '-') || ' s: '
       || coalesce(j.reason, '')
FROM backfill_jobs j JOIN symbol_names n USING (symbol_id) WHERE j.state IN ('pending', 'running')
"""
_OPEN_ELEMENTS: LiteralString = (
    "SELECT state || ' element ' || element_id FROM rlc_inbox WHERE state IN ('new', 'dispatched')"
)
_UNPUSHED: LiteralString = """
SELECT 'slot ' || kind || ' ' || tier || ' ' || slot_ts || ' was claimed and never pushed'
FROM sweep_slots WHERE pushed_at IS NULL AND claimed_at < gapless_now() - interval '10 minutes'
"""
_UNFENCED: LiteralString = """
SELECT 'slot ' || kind || ' ' || tier || ' ' || slot_ts || ' was claimed under token ' || token || ' after ' || before
FROM (SELECT s.*, max(token) OVER (ORDER BY claimed_at ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
      FROM sweep_slots s) o
WHERE token < before
"""
_DOUBLED: LiteralString = """
SELECT 'element ' || i.element_id || ' has ' || count(*) || ' rows for one window of symbol ' || j.symbol_id
FROM backfill_jobs j JOIN rlc_inbox i USING (inbox_id)
GROUP BY i.element_id, j.symbol_id, j.interval_s, j.start_ts, j.end_ts HAVING count(*) > 1
"""
_INBOX: LiteralString = "SELECT element_id, state, reason FROM rlc_inbox"
_LACKED: LiteralString = """
SELECT n.name, EXTRACT(EPOCH FROM lower(r))::bigint, EXTRACT(EPOCH FROM upper(r))::bigint, e.provider_id
FROM fetch_evidence e JOIN symbol_names n USING (symbol_id), LATERAL unnest(e.lacking) AS r
WHERE e.interval_s = 60 AND e.settled
"""
_FAILED_ROWS: LiteralString = """
SELECT n.name, j.start_ts, j.end_ts, coalesce(j.reason, '')
FROM backfill_jobs j JOIN symbol_names n USING (symbol_id) WHERE j.state = 'failed'
"""


READS = 600
"""As-of reads that are made while everything breaks, and repeated afterwards."""


@dataclass(slots=True)
class Verdict:
    """Counts by name, and examples of what is bad."""

    counts: dict[str, int] = field(default_factory=dict[str, int])
    examples: list[str] = field(default_factory=list[str])

    def add(self, name: str, examples: Sequence[str]) -> None:
        """Count findings; a few are kept as examples."""
        self.counts[name] = self.counts.get(name, 0) + len(examples)
        self.examples += [f"{name}: {words}" for words in examples[:5]]

    @property
    def bad(self) -> list[str]:
        """Names of the counts that should be 0 and are not."""
        return [name for name in MUST_BE_ZERO if self.counts.get(name, 0)]


def judge(world: World, struck: Sequence[Struck], traffic: Traffic, late: Sequence[str]) -> Verdict:
    """Judge a world whose processes have ended; its servers and its simulator still run."""
    verdict = Verdict()
    checked = _check(world)
    for name in CHECKED:
        verdict.counts[name] = int(checked[name])
    verdict.examples += [
        words for words in checked["examples"][:10] if not words.startswith("restated_missed")
    ]
    for name in TOLD:
        verdict.counts[name] = int(checked[name])
    with psycopg.connect(world.direct_url, autocommit=True) as conn:
        start, end = world.times.open.timestamp(), world.times.close.timestamp()
        truth = read_truth(Admin(world.sim_admin), "1m", start, end)
        stored = read_stored(conn, start, end)
        verdict.add("cursor_ahead", ahead_of_data(conn, stored, truth))
        verdict.counts["cursor_ahead"] += int(checked["cursor_ahead"])
        verdict.add("stuck", _said(conn, _OPEN_ROWS, _OPEN_ELEMENTS, _UNPUSHED))
        verdict.add("stuck", stranded(world.redis) + on_lists(world.redis))
        verdict.add("unfenced", _said(conn, _UNFENCED))
        verdict.add("elements_doubled", _said(conn, _DOUBLED))
        inbox = {name: (state, reason) for name, state, reason in conn.execute(_INBOX)}
        verdict.add("elements_lost", _lost_elements(traffic.elements, inbox, struck, world))
        verdict.examples += trace_examples(conn, verdict.examples)
        thinned = any(one.fault.detail.get("fault") == "drop_bars" for one in struck)
        lacked = _lacked(conn) if thinned else {}
        verdict.add("lost", _lost_bars(conn, traffic.asked, inbox, stored, truth, lacked))
        verdict.add("unread", _unread(verdict.counts["as_of_reads"]))
    verdict.add("late", late)
    return verdict


def _check(world: World) -> dict[str, Any]:
    """The independent checker, as a process of its own."""
    world.sim.post("/admin/flush", {})
    out = world.home.path / "check.json"
    out.unlink(missing_ok=True)
    words = ["--stack", str(world.stack_file), "--json", str(out)]
    words += ["--probes", str(probes(world))]
    words += ["--from", world.times.open.isoformat(), "--to", world.times.close.isoformat()]
    code = world.stack.run_tool("sim.check", "verify", *words)
    if not out.exists():
        raise RuntimeError(f"the checker gave no report (exit {code}); see its log")
    return json.loads(out.read_text())


def probes(world: World) -> Path:
    """File of the as-of reads that were made meanwhile."""
    return world.home.path / "probes.ndjson"


def stranded(redis: Redis) -> list[str]:
    """Jobs that a drained system still holds in Redis: waiting, taken, begun, or in no list at all."""
    client = cast("Any", redis)
    found: list[str] = []
    listed: set[str] = set()
    for key in [*client.scan_iter("rq:queue:*"), *client.scan_iter("rq:wip:*")]:
        begun = key.startswith(b"rq:wip:")
        entries = client.zrange(key, 0, -1) if begun else client.lrange(key, 0, -1)
        ids = [entry.decode().partition(":")[0] for entry in entries]
        listed.update(ids)
        found += [f"job {job} is in {key.decode()}" for job in ids]
    for key in client.scan_iter("rq:job:*", count=1000):
        name = key.decode().removeprefix("rq:job:")
        if ":" in name:
            continue
        status = client.hget(key, "status")
        # RQ takes a job's time to live away when it starts; who has one again was left to end by itself.
        ending = status == b"started" and client.ttl(key) >= 0
        if status in (b"queued", b"started") and not ending and name not in listed:
            found.append(f"job {name} is {status.decode()} and in no list")
    return found


def on_lists(redis: Redis) -> list[str]:
    """Elements of the coordinator that nobody has taken."""
    client = cast("Any", redis)
    lengths = {key: int(client.llen(key)) for key in LISTS}
    return [f"{length} elements are on {key}" for key, length in lengths.items() if length]


def _said(conn: psycopg.Connection[Any], *queries: LiteralString) -> list[str]:
    return [row[0] for query in queries for row in conn.execute(query)]


def _lost_elements(
    elements: Sequence[Element],
    inbox: Mapping[str, tuple[str, str | None]],
    struck: Sequence[Struck],
    world: World,
) -> list[str]:
    """Elements that are neither kept nor still on their list, though Redis forgot nothing, or were given up."""
    waiting: set[bytes] = set()
    for key in {element.list_key for element in elements}:
        waiting.update(cast("Any", world.redis).lrange(key, 0, -1))
    lost: list[str] = []
    for element in elements:
        state, reason = inbox.get(element.id, ("", None))
        if state in ("dead", "expired"):
            lost.append(f"element {element.id} is {state}: {reason}")
        if state or element.raw in waiting:
            continue
        if not any(_may_have_forgotten(one, element) for one in struck):
            lost.append(f"element {element.id}, pushed at {element.pushed_s:.2f} s, is nowhere")
    return lost


def _may_have_forgotten(struck: Struck, element: Element) -> bool:
    if element.raw in struck.forgot:
        return True
    reach = _FORGETFUL.get(struck.fault.kind)
    ended = struck.ended_s if struck.ended_s is not None else float("inf")
    return reach is not None and struck.began_s - reach <= element.pushed_s <= ended


def _lost_bars(
    conn: psycopg.Connection[Any],
    asked: Sequence[Asked],
    inbox: Mapping[str, tuple[str, str | None]],
    stored: Stored,
    truth: Mapping[tuple[str, int], TrueBar],
    lacked: Mapping[tuple[str, int], set[int]],
) -> list[str]:
    """Bars of promised windows that traded and are not stored.

    Only where a source was made to drop bars its word excuses: one source's where one ask was
    promised, two sources' in a backfill, which goes on to the next.
    """
    given_up = [
        (symbol, Window(start, end)) for symbol, start, end, _ in conn.execute(_FAILED_ROWS)
    ]
    lost: list[str] = []
    for want in asked:
        if want.element is not None and want.element not in inbox:
            # Never taken on: judged with the elements.
            continue
        start, end = int(want.window.start.timestamp()), int(want.window.end.timestamp())
        for ts in range(start, end, 60):
            bar = truth.get((want.symbol, ts))
            if bar is None or not bar.versions:
                continue
            if len(lacked.get((want.symbol, ts), ())) >= (1 if want.once else 2):
                continue
            rows = stored.bars.get(("1m", want.symbol, ts), ())
            if any(row.status in (FINAL, REVISED) for row in rows):
                continue
            why = next(
                (" (given up)" for s, w in given_up if s == want.symbol and w == want.window), ""
            )
            lost.append(f"{want.symbol} {ts} was promised to {want.element or 'an operator'}{why}")
    return lost


def _unread(reads: int) -> list[str]:
    return [] if reads >= READS else [f"{reads} of {READS} as-of reads were made"]


def _lacked(conn: psycopg.Connection[Any]) -> dict[tuple[str, int], set[int]]:
    """Minute -> the sources that said after settle that they have no bar of it."""
    by: dict[tuple[str, int], set[int]] = defaultdict(set)
    for symbol, start, end, provider in conn.execute(_LACKED):
        for ts in range(start // 60 * 60, end, 60):
            by[symbol, ts].add(provider)
    return by
