"""How every source fares, in lines that fit 120 columns. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap

from core.words import Capability
from routing.budgets import LimitUse
from routing.status import SourceStatus

WIDTH = 120
COLUMNS = (
    "capability", "source", "state", "health", "breaker", "latency", "errors", "complete", "usual ms", "traffic",
)  # fmt: skip
BUDGET_COLUMNS = ("budget of", "limit", "live", "backfill", "left", "note")
_INDENT = "    "


def reasons(statuses: Sequence[SourceStatus]) -> dict[tuple[Capability, str], str | None]:
    """Why each source would not get the next call of its capability; None for the one that would."""
    found: dict[tuple[Capability, str], str | None] = {}
    for capability in dict.fromkeys(status.capability for status in statuses):
        mine = [status for status in statuses if status.capability is capability]
        able = [status for status in mine if status.why_not is None]
        # As the router orders: bands, then health, then the place in the policy.
        first = min(able, key=lambda status: (status.band, -(status.health or 0.0)), default=None)
        for status in mine:
            why = status.why_not
            if why is None and first is not None and status is not first:
                why = _after(status, first)
            found[(capability, status.source)] = why
    return found


def _after(status: SourceStatus, first: SourceStatus) -> str:
    if status.band > first.band:
        return f"{first.source} goes first, by the policy"
    return f"{first.source} goes first, its health is no worse"


def row(status: SourceStatus) -> dict[str, object]:
    """The numbers of one source; what nobody has measured is left out."""
    terms = status.terms if status.asked else None
    measured = status.asked and status.health is not None
    idle = status.state == "closed" and not status.asked
    return {
        "capability": str(status.capability),
        "source": status.source,
        "state": "not asked" if idle else status.state,
        "health": round(status.health or 0.0, 3) if measured else None,
        "breaker": None if terms is None else terms.breaker,
        "latency": None if terms is None else round(terms.latency, 3),
        "errors": None if terms is None else round(terms.errors, 3),
        "complete": None if terms is None else round(terms.completeness, 3),
        "usual ms": None if status.usual_ms is None else round(status.usual_ms),
        "traffic": f"{100 * status.traffic:.0f} %" if status.asked else None,
    }


def details(status: SourceStatus, why: str | None) -> Iterator[str]:
    """Wrapped lines below a source's row: why it is not asked next, and what went wrong last."""
    said: list[str] = []
    if why is not None:
        said.append(f"not chosen: {why}")
    if status.opened_for and status.state in ("open", "half-open"):
        again = f", probed in {status.opens_in_s:.0f} s" if status.opens_in_s > 0 else ""
        said.append(f"opened for {status.opened_for}, lets {100 * status.share:.0f} % pass{again}")
    if status.last_error:
        said.append(f"last error {ago(status.last_error_s or 0.0)} ago: {status.last_error}")
    for text in said:
        yield from wrap(
            text,
            WIDTH,
            initial_indent=_INDENT,
            subsequent_indent=_INDENT + "  ",
            break_on_hyphens=False,
        )


def budget_rows(statuses: Sequence[SourceStatus]) -> list[dict[str, object]]:
    """What every provider's limits have left; feeds of one provider share them."""
    uses: dict[str, Sequence[LimitUse]] = {}
    for status in statuses:
        if status.budgets:
            uses[status.source.partition(".")[0]] = status.budgets
    return [
        {
            "budget of": provider,
            "limit": f"{use.limit.units:,} in {use.limit.window_s:g} s",
            "live": use.live,
            "backfill": use.backfill,
            "left": use.left,
            "note": _note(use),
        }
        for provider, found in uses.items()
        for use in found
    ]


def as_json(status: SourceStatus, why: str | None) -> Mapping[str, object]:
    """Everything that is known, for programs."""
    return {
        **row(status),
        "why not": status.why_not,
        "not chosen": why,
        "band": status.band,
        "asked": status.asked,
        "traffic": round(status.traffic, 4),
        "passes": status.share,
        "opened_for": status.opened_for or None,
        "probed_in_s": round(status.opens_in_s, 1),
        "last_answer_s": None if status.last_answer_s is None else round(status.last_answer_s, 1),
        "last_error": status.last_error or None,
        "last_error_s": None if status.last_error_s is None else round(status.last_error_s, 1),
        "budgets": [
            {
                "units": use.limit.units,
                "window_s": use.limit.window_s,
                "live": use.live,
                "backfill": use.backfill,
                "left": use.left,
                "share": use.share,
                "paused_s": round(use.paused_s, 1),
            }
            for use in status.budgets
        ],
    }


def ago(seconds: float) -> str:
    """``12 s``, ``5 min``, ``3 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _note(use: LimitUse) -> str | None:
    said: list[str] = []
    if use.paused_s > 0:
        said.append(f"asked to wait {use.paused_s:.0f} s more")
    if use.share < 1:
        said.append(f"{100 * use.share:.0f} % in use after 429s")
    return ", ".join(said) or None
