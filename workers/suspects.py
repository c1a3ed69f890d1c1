"""Symbols whose answer may kill the process that reads it, found and left out of live batches.

A crash in native code, memory that runs out or a batch that hangs says nothing of which symbol it was.
A symbol whose batches died twice in a row is doubted: it is asked alone, one such symbol at a time in a
process, after the rest of its batch. Doubts end when it was asked and the process lives. A symbol that
was on trial at two deaths is left out for an hour: live batches don't ask for it, its backfill rows fail
with the reason.

Key ``gapless:suspects``: a hash, ``<family>|<symbol>`` -> JSON with ``deaths``, ``trials``, ``until`` and
``last`` in seconds of the server's clock, and the words of the last death and trial. Redis holds hints:
what is forgotten is learnt again from the next deaths.
"""

import logging
import threading
import uuid
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final, cast

import orjson
from redis import Redis
from redis.exceptions import RedisError

from core.errors import QueueError
from workers.queues import DEATHS_ON_TRIAL, DEATHS_TO_DOUBT, CollectJob

log = logging.getLogger(__name__)

DOUBT_S: Final = 1800
"""Real seconds after the last death for which it is remembered; two batches of 10 minutes may hang in it."""
LEFT_OUT_S: Final = 3600
"""Real seconds for which a symbol is left out."""
SAME_S: Final = 5
"""Real seconds within which deaths of several jobs with a symbol are one: a process ran them all."""
_KEY: Final = "gapless:suspects"

_COUNT = """
-- KEYS: 1 = gapless:suspects
-- ARGV: 1 = death, trial or withdraw, 2 = its word: the same word counts once, 3 = deaths and 4 = trials from
-- which on a symbol is left out, 5 = seconds of doubt, 6 = seconds left out, 7 = seconds within which deaths are
-- one, then the fields
local what, word, now = ARGV[1], ARGV[2], tonumber(redis.call('TIME')[1])
local function number(value) return tonumber(value) or 0 end
for i = 8, #ARGV do
  local known, one = pcall(cjson.decode, redis.call('HGET', KEYS[1], ARGV[i]) or '')
  if not known or type(one) ~= 'table' or number(one['until']) <= now then one = {} end
  local deaths, trials, counts = number(one.deaths), number(one.trials), false
  local function out() return deaths >= tonumber(ARGV[3]) and trials >= tonumber(ARGV[4]) end
  if what == 'death' then
    -- Nobody asked for one that is left out: it is no witness.
    if not out() and one.death ~= word and now - number(one.last) >= tonumber(ARGV[7]) then
      deaths, one.death, one.last, counts = deaths + 1, word, now, true
    end
  elseif what == 'trial' and one.trial ~= word then
    trials, one.trial, counts = trials + 1, word, true
  elseif what == 'withdraw' and one.trial == word then
    trials, one.trial, counts = trials - 1, nil, true
  end
  if counts then
    one.deaths, one.trials = deaths, trials
    one['until'] = math.max(number(one['until']), now + (out() and ARGV[6] or ARGV[5]))
    redis.call('HSET', KEYS[1], ARGV[i], cjson.encode(one))
  end
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
    """Those of the free whose last batch died; the next ask that they survive clears them."""


@dataclass(slots=True)
class Trial:
    """One doubted symbol's turn."""

    begun: bool
    """Whether it may be asked now."""
    asked: bool = False
    """Set it when a source was asked: who was not is neither cleared nor condemned."""
    word: str = field(default_factory=lambda: uuid.uuid4().hex)


