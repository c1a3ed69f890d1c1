"""Words of the command line, each refused with the words that exist."""

import argparse

from core.words import Interval, Tier

COLLECTED = (Interval.M1, Interval.D1)
"""Intervals that are asked of providers; the others are derived when read."""


def tier(text: str) -> Tier:
    """A tier word.

    Raises:
        argparse.ArgumentTypeError: with the words that exist.
    """
    if text not in Tier.__members__:
        raise argparse.ArgumentTypeError(f"tier {text!r} is unknown; expected T0, T1 or T2")
    return Tier(text)


def collected_interval(text: str) -> Interval:
    """An interval that providers are asked for.

    Raises:
        argparse.ArgumentTypeError: with the words that exist.
    """
    if text not in COLLECTED:
        raise argparse.ArgumentTypeError(
            f"interval {text!r} is not collected; expected {' or '.join(COLLECTED)}"
        )
    return Interval(text)


def counted(number: int, noun: str) -> str:
    """``1 row``, ``2 rows``, ``1,560 bars``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def interval(text: str) -> Interval:
    """An interval that can be read.

    Raises:
        argparse.ArgumentTypeError: with the words that exist.
    """
    try:
        return Interval(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"interval {text!r} is unknown; expected {', '.join(Interval)}"
        ) from None
