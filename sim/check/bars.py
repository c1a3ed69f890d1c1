"""Bar by bar: what is missing, wrong, double, known too early, or out of date."""

from collections import defaultdict
from dataclasses import dataclass, field

from sim.check.logged import Logged
from sim.check.served import Served, Serving
from sim.check.stored import FINAL, PARTIAL, REVISED, WITHDRAWN, BarKey, Span, Stored, StoredRow
from sim.check.truth import TrueBar, Values
from sim.check.words import utc

_MOST_EXAMPLES = 20
_OPEN_GAPS = ("pending", "running", "paused")
_CLOCK_GRAIN_S = 0.002
"""PostgreSQL stores microseconds, the log floats: the last digits of an epoch second can differ."""


@dataclass(slots=True)
class Findings:
    """Counts, and a few examples of what is bad."""

    expected: int = 0
    present: int = 0
    confirmed_empty: int = 0
    false_confirmed_empty: int = 0
    unexplained: int = 0
    """Expected, nothing traded, and nobody said so."""
    missing: int = 0
    in_hand: int = 0
    """Traded and not stored yet, but a backfill row has it; only while the system runs."""
    wrong: int = 0
    duplicate: int = 0
    lookahead: int = 0
    revised: int = 0
    restated_missed: int = 0
    """A newer value was served in our last answer, and is not the newest stored one."""
    stale_revision: int = 0
    """The market restated it after our last ask, before the last answer of anybody."""
    unjudged: int = 0
    """Revisions learnt while no whole log was kept."""
    gaps_found: int = 0
    gaps_filled: int = 0
    examples: list[str] = field(default_factory=list[str])

    def bad(self, what: str, key: BarKey, words: str) -> None:
        """Remember an example."""
        if len(self.examples) < _MOST_EXAMPLES:
            interval, symbol, ts = key
            self.examples.append(f"{what}: {symbol} {interval} {utc(ts)}: {words}")


@dataclass(frozen=True, slots=True)
class Case:
    """What one comparison goes by; market epoch seconds."""

    now: float
    """Versions revealed later could not be known."""
    settled: float
    """An answer given later may still be on its way into the tables."""
    logged: Logged
    since: dict[str, float]
    """By symbol: from when its bars are expected; absent: always."""
    running: bool
    """Whether the system goes on, so that a gap that it has in hand is no loss."""
    daily: frozenset[float]
    """Opens of the sessions whose daily bars must be there by now."""


def compare(
    stored: Stored,
    served: Served,
    truth: dict[str, dict[tuple[str, int], TrueBar]],
    case: Case,
) -> Findings:
    """Compare the tables with the truth and the log.

    Args:
        stored: The tables.
        served: The request log.
        truth: Interval -> bars of the range that was to be collected.
        case: What it goes by.
    """
    findings = Findings()
    empty = _instants(stored.empty, truth)
    gaps = _instants(stored.gaps, truth)
    held: set[BarKey] = set()
    if case.running:
        held = _instants([gap for gap in stored.gaps if gap.state in _OPEN_GAPS], truth)
    for interval, bars in truth.items():
        for bar in bars.values():
            if (
                not bar.expected
                or bar.halted
                or (interval == "1d" and bar.ts not in case.daily)
                or bar.ts < case.since.get(bar.symbol, bar.ts)
                or not _collected(stored.tiers.get(bar.symbol), interval)
            ):
                continue
            key = (interval, bar.symbol, bar.ts)
            _expected_bar(findings, stored, bar, case.now, empty=key in empty, held=key in held)
    for key, rows in stored.bars.items():
        for provider, revisions in _by_provider(rows).items():
            servings = served.bars.get(provider, {}).get(key, [])
            _revisions(findings, key, revisions, servings, case.logged)
    _stale(findings, stored, truth, served, case)
    findings.gaps_found = len(gaps)
    findings.gaps_filled = sum(
        1 for key in gaps if key in empty or _newest_present(stored.bars.get(key, []))
    )
    return findings


def _collected(tier: str | None, interval: str) -> bool:
    return tier is not None and (interval == "1d" or tier in ("T0", "T1"))


