"""The market's door: who trades, when, and what is known of any bar or quote at any instant."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import date, datetime, time
from functools import lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo

from core.errors import SettingsError
from sim.config import HaltSpec, MarketConfig, SplitSpec
from sim.market.csvbars import CsvDays, csv_universe
from sim.market.day import MINUTE, BarVersion, SymbolDay
from sim.market.draws import key_of
from sim.market.quotes import MarketQuote, quote_at
from sim.market.seeded import SeededDays
from sim.market.sessions import Session, Sessions
from sim.market.universe import Instrument, Universe, seeded_universe

_DAYS_KEPT = 12_000
"""Symbol-days held in memory; the least recently used are rebuilt when asked again."""
_SAMPLED = 1_709_683_200.0
"""2024-03-06T00:00Z: the session before it stands for the making of all days in a market's mark."""


class DaySource(Protocol):
    """Where the minutes of a session come from."""

    @property
    def pad_s(self) -> int:
        """Seconds around regular hours in which there may be rows."""
        ...

    def build(self, one: Instrument, session: Session) -> SymbolDay: ...

    def previous_close(self, one: Instrument, session: Session) -> float: ...

    def split_factor(self, symbol: str, session: Session) -> float: ...


class Market:
    """A pure function of its configuration: equal calls give equal answers, for ever."""

    def __init__(
        self,
        universe: Universe,
        days: DaySource,
        session: Session,
        *,
        splits: Sequence[SplitSpec] = (),
        notes: Sequence[str] = (),
    ) -> None:
        self.universe = universe
        self.session = session
        """The session of the run, on the calendar that most symbols follow."""
        self.notes = notes
        """What was inferred and should be printed."""
        self._source = days
        self._splits: dict[str, list[SplitSpec]] = {}
        for split in splits:
            self._splits.setdefault(split.symbol, []).append(split)
        self._day = lru_cache(maxsize=_DAYS_KEPT)(days.build)
        self._previous_close = lru_cache(maxsize=_DAYS_KEPT)(days.previous_close)

    @property
    def calendar(self) -> Sessions:
        """The calendar that most symbols follow."""
        return self.universe.calendars()[0]

    def day(self, one: Instrument, session: Session) -> SymbolDay:
        """The minutes of one session."""
        return self._day(one, session)

    def days(self, one: Instrument, start: float, end: float) -> Iterator[SymbolDay]:
        """The sessions that may have rows starting in ``[start, end)``, oldest first."""
        pad = self._source.pad_s
        for session in one.sessions.between(start - pad, end + pad):
            yield self._day(one, session)

    def bar(self, symbol: str, minute: int, at: float) -> BarVersion | None:
        """What a perfect collector knows at ``at`` of the minute that starts at ``minute``.

        None: unknown symbol, no such minute, or no trade known yet. While the minute runs, its
        partial bar.
        """
        found = self._find(symbol, minute)
        return found[0].version_at(found[1], at) if found else None

    def versions(self, symbol: str, minute: int) -> list[BarVersion]:
        """Every version of a minute's bar, also those still to come; empty when it never traded."""
        found = self._find(symbol, minute)
        return found[0].versions(found[1]) if found else []

    def quote(self, one: Instrument, at: float) -> MarketQuote | None:
        """The quote at ``at``; None before the first known session."""
        session = one.sessions.started(at)
        if session is None:
            return None
        before = one.sessions.before(session) or session
        previous = self._previous_close(one, session), before.close + 1
        return quote_at(one, self._day(one, session), previous, at)

    def previous_close(self, one: Instrument, session: Session) -> float:
        """The official close before a session."""
        return self._previous_close(one, session)

    def split_factor(self, symbol: str, session: Session) -> float:
        """New shares for one share of the beginning, at that session."""
        return self._source.split_factor(symbol, session)

    def splits_of(self, symbol: str) -> Sequence[SplitSpec]:
        """The splits of a symbol, whenever they are."""
        return self._splits.get(symbol, ())

    def split_on(self, symbol: str, session: Session) -> float:
        """New shares for one old share from this session's open on, 1 where it brings no split."""
        ratio = 1.0
        for split in self.splits_of(symbol):
            if split.session == session.day:
                ratio *= split.ratio
        return ratio

    def mark(self, config: MarketConfig) -> str:
        """Equal for markets that have equal bars, on whatever day they were started.

        A day of one symbol is in it, so that a market whose making has changed is another one.
        """
        # The day of the run decides nothing but where the HH:MM of a halt lies.
        facts = {**asdict(config), "session": self.session.day if config.halts else None}
        listed = [(one.symbol, one.tier.value, one.exchange) for one in self.universe.instruments]
        first = self.universe.instruments[0]
        sample = self.day(first, first.sessions.started(_SAMPLED) or self.session)
        rows = [sample.versions(row) for row in range(len(sample.minutes))]
        return f"{key_of(facts, listed, rows):016x}"

    def _find(self, symbol: str, minute: int) -> tuple[SymbolDay, int] | None:
        one = self.universe.get(symbol)
        if one is None:
            return None
        for day in self.days(one, minute, minute + MINUTE):
            row = day.row_of(minute)
            if row is not None:
                return day, row
        return None


