"""What a new answer adds to what is stored: the rules of revisions, pure.

An identical bar adds nothing. An unknown volume, vwap or trade count (None) never replaces a known
one of a closed bar. The first closed version is final, any later different one revised; a partial
never replaces a closed version.
"""

from dataclasses import replace
from datetime import datetime
from typing import Any

from core.bars import Bar
from core.words import Status

Values = tuple[float, float, float, float, float | None, float | None, int | None]
"""open, high, low, close, volume, vwap, trade_count."""

_PARTIAL, _FINAL, _REVISED, _WITHDRAWN = (int(status) for status in Status)


def decide(
    stored_status: int,
    stored_asked_at: datetime,
    stored: tuple[Any, ...],
    bar: Bar,
    asked_at: datetime,
) -> tuple[int, Values] | None:
    """The version to add beside the newest stored one, None when there is nothing new.

    Args:
        stored_status: Status of the newest stored version.
        stored_asked_at: When that version was asked for.
        stored: Its ``Values``; all None for a tombstone.
        bar: The bar as answered now.
        asked_at: When it was asked for; an older ask than the stored one knows nothing newer.
    """
    if asked_at < stored_asked_at:
        return None
    values = (
        bar.open,
        bar.high,
        bar.low,
        bar.close,
        bar.volume,
        bar.vwap,
        bar.trade_count,
    )
    if stored_status == _PARTIAL and not bar.partial:
        # The numbers of an open bar say nothing about the closed one, not even where that is silent.
        return _FINAL, values
    if bar.partial and stored_status != _PARTIAL:
        return None
    if values == stored:
        return None
    if None in values[4:]:
        volume, vwap, trades = stored[4:]
        values = (
            *values[:4],
            volume if bar.volume is None else bar.volume,
            vwap if bar.vwap is None else bar.vwap,
            trades if bar.trade_count is None else bar.trade_count,
        )
        if values == stored:
            return None
    return (_PARTIAL if bar.partial else _REVISED), values


def combine(earlier: Bar, later: Bar) -> Bar:
    """One bar of two answers to the same minute in one batch: the later, unless only the earlier is closed."""
    if later.partial != earlier.partial:
        return earlier if later.partial else later
    return replace(
        later,
        volume=earlier.volume if later.volume is None else later.volume,
        vwap=earlier.vwap if later.vwap is None else later.vwap,
        trade_count=earlier.trade_count if later.trade_count is None else later.trade_count,
    )
