"""The timeline of faults: what is wrong with which source, from when to when."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sim.market.draws import key_of, uniform
from sim.reader import Reader

CAPABILITIES = ("bars_1m", "bars_eod", "quotes_l1", "meta", "session")
"""What an endpoint can be for; ``session`` is cookies, crumbs and consent, ``meta`` the rest."""

KINDS = (
    "refuse",
    "reset",
    "5xx",
    "429",
    "slow",
    "hang",
    "garbage",
    "stale",
    "drop_bars",
    "wrong_prices",
    "throttle_200",
    "expired_key",
)
WAITING = ("slow", "hang")
"""Kinds that delay an answer."""
ALTERING = ("stale", "drop_bars", "wrong_prices")
"""Kinds that answer with 200 and untrue content; the others replace the answer."""


@dataclass(frozen=True, slots=True)
class FaultSpec:
    """A fault as configured; its start is not yet resolved."""

    source: str
    capability: str
    kind: str
    start: str
    """ISO instant, HH:MM[:SS] UTC of the session, or ``now``."""
    minutes: float
    share: float
    name: str | None
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault in force during ``[start, end)``, market epoch seconds."""

    id: str
    key: int
    """Seed of its draws."""
    source: str
    capability: str
    kind: str
    start: float
    end: float
    share: float
    extra: Mapping[str, Any]

    def hits(self, source: str, capability: str, at: float) -> bool:
        """Whether it is in force for that source and capability at ``at``."""
        return (
            self.start <= at < self.end
            and self.source in ("*", source)
            and self.capability in ("*", capability)
        )


class FaultPlan:
    """The faults of a run, which may change while it runs."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._faults: dict[str, Fault] = {}
        self._numbered = 0

    def add(self, spec: FaultSpec, start: float) -> Fault:
        """Put a fault on the timeline; one with the name of another replaces it."""
        self._numbered += 1
        name = spec.name or f"f{self._numbered}"
        fault = Fault(
            id=name,
            key=key_of(self._seed, "fault", name),
            source=spec.source,
            capability=spec.capability,
            kind=spec.kind,
            start=start,
            end=start + spec.minutes * 60,
            share=spec.share,
            extra=spec.extra,
        )
        self._faults[name] = fault
        return fault

    def clear(self, ids: Iterable[str] | None = None) -> None:
        """Take these faults off, all of them when None; unknown ids are ignored."""
        for name in list(self._faults) if ids is None else list(ids):
            self._faults.pop(name, None)

    def all(self) -> Sequence[Fault]:
        """Every fault, in the order of their making."""
        return tuple(self._faults.values())

    def active(self, source: str, capability: str, at: float, request: str) -> list[Fault]:
        """The faults that this request meets at ``at``; ``request`` decides where the share is below 1."""
        found: list[Fault] = []
        for fault in self._faults.values():
            if not fault.hits(source, capability, at):
                continue
            if (
                fault.share >= 1.0
                or uniform(fault.key, key_of(request, int(at * 1000))) < fault.share
            ):
                found.append(fault)
        return found

    def refused(self, source: str, at: float) -> bool:
        """Whether the source's listener is closed at ``at``."""
        return any(
            fault.kind == "refuse" and fault.hits(source, "*", at)
            for fault in self._faults.values()
        )

    def next_edge(self, source: str, at: float) -> float | None:
        """The next instant after ``at`` at which ``refused`` can change."""
        edges = (
            edge
            for fault in self._faults.values()
            if fault.kind == "refuse" and fault.source in ("*", source)
            for edge in (fault.start, fault.end)
            if edge > at
        )
        return min(edges, default=None)


def read_faults(reader: Reader, name: str, *, sources: Sequence[str]) -> tuple[FaultSpec, ...]:
    """Read the list of faults under ``name``."""
    required = ("source", "kind", "from", "minutes")
    return tuple(_fault(item, sources) for item in reader.sections(name, required=required))


def _fault(reader: Reader, sources: Sequence[str]) -> FaultSpec:
    kind = reader.word("kind", KINDS[0], KINDS)
    spec = FaultSpec(
        source=reader.word("source", "*", ("*", *sources)),
        capability=reader.word("capability", "*", ("*", *CAPABILITIES)),
        kind=kind,
        start=reader.moment("from", "00:00"),
        minutes=reader.number("minutes", 1.0, low=0.0),
        share=reader.share("share", 1.0),
        name=reader.optional_text("id"),
        extra=_extra(reader, kind),
    )
    if kind == "refuse" and (spec.capability != "*" or spec.share != 1.0):
        reader.problem(
            "kind", "is 'refuse', which closes the listener: expected capability '*' and share 1"
        )
    return spec


def _extra(reader: Reader, kind: str) -> Mapping[str, Any]:
    match kind:
        case "5xx":
            return {"status": reader.integer("status", 503, low=500, high=599)}
        case "429":
            return {"retry_after_s": reader.optional_number("retry_after_s", low=0.0)}
        case "slow":
            return {"seconds": reader.number("seconds", 2.0, low=0.0)}
        case "hang":
            return {"seconds": reader.optional_number("seconds", low=0.0)}
        case "garbage":
            variants = ("truncated", "html", "empty", "wrong_type")
            return {"variant": reader.word("variant", "truncated", variants)}
        case "stale":
            return {"age_s": reader.optional_number("age_s", low=0.0)}
        case "drop_bars":
            return {"fraction": reader.share("fraction", 0.3)}
        case "wrong_prices":
            return {
                "fraction": reader.share("fraction", 1.0),
                "factor": reader.number("factor", 1.1, low=0.0),
                "mode": reader.word("mode", "scale", ("scale", "zero", "disorder")),
            }
        case _:
            return {}