def build_market(config: MarketConfig, now: float) -> Market:
    """Make the market that a config describes; ``now`` (market epoch) chooses the session where none is named.

    Raises:
        SettingsError: the session is no trading day, or the folder does not hold what it should.
    """
    if config.kind == "csv":
        universe, day, notes = csv_universe(config)
        main = universe.calendars()[0]
        session = _session_on(main, day)
        if config.dir is None:
            raise SettingsError("a csv market needs its folder")
        return Market(
            universe,
            CsvDays(config.dir, _halts(config.halts, session)),
            session,
            notes=notes,
        )
    universe = seeded_universe(config)
    if not universe.instruments:
        raise SettingsError(
            "the market has no symbols; expected at least one in market.symbols or market.universe"
        )
    main = universe.calendars()[0]
    session = _session_on(main, config.session) if config.session else main.current_or_next(now)
    if session is None:
        raise SettingsError(f"calendar {main.code} knows no session at or after the market's now")
    _check_symbols(universe, config)
    return Market(
        universe,
        SeededDays(config, _halts(config.halts, session)),
        session,
        splits=config.splits,
    )


def instant(text: str, session: Session) -> float:
    """Epoch seconds of ``HH:MM[:SS]`` (UTC, within the session's extended day) or of an ISO instant."""
    if "T" in text or " " in text or "-" in text:
        return datetime.fromisoformat(text).timestamp()
    clock = time.fromisoformat(text)
    on_day = datetime.combine(session.day, clock, ZoneInfo("UTC")).timestamp()
    # A session's UTC day can differ from its date: take the day that lies nearest to its hours.
    middle = (session.open + session.close) / 2
    return min(
        (on_day + shift for shift in (0, 86_400, -86_400)), key=lambda stamp: abs(stamp - middle)
    )


def _session_on(sessions: Sessions, day: date) -> Session:
    session = sessions.on(day)
    if session is None:
        raise SettingsError(f"{day} is no session of {sessions.code}; choose a trading day")
    return session


def _halts(
    specs: Sequence[HaltSpec], session: Session
) -> Mapping[str, Sequence[tuple[float, float]]]:
    halts: dict[str, list[tuple[float, float]]] = {}
    for spec in specs:
        start = instant(spec.start, session)
        halts.setdefault(spec.symbol, []).append((start, start + spec.minutes * 60))
    return halts


def _check_symbols(universe: Universe, config: MarketConfig) -> None:
    named = {spec.symbol for spec in config.splits} | {spec.symbol for spec in config.halts}
    unknown = sorted(symbol for symbol in named if universe.get(symbol) is None)
    if unknown:
        raise SettingsError(
            f"splits or halts name {', '.join(unknown)}; the market has no such symbol"
        )
