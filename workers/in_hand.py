"""How many bars a batch may hold: what bounds the memory of a worker.

A session of a hundred symbols is 39,000 bars, 11 MB if held at once, and the interpreter keeps what its
objects once took.
"""

from collections.abc import Mapping
from typing import Final

from core.words import Share

MOST_BARS: Final[Mapping[Share, int]] = {Share.LIVE: 500, Share.BACKFILL: 4_000}
"""Bars on the wire or not yet taken, beyond which a batch begins no call; and bars it writes at once.

A live batch of 100 symbols asks for some 200; whole sessions, asked again after the close, have time.
Backfill is to use what the budget gives: at 0.1 s a call 4,000 bars are more than one process can parse.
"""
