"""What ``ops providers`` and the exporter show of every source."""

from dataclasses import dataclass

from core.words import Capability
from routing.budgets import LimitUse
from routing.health import Health
from routing.pair import Pair
from routing.state import LastWords


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """One source and capability of a policy."""

    source: str
    capability: Capability
    band: int
    """Its place in the policy: the band, from 1."""
    installed: bool
    why_not: str | None
    """Why it would not be chosen now; None when it would be, better ones aside."""
    state: str = "ineligible"
    """closed, half-open, open; disabled, not entitled, or ineligible where it is not asked at all."""
    circuit: float = 1.0
    """0 open, 0.5 half-open, 1 closed."""
    share: float = 0.0
    """Share of the calls that the breaker lets pass: 1 closed, less in a ramp, 0 open."""
    opens_in_s: float = 0.0
    """Real seconds until a probe may go; 0 when not open."""
    opened_for: str = ""
    """Reason of the last opening."""
    health: float | None = None
    terms: Health | None = None
    usual_ms: float | None = None
    """Usual latency, None while too few calls tell."""
    traffic: float = 0.0
    """Share of the fleet's recent calls for this capability."""
    budgets: tuple[LimitUse, ...] = ()
    last_error: str = ""
    last_error_s: float | None = None
    """Real seconds since then."""
    last_answer_s: float | None = None
    """Real seconds since the last good answer; None: none in the last two days."""

    @property
    def asked(self) -> bool:
        """Whether anybody asked it in the last two days."""
        return self.last_answer_s is not None or bool(self.last_error)


def describe(
    pair: Pair,
    band: int,
    why_not: str | None,
    now: float,
    everyone: float,
    budgets: tuple[LimitUse, ...],
    last: LastWords,
    *,
    disabled: bool,
) -> SourceStatus:
    """Put together what is known of an installed source.

    Args:
        pair: The source and capability.
        band: Its place in the policy.
        why_not: Why it would not be chosen, its budget aside.
        now: Monotonic seconds.
        everyone: Recent calls of all sources for the capability.
        budgets: How its limits are used.
        last: What it said last.
        disabled: The operator has switched it off.
    """
    view = pair.view
    if why_not is None:
        why_not = next(
            (_used_up(use) for use in budgets if use.left <= 0 or use.paused_s > 0), None
        )
    state = view.standing.state.value
    if disabled or view.off_s > 0:
        state = "disabled" if disabled else "not entitled"
    return SourceStatus(
        pair.source,
        pair.capability,
        band,
        installed=True,
        why_not=why_not,
        state=state,
        circuit=view.standing.state.value_shown,
        share=view.standing.share,
        opens_in_s=view.wait_s(now),
        opened_for=view.standing.why,
        health=view.health.score,
        terms=view.health,
        usual_ms=None if view.usual_s is None else 1000 * view.usual_s,
        traffic=view.calls / everyone if everyone else 0.0,
        budgets=budgets,
        last_error=last.error,
        last_error_s=last.error_s,
        last_answer_s=last.answer_s,
    )


def _used_up(use: LimitUse) -> str:
    if use.paused_s > 0:
        return f"asked to wait by the provider, {use.paused_s:.1f} s more"
    return f"budget used up: {use.limit.units} per {use.limit.window_s:g} s"
