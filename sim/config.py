"""The simulator's configuration: frozen dataclasses read from JSON, every problem listed at once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from core.clock import Segment
from core.errors import SettingsError
from core.words import Tier
from sim.faults import CAPABILITIES, FaultSpec, read_faults
from sim.reader import Reader

METERED = tuple(word for word in CAPABILITIES if word != "session")
"""Capabilities that a limit counts unless it says otherwise: all but cookies, crumbs and consent."""


@dataclass(frozen=True, slots=True)
class SymbolSpec:
    """One listed symbol of an explicit universe."""

    symbol: str
    tier: Tier
    exchange: str


@dataclass(frozen=True, slots=True)
class SplitSpec:
    """``ratio`` new shares for one old share from the open of ``session`` on."""

    symbol: str
    session: date
    ratio: float


@dataclass(frozen=True, slots=True)
class HaltSpec:
    """No trades in ``symbol`` for ``minutes`` from ``start`` (ISO instant or HH:MM UTC of the session)."""

    symbol: str
    start: str
    minutes: float


@dataclass(frozen=True, slots=True)
class MarketConfig:
    """What is traded, and how its bars come to be known."""

    kind: str = "seeded"
    """``seeded`` or ``csv``."""
    seed: int = 1
    session: date | None = None
    """The day of the run; None: the session in progress or the next one (csv: the newest file)."""
    symbols: Mapping[str, int] = field(default_factory=lambda: {"T0": 30, "T1": 70, "T2": 200})
    """Seeded: how many invented symbols of each tier."""
    universe: tuple[SymbolSpec, ...] = ()
    """Seeded: an explicit list, in place of invented symbols."""
    exchanges: Mapping[str, float] = field(default_factory=lambda: {"XNYS": 1.0})
    """Seeded: weights of the exchanges of invented symbols."""
    settle_s: int = 50
    """A bar's ordinary late change comes at most this many seconds after bar_end; at most 60."""
    settle_share: float = 0.15
    restate_share: float = 0.02
    restate_delay_s: tuple[int, int] = (240, 14_400)
    """Earliest and latest restatement, seconds after bar_end + 60."""
    restate_twice_share: float = 0.1
    cancel_share: float = 0.15
    """Share of restatements that take volume away in place of adding it."""
    splits: tuple[SplitSpec, ...] = ()
    halts: tuple[HaltSpec, ...] = ()
    dir: Path | None = None
    """csv: the folder ``<dir>/<SYMBOL>/<date>.csv``."""
    calendar: str | None = None
    """csv: exchange of every symbol that universe.csv does not name; None: inferred from the bars' hours."""


