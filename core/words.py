"""Closed sets of words: tiers, intervals, capabilities, bar status."""

from datetime import timedelta
from enum import IntEnum, StrEnum


class Tier(StrEnum):
    """Importance class of a symbol; decides cadence, queue and who yields first."""

    T0 = "T0"
    T1 = "T1"
    T2 = "T2"


class Interval(StrEnum):
    """Length of a bar. ``1m`` and ``1d`` are collected, the others are derived from ``1m``."""

    M1 = "1m"
    M5 = "5m"
    M15 = "15m"
    H1 = "1h"
    D1 = "1d"

    @property
    def seconds(self) -> int:
        """Length in seconds; 86,400 for a daily bar, whatever its session's hours."""
        return _SECONDS[self]

    @property
    def delta(self) -> timedelta:
        """Length as a duration."""
        return timedelta(seconds=_SECONDS[self])


_SECONDS = {
    Interval.M1: 60,
    Interval.M5: 300,
    Interval.M15: 900,
    Interval.H1: 3600,
    Interval.D1: 86_400,
}


class Capability(StrEnum):
    """What a provider can be asked for."""

    BARS_1M = "bars_1m"
    BARS_EOD = "bars_eod"
    QUOTES_L1 = "quotes_l1"
    OPTIONS_CHAIN = "options_chain"

    @property
    def interval(self) -> Interval | None:
        """The interval of the bars it yields, None for what is not bars."""
        return {Capability.BARS_1M: Interval.M1, Capability.BARS_EOD: Interval.D1}.get(self)


class Status(IntEnum):
    """Closedness and change of a stored bar; says nothing of its quality."""

    PARTIAL = 0
    """Asked before bar_end: the bar could still grow."""
    FINAL = 1
    """The first version asked at or after bar_end."""
    REVISED = 2
    """Any later, different version."""
    WITHDRAWN = 3
    """A tombstone: the source no longer has the bar; prices are NULL."""


class Share(StrEnum):
    """Which share of a provider's budget a call draws on."""

    LIVE = "live"
    BACKFILL = "backfill"
