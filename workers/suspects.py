"""Symbols whose answer may kill the process that reads it, found and left out of live batches.

A crash in native code, memory that runs out or a batch that hangs says nothing of which symbol it was.
A symbol whose batches died twice in a row is doubted: it is asked alone, one such symbol at a time in a
process, after the rest of its batch. Doubts end with the first answer. A symbol that was on trial at two
deaths is left out of live batches for an hour; its bars are gaps then, whose backfill rows go alone and
are parked with the reason (``db.backfill``).

Key ``gapless:suspects``: a hash, ``<capability>|<symbol>`` -> "deaths trials until", ``until`` in seconds
of the server's clock. Redis holds hints: what is forgotten is learnt again from the next deaths.
"""

import logging
import threading
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final, cast

from redis import Redis
from redis.exceptions import RedisError

from core.errors import QueueError
from core.words import Capability

log = logging.getLogger(__name__)

DOUBTED: Final = 2
"""Deaths in a row from which on a symbol is asked alone."""
TRIALS: Final = 2
"""Trials that ended in a death, after which a symbol is left out."""
DOUBT_S: Final = 600
"""Real seconds after the last death for which it is remembered."""
LEFT_OUT_S: Final = 3600
"""Real seconds for which a symbol is left out."""
_KEY: Final = "gapless:suspects"

_COUNT = """
-- KEYS: 1 = gapless:suspects
-- ARGV: 1 = deaths to add, 2 = trials to add, 3 = deaths and 4 = trials from which on it is left out,
-- 5 = seconds of doubt, 6 = seconds left out, then the fields
local now = tonumber(redis.call('TIME')[1])
for i = 7, #ARGV do
  local deaths, trials, stood_s = 0, 0, 0
  local stood = redis.call('HGET', KEYS[1], ARGV[i])
  if stood then
    local d, t, u = string.match(stood, '^(%d+) (%d+) (%d+)$')
    if u and tonumber(u) > now then
      deaths, trials, stood_s = tonumber(d), tonumber(t), tonumber(u)
    end
  end
  deaths = deaths + ARGV[1]
  trials = trials + ARGV[2]
  local out = deaths >= tonumber(ARGV[3]) and trials >= tonumber(ARGV[4])
  local until_s = math.max(stood_s, now + (out and ARGV[6] or ARGV[5]))
  redis.call('HSET', KEYS[1], ARGV[i], string.format('%d %d %d', deaths, trials, until_s))
end
redis.call('EXPIRE', KEYS[1], 2 * ARGV[6])
return 0
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """The symbols of a batch by what is known of them; each is in one of the first three."""

    free: tuple[str, ...]
    """In the batch's order."""
    doubted: tuple[str, ...] = ()
    """To be asked alone, the likeliest culprit last."""
    left_out: tuple[str, ...] = ()
    """Not to be asked."""
    once: tuple[str, ...] = ()
    """Those of the free whose last batch died; their next answer clears them."""


class Suspects:
    """What the fleet knows of them; one instance a process, thread-safe."""

    def __init__(self, redis: Redis) -> None:
        self._redis = cast("Any", redis)
        self._count = redis.register_script(_COUNT)
        self._turn = threading.Lock()

    def died(self, capability: Capability, symbols: Collection[str]) -> None:
        """Note that the process died, or hung, while it asked for these.

        Raises:
            RedisError: as it comes.
        """
        self._add(capability, symbols, deaths=1)

    def clear(self, capability: Capability, symbols: Collection[str]) -> None:
        """Note that these were asked for and the process lives; a lost Redis is no matter."""
        if not symbols:
            return
        try:
            self._redis.hdel(_KEY, *(_field(capability, symbol) for symbol in symbols))
        except RedisError as error:
            log.debug("doubts not cleared: %s", error)

    def look(self, capability: Capability, symbols: Sequence[str]) -> Standing:
        """Sort a batch; with Redis lost nobody is doubted."""
        try:
            # Nearly always there is nothing, and one short question is all that a batch pays.
            if not self._redis.exists(_KEY):
                return Standing(tuple(symbols))
            with self._redis.pipeline(transaction=False) as pipe:
                pipe.time()
                pipe.hmget(_KEY, [_field(capability, symbol) for symbol in symbols])
                (now, _), stood = pipe.execute()
        except RedisError as error:
            log.debug("doubts not read: %s", error)
            return Standing(tuple(symbols))
        free: list[str] = []
        once: list[str] = []
        doubted: list[tuple[int, int, str]] = []
        left_out: list[str] = []
        for symbol, value in zip(symbols, stood, strict=True):
            deaths, trials, until_s = map(int, value.split()) if value else (0, 0, 0)
            if until_s <= now or deaths < DOUBTED:
                free.append(symbol)
                if value:
                    once.append(symbol)
            elif _is_out(deaths, trials):
                left_out.append(symbol)
            else:
                doubted.append((trials, deaths, symbol))
        doubted.sort(key=itemgetter(0, 1))
        return Standing(
            tuple(free), tuple(symbol for _, _, symbol in doubted), tuple(left_out), tuple(once)
        )

    @contextmanager
    def trial(self, capability: Capability, symbol: str, patience_s: float) -> Generator[bool]:
        """Whether a doubted symbol may be asked now, alone; who survives the block is cleared.

        Args:
            capability: What it is asked for.
            symbol: Which.
            patience_s: Real seconds to wait for another trial in this process.
        """
        if not self._turn.acquire(timeout=max(0.0, patience_s)):
            yield False
            return
        try:
            try:
                self._add(capability, [symbol], trials=1)
            except RedisError as error:
                # A death that nobody connects with the symbol would be in vain.
                log.debug("trial put off: %s", error)
                yield False
                return
            try:
                yield True
            finally:
                self.clear(capability, [symbol])
        finally:
            self._turn.release()

    def all_left_out(self) -> dict[Capability, dict[str, float]]:
        """Symbols left out of live batches -> real seconds until they are asked again.

        Raises:
            QueueError: Redis can't be used.
        """
        found: dict[Capability, dict[str, float]] = {}
        try:
            now = self._redis.time()[0]
            stood = self._redis.hgetall(_KEY)
        except RedisError as error:
            raise QueueError(f"can't read from Redis who is left out: {error}") from error
        for field, value in sorted(stood.items()):
            deaths, trials, until_s = map(int, value.split())
            if until_s > now and _is_out(deaths, trials):
                capability, _, symbol = field.decode().partition("|")
                found.setdefault(Capability(capability), {})[symbol] = until_s - now
        return found

    def _add(
        self, capability: Capability, symbols: Collection[str], *, deaths: int = 0, trials: int = 0
    ) -> None:
        limits = [DOUBTED + TRIALS, TRIALS, DOUBT_S, LEFT_OUT_S]
        fields = [_field(capability, symbol) for symbol in symbols]
        self._count(keys=[_KEY], args=[deaths, trials, *limits, *fields])


def _is_out(deaths: int, trials: int) -> bool:
    """Every trial's death was noted: one that is still going on condemns nobody."""
    return deaths >= DOUBTED + TRIALS and trials >= TRIALS


def _field(capability: Capability, symbol: str) -> str:
    return f"{capability}|{symbol}"
