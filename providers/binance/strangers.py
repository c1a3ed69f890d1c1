"""Symbols that Binance does not know: it refuses a whole list for one of them."""

import re
import threading
from collections.abc import Sequence

from core.clock import Clock

_ORDINARY = re.compile(r"[A-Z0-9._-]{1,20}")
"""What Binance takes for a symbol."""
_STRANGER_S = 3600.0
"""Real seconds after which a symbol that was unknown is asked for again: it may be listed now."""


class Strangers:
    """Symbols that Binance does not know, as found out by this process; thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._suspects: set[str] = set()
        """Of refused lists."""
        self._until: dict[str, float] = {}
        """Stranger -> monotonic second after which it is asked for again."""

    def without(self, symbols: Sequence[str]) -> tuple[str, ...]:
        """The symbols that a list may hold; all of them where it may hold none."""
        now = self._clock.monotonic()
        with self._lock:
            kept = tuple(
                symbol
                for symbol in symbols
                if _ORDINARY.fullmatch(symbol) and self._until.get(symbol, now) <= now
            )
        return kept or tuple(symbols)

    def suspected(self, symbols: Sequence[str]) -> bool:
        """Whether one of them was in a refused list, so that a list may be refused again."""
        with self._lock:
            return len(symbols) > 1 and not self._suspects.isdisjoint(symbols)

    def refused(self, symbols: Sequence[str]) -> None:
        """A list of these was refused."""
        with self._lock:
            if len(symbols) > 1:
                self._suspects.update(symbols)
            else:
                self._until[symbols[0]] = self._clock.monotonic() + _STRANGER_S

    def seen(self, symbols: Sequence[str], body: bytes) -> None:
        """The whole book came: who is not in it is a stranger."""
        until = self._clock.monotonic() + _STRANGER_S
        absent = [symbol for symbol in symbols if f'"{symbol}"'.encode() not in body]
        with self._lock:
            self._suspects.difference_update(symbols)
            self._until.update(dict.fromkeys(absent, until))