def _expected_bar(
    findings: Findings,
    stored: Stored,
    bar: TrueBar,
    known_until: float,
    *,
    empty: bool,
    held: bool,
) -> None:
    key = (bar.interval, bar.symbol, bar.ts)
    findings.expected += 1
    traded = bool(bar.versions) and bar.versions[0].reveal <= known_until
    present = _newest_present(stored.bars.get(key, []))
    if present:
        findings.present += 1
    elif empty:
        findings.confirmed_empty += 1
    elif traded and held:
        findings.in_hand += 1
    elif traded:
        findings.missing += 1
        findings.bad("missing", key, "it traded and is neither stored nor marked")
    else:
        findings.unexplained += 1
    if empty and traded:
        findings.false_confirmed_empty += 1
        findings.bad("false_confirmed_empty", key, "marked empty, but it traded")


def _revisions(
    findings: Findings,
    key: BarKey,
    rows: list[StoredRow],
    servings: list[Serving],
    logged: Logged,
) -> None:
    before: StoredRow | None = None
    for row in rows:
        findings.revised += row.status == REVISED
        if (
            before is not None
            and row.values == before.values
            and (before.status == PARTIAL) == (row.status == PARTIAL)
        ):
            findings.duplicate += 1
            findings.bad(
                "duplicate", key, f"as_of {utc(row.as_of)} repeats as_of {utc(before.as_of)}"
            )
        before = row
        if row.status == WITHDRAWN:
            continue
        if not logged.holds(row.asked_at, row.as_of):
            findings.unjudged += 1
            continue
        same = [s for s in servings if s.values == row.values]
        if not same:
            findings.wrong += 1
            findings.bad("wrong", key, f"{row.provider} never served {_prices(row.values)}")
        elif row.as_of + _CLOCK_GRAIN_S < min(s.answered for s in same):
            findings.lookahead += 1
            findings.bad(
                "lookahead",
                key,
                f"as_of {utc(row.as_of)} is before {row.provider} first served it, "
                f"{utc(min(s.answered for s in same))}",
            )
        elif row.status in (FINAL, REVISED) and not any(s.closed for s in same):
            findings.wrong += 1
            findings.bad(
                "wrong",
                key,
                f"stored as closed, but {row.provider} only served it while it could grow",
            )


def _stale(
    findings: Findings,
    stored: Stored,
    truth: dict[str, dict[tuple[str, int], TrueBar]],
    served: Served,
    case: Case,
) -> None:
    known_until = min(case.now, served.last_bars)
    for key, rows in stored.bars.items():
        interval, symbol, ts = key
        bar = truth.get(interval, {}).get((symbol, ts))
        if bar is None:
            continue
        for provider, revisions in _by_provider(rows).items():
            newest = revisions[-1]
            servings = served.bars.get(provider, {}).get(key, [])
            closed = [
                s
                for s in servings
                if s.closed and s.values[4] is not None and s.answered <= case.settled
            ]
            if closed and newest.status != WITHDRAWN and newest.values != closed[-1].values:
                findings.restated_missed += 1
                findings.bad(
                    "restated_missed", key, f"{provider} last served {_prices(closed[-1].values)}"
                )
        known = [v for v in bar.versions if v.reveal <= known_until]
        if known and all(
            revisions[-1].values != known[-1].values for revisions in _by_provider(rows).values()
        ):
            findings.stale_revision += 1


def _prices(values: Values) -> str:
    named = zip(("open", "high", "low", "close", "volume"), values, strict=True)
    return " ".join(f"{name} {'-' if value is None else f'{value:.10g}'}" for name, value in named)


def _by_provider(rows: list[StoredRow]) -> dict[str, list[StoredRow]]:
    grouped: dict[str, list[StoredRow]] = defaultdict(list)
    for row in rows:
        grouped[row.provider].append(row)
    return grouped


def _newest_present(rows: list[StoredRow]) -> bool:
    newest = {row.provider: row for row in rows}
    return any(row.status in (FINAL, REVISED) for row in newest.values())


def _instants(spans: list[Span], truth: dict[str, dict[tuple[str, int], TrueBar]]) -> set[BarKey]:
    """The expected bars that lie in spans."""
    found: set[BarKey] = set()
    daily: dict[str, list[int]] = defaultdict(list)
    for symbol, ts in truth.get("1d", {}):
        daily[symbol].append(ts)
    for span in spans:
        whole = range(-(-span.start // 60) * 60, span.end, 60)
        starts = whole if span.interval == "1m" else daily[span.symbol]
        for ts in starts:
            bar = truth.get(span.interval, {}).get((span.symbol, ts))
            if bar is not None and bar.expected and span.start <= ts < span.end:
                found.add((span.interval, span.symbol, ts))
    return found