class Suspects:
    """What the fleet knows of them; one instance a process, thread-safe."""

    def __init__(self, redis: Redis) -> None:
        self._redis = cast("Any", redis)
        self._count = redis.register_script(_COUNT)
        self._turn = threading.Lock()

    def died(self, family: str, symbols: Collection[str], word: str) -> None:
        """Note that the process died, or hung, while it asked for these.

        Args:
            family: From ``family``.
            symbols: All of the batch.
            word: Names the death; the same word again changes nothing.

        Raises:
            RedisError: as it comes.
        """
        self._note("death", word, family, symbols)

    def clear(self, family: str, symbols: Collection[str]) -> None:
        """Note that these were asked for and the process lives; a lost Redis is no matter."""
        if not symbols:
            return
        try:
            self._redis.hdel(_KEY, *(f"{family}|{symbol}" for symbol in symbols))
        except RedisError as error:
            log.debug("doubts not cleared: %s", error)

    def look(self, family: str, symbols: Sequence[str]) -> Standing:
        """Sort a batch; with Redis lost nobody is doubted."""
        try:
            # Nearly always there is nothing, and one short question is all that a batch pays.
            if not symbols or not self._redis.exists(_KEY):
                return Standing(tuple(symbols))
            with self._redis.pipeline(transaction=False) as pipe:
                pipe.time()
                pipe.hmget(_KEY, [f"{family}|{symbol}" for symbol in symbols])
                (now, _), stood = pipe.execute()
        except RedisError as error:
            log.debug("doubts not read: %s", error)
            return Standing(tuple(symbols))
        free: list[str] = []
        once: list[str] = []
        doubted: list[tuple[int, int, str]] = []
        left_out: list[str] = []
        for symbol, value in zip(symbols, stood, strict=True):
            deaths, trials, until_s = _read(value)
            if until_s <= now or deaths < DEATHS_TO_DOUBT:
                free.append(symbol)
                if value:
                    once.append(symbol)
            elif _is_out(deaths, trials):
                left_out.append(symbol)
            else:
                doubted.append((trials, deaths, symbol))
        doubted.sort(key=itemgetter(0, 1))
        alone = tuple(symbol for _, _, symbol in doubted)
        return Standing(tuple(free), alone, tuple(left_out), tuple(once))

    @contextmanager
    def turn(self, patience_s: float) -> Generator[bool]:
        """Whether it is the caller's turn to do what may kill this process; one at a time has it.

        Args:
            patience_s: Real seconds to wait for the one before.
        """
        mine = self._turn.acquire(timeout=max(0.0, patience_s))
        try:
            yield mine
        finally:
            if mine:
                self._turn.release()

    @contextmanager
    def trial(self, family: str, symbol: str, patience_s: float) -> Generator[Trial]:
        """A doubted symbol's turn to be asked alone; cleared at the end if it was asked.

        Args:
            family: From ``family``.
            symbol: Which.
            patience_s: Real seconds to wait for another trial in this process.
        """
        with self.turn(patience_s) as mine:
            trial = Trial(mine)
            if mine:
                try:
                    self._note("trial", trial.word, family, [symbol])
                except RedisError as error:
                    # A death that nobody connects with the symbol would be in vain.
                    log.debug("trial put off: %s", error)
                    trial.begun = False
            try:
                yield trial
            finally:
                if trial.asked:
                    self.clear(family, [symbol])
                elif trial.begun:
                    self._withdraw(family, symbol, trial)

    def all_left_out(self) -> dict[str, dict[str, float]]:
        """Symbols left out, by family -> real seconds until they are asked again.

        Raises:
            QueueError: Redis can't be used.
        """
        found: dict[str, dict[str, float]] = {}
        try:
            now = self._redis.time()[0]
            stood = self._redis.hgetall(_KEY)
        except RedisError as error:
            raise QueueError(f"can't read from Redis who is left out: {error}") from error
        for name, value in sorted(stood.items()):
            deaths, trials, until_s = _read(value)
            if until_s > now and _is_out(deaths, trials):
                of, _, symbol = name.decode(errors="replace").partition("|")
                found.setdefault(of, {})[symbol] = until_s - now
        return found

    def _withdraw(self, family: str, symbol: str, trial: Trial) -> None:
        try:
            self._note("withdraw", trial.word, family, [symbol])
        except RedisError as error:
            log.debug("trial not withdrawn: %s", error)

    def _note(self, what: str, word: str, family: str, symbols: Collection[str]) -> None:
        limits = [DEATHS_TO_DOUBT + DEATHS_ON_TRIAL, DEATHS_ON_TRIAL, DOUBT_S, LEFT_OUT_S, SAME_S]
        fields = [f"{family}|{symbol}" for symbol in symbols]
        self._count(keys=[_KEY], args=[what, word, *limits, *fields])


def family(job: CollectJob) -> str:
    """Batches whose answers are of a kind and a size: who survives one proves nothing about another."""
    return f"{job.kind}.elements" if job.inbox else str(job.kind)


def _is_out(deaths: int, trials: int) -> bool:
    """Every trial's death was noted: one that is still going on condemns nobody."""
    return deaths >= DEATHS_TO_DOUBT + DEATHS_ON_TRIAL and trials >= DEATHS_ON_TRIAL


def _read(value: bytes | None) -> tuple[int, int, int]:
    """Deaths, trials and until when they count; what can't be read says nothing."""
    try:
        one = orjson.loads(value or b"{}")
        return int(one.get("deaths", 0)), int(one.get("trials", 0)), int(one.get("until", 0))
    except (orjson.JSONDecodeError, AttributeError, TypeError, ValueError):
        return 0, 0, 0