@dataclass(frozen=True, slots=True)
class LimitSpec:
    """``units`` requests in any ``seconds`` of market time, per key, per address or for the whole source.

    Where a vendor weighs requests, ``units`` are weight.
    """

    units: int
    seconds: float
    scope: str
    capabilities: frozenset[str]


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """One provider as the simulator plays it."""

    name: str
    provider: str
    """The pipeline's name of the source."""
    port: int = 0
    delay_s: float = 0.0
    """The feed shows the market as it was this many market seconds ago."""
    latency_ms: float = 0.0
    """Real milliseconds added to every answer."""
    limits: tuple[LimitSpec, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What only this wire knows (``premium``, ``float32``, ...)."""


@dataclass(frozen=True, slots=True)
class SimConfig:
    """Everything the process needs to start."""

    host: str = "127.0.0.1"
    admin_port: int = 0
    endpoints_file: Path | None = None
    log_file: Path | None = None
    """Request log; None: an unnamed temporary file that ``/admin/served`` reads."""
    log_kept: bool = False
    """Whether a restart goes on with the log, as long as the market is the same."""
    segments: tuple[Segment, ...] = ()
    """The replay's clock; none: the system's."""
    market: MarketConfig = field(default_factory=MarketConfig)
    sources: Mapping[str, SourceConfig] = field(default_factory=dict[str, SourceConfig])
    faults: tuple[FaultSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceKind:
    """What a wire says of its own configuration."""

    name: str
    provider: str
    """The pipeline's usual name of it."""
    scope: str
    """What its limits count by unless the config says otherwise: ``key``, ``ip`` or ``source``."""
    read_options: Callable[[Reader], Mapping[str, Any]]


def read_config(raw: object, kinds: Mapping[str, SourceKind]) -> SimConfig:
    """Check a decoded JSON document; ``kinds`` are the sources that there can be.

    Raises:
        SettingsError: with every problem, one a line.
    """
    reader = Reader.root(raw, "simulator config")
    clock = reader.section("clock")
    sources = reader.mapping("sources", default={name: {} for name in kinds})
    config = SimConfig(
        host=reader.text("host", "127.0.0.1"),
        admin_port=reader.integer("admin_port", 0, low=0, high=65_535),
        endpoints_file=reader.path("endpoints_file"),
        log_file=reader.path("log_file"),
        log_kept=reader.flag("log_kept", default=False),
        segments=_segments(clock),
        market=_market(reader.section("market")),
        sources=_sources(sources, kinds),
        faults=read_faults(reader, "faults", sources=sources.names()),
    )
    reader.finish()
    problems = reader.problems
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise SettingsError(f"the simulator config has {len(problems)} problem(s):\n{listed}")
    return config


def read_segments(raw: object) -> tuple[Segment, ...]:
    """Check a decoded ``{"segments": [...]}``; raises ``SettingsError``."""
    reader = Reader.root(raw, "clock")
    segments = _segments(reader)
    if reader.problems:
        raise SettingsError("; ".join(reader.problems))
    return segments


def _sources(section: Reader, kinds: Mapping[str, SourceKind]) -> Mapping[str, SourceConfig]:
    found: dict[str, SourceConfig] = {}
    for name in section.names():
        kind = kinds.get(name)
        if kind is None:
            section.problem(
                name, f"is no source of the simulator; expected one of {', '.join(kinds)}"
            )
            continue
        reader = section.child(name)
        found[name] = SourceConfig(
            name=name,
            provider=reader.text("provider", kind.provider),
            port=reader.integer("port", 0, low=0, high=65_535),
            delay_s=reader.number("delay_s", 0.0, low=0.0),
            latency_ms=reader.number("latency_ms", 0.0, low=0.0),
            limits=tuple(
                _limit(item, kind)
                for item in reader.sections("limits", required=("units", "seconds"))
            ),
            options=kind.read_options(reader),
        )
        reader.finish()
    return found


def _limit(reader: Reader, kind: SourceKind) -> LimitSpec:
    words = reader.words("capabilities", CAPABILITIES, default=METERED)
    return LimitSpec(
        units=reader.integer("units", 1, low=1),
        seconds=reader.number("seconds", 1.0, low=0.001),
        scope=reader.word("scope", kind.scope, ("key", "ip", "source")),
        capabilities=frozenset(words),
    )


def _segments(reader: Reader) -> tuple[Segment, ...]:
    found: list[Segment] = []
    for place, item in reader.items("segments"):
        if not (isinstance(item, list) and len(item) == 3 and all(_is_number(x) for x in item)):  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
            reader.problem(place, f"is {item!r}; expected [real_start, market_start, speed]")
            continue
        real, market, speed = (float(x) for x in item)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        if speed <= 0:
            reader.problem(place, f"has speed {speed}; expected a number above 0")
            continue
        found.append(Segment(real, market, speed))
    reader.finish()
    return tuple(found)


def _market(reader: Reader) -> MarketConfig:
    plain = MarketConfig()
    kind = reader.word("kind", plain.kind, ("seeded", "csv"))
    folder = reader.path("dir")
    if kind == "csv" and folder is None:
        reader.problem("dir", "is absent; a csv market needs its folder <dir>/<SYMBOL>/<date>.csv")
    if kind == "csv" and folder is not None and not folder.is_dir():
        reader.problem(
            "dir", f"is {str(folder)!r}, which is no folder; expected <dir>/<SYMBOL>/<date>.csv"
        )
    csv = kind == "csv"
    config = MarketConfig(
        kind=kind,
        seed=reader.integer("seed", plain.seed, low=0),
        session=reader.day("session"),
        symbols=_counts(reader),
        universe=_universe(reader),
        exchanges=_weights(reader),
        settle_s=reader.integer("settle_s", plain.settle_s, low=2, high=60),
        settle_share=reader.share("settle_share", 0.0 if csv else plain.settle_share),
        restate_share=reader.share("restate_share", 0.0 if csv else plain.restate_share),
        restate_delay_s=reader.pair("restate_delay_s", plain.restate_delay_s),
        restate_twice_share=reader.share("restate_twice_share", plain.restate_twice_share),
        cancel_share=reader.share("cancel_share", plain.cancel_share),
        splits=tuple(
            SplitSpec(
                symbol=item.text("symbol", ""),
                session=item.day("session", required=True) or date.min,
                ratio=item.number("ratio", 2.0, low=0.001),
            )
            for item in reader.sections("splits", required=("symbol", "session", "ratio"))
        ),
        halts=tuple(
            HaltSpec(
                symbol=item.text("symbol", ""),
                start=item.moment("from", "00:00"),
                minutes=item.number("minutes", 1.0, low=0.01),
            )
            for item in reader.sections("halts", required=("symbol", "from", "minutes"))
        ),
        dir=folder,
        calendar=reader.optional_text("calendar"),
    )
    reader.finish()
    return config


def _counts(reader: Reader) -> Mapping[str, int]:
    default = {"T0": 30, "T1": 70, "T2": 200}
    section = reader.mapping("symbols", default=default)
    tiers = [tier.value for tier in Tier]
    for name in section.names():
        if name not in tiers:
            section.problem(name, f"is no tier; expected one of {', '.join(tiers)}")
    return {name: section.integer(name, 0, low=0) for name in section.names() if name in tiers}


def _weights(reader: Reader) -> Mapping[str, float]:
    section = reader.mapping("exchanges", default={"XNYS": 1.0})
    weights = {name: section.number(name, 0.0, low=0.0) for name in section.names()}
    if not sum(weights.values()) > 0:
        reader.problem("exchanges", "has no weight above 0")
    return weights


def _universe(reader: Reader) -> tuple[SymbolSpec, ...]:
    specs = tuple(
        SymbolSpec(
            symbol=item.text("symbol", ""),
            tier=Tier(item.word("tier", "T2", tuple(tier.value for tier in Tier))),
            exchange=item.text("exchange", "XNYS"),
        )
        for item in reader.sections("universe", required=("symbol",))
    )
    names = [spec.symbol for spec in specs]
    for name in sorted({name for name in names if names.count(name) > 1}):
        reader.problem("universe", f"names {name!r} more than once")
    return specs


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
