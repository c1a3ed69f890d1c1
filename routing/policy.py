"""The order in which sources are tried. Pure: the same state gives the same order."""

from collections.abc import Mapping
from dataclasses import dataclass

Bands = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """How one source stands towards one call, its budget aside."""

    refusal: str | None = None
    """Why it can't take the call now; None when it may."""
    wait_s: float | None = None
    """For a refusal: real seconds after which it may be another; None when waiting does not help."""
    health: float = 1.0
    probe: bool = False
    """The call would be the fleet's one probe of this source."""


def order(bands: Bands, candidates: Mapping[str, Candidate], first: str | None) -> list[str]:
    """Sources that may take the call, best first.

    Args:
        bands: The policy: strict order between bands.
        candidates: Every source named in ``bands`` and ``first``.
        first: Source that goes before the policy.

    Within a band a due probe goes first, because nothing else lets a source come back; then best
    health, rounded so that noise does not swap equals; then the policy's position.
    """
    ordered = [] if first is None else [first]
    for band in bands:
        ordered += sorted(
            band, key=lambda name: (not candidates[name].probe, -round(candidates[name].health, 2))
        )
    return [name for name in dict.fromkeys(ordered) if candidates[name].refusal is None]
