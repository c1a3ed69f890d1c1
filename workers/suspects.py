"""Symbols whose answer may kill the process that reads it, found and left out of live batches.

A crash in native code, memory that runs out or a batch that hangs says nothing of which symbol it was.
A symbol whose batches died twice in a row is doubted: it is on trial, one trial at a time in a process,
after the rest of its batch; first with a few others, then alone. Doubts end when an answer was read and
the process lives. A symbol that was on trial at two deaths is left out for an hour: live batches don't ask
for it, its backfill rows wait.

Key ``gapless:suspects``: a hash, ``<family>|<symbol>`` -> JSON with ``deaths``, how many of them on trial
(``trials``), ``until`` and ``last`` in seconds of the server's clock, the word of the last death, and that
of the trial that goes on. Redis holds hints: what is forgotten is learnt again from the next deaths.
"""

import logging
import threading
import uuid
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
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
TOGETHER: Final = 10
"""Symbols of a first trial: a batch that was killed by hand twice is not asked one by one."""
SAME_S: Final = 5
"""Real seconds within which deaths of several jobs with a symbol are one: a process ran them all."""
_OF_NOW: Final = timedelta(hours=1)
"""Market time: an element's window that ended later is of now."""
_KEY: Final = "gapless:suspects"

_COUNT = """
-- KEYS: 1 = gapless:suspects
-- ARGV: 1 = death, trial or withdraw, 2 = its word: a death's counts once, 3 = deaths and 4 = trials from which on
-- a symbol is left out, 5 = seconds of doubt, 6 = seconds left out, 7 = seconds within which deaths are one, then
-- the fields
local what, word, now = ARGV[1], ARGV[2], tonumber(redis.call('TIME')[1])
local function number(value) return tonumber(value) or 0 end
for i = 8, #ARGV do
  local known, one = pcall(cjson.decode, redis.call('HGET', KEYS[1], ARGV[i]) or '')
  -- What reaches further ahead than anything was written before the clock was put back.
  if not known or type(one) ~= 'table' or number(one['until']) <= now or number(one['until']) > now + ARGV[6] then
    one = {}
  end
  local deaths, trials, last, changed = number(one.deaths), number(one.trials), number(one.last), false
  local function out() return deaths >= tonumber(ARGV[3]) and trials >= tonumber(ARGV[4]) end
  if what == 'death' then
    -- Nobody asked for one that is left out: it is no witness.
    if not out() and one.death ~= word and (now - last >= tonumber(ARGV[7]) or last > now) then
      deaths = deaths + 1
      -- Of several only one was the cause: that alone condemns nobody, however often it happens.
      if one.trial then trials = one.together and math.max(trials, 1) or trials + 1 end
      one.deaths, one.trials, one.death, one.trial, one.last = deaths, trials, word, nil, now
      one['until'] = now + (out() and ARGV[6] or ARGV[5])
      changed = true
    end
  elseif what == 'trial' and deaths > 0 then
    one.trial, one.together, changed = word, #ARGV > 8, true
  elseif what == 'withdraw' and one.trial == word then
    one.trial, changed = nil, true
  end
  if changed then redis.call('HSET', KEYS[1], ARGV[i], cjson.encode(one)) end
end
redis.call('EXPIRE', KEYS[1], 2 * ARGV[6])
return 0
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """The symbols of a batch by what is known of them; each is in one of the first three."""

    free: tuple[str, ...]
    """In the batch's order."""
    doubted: tuple[tuple[str, ...], ...] = ()
    """To be asked after them, each group by itself, the likeliest culprit last."""
    left_out: Mapping[str, int] = field(default_factory=dict[str, int])
    """Not to be asked, with the real seconds until they are again."""
    once: frozenset[str] = frozenset()
    """Those of the free whose last batch died; the next answer clears them."""


class Trial:
    """The turn of a few doubted symbols."""

    def __init__(self, note: Callable[[], None], *, mine: bool) -> None:
        self.mine = mine
        """Whether they may be asked now."""
        self.survived: Collection[str] = ()
        """Set it to those whose answer was read to its end."""
        self.begun = False
        self._note = note
        self._guard = threading.Lock()

    def begin(self) -> None:
        """Call it before the first request for them leaves: until then a death is not theirs."""
        with self._guard:
            if self.begun:
                return
            self.begun = True
            try:
                self._note()
            except RedisError as error:
                log.debug("a trial that nobody will know of: %s", error)


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
        """Note that answers for these were read and the process lives; a lost Redis is no matter."""
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
        once: set[str] = set()
        left_out: dict[str, int] = {}
        together: list[str] = []
        alone: list[tuple[int, int, str]] = []
        for symbol, value in zip(symbols, stood, strict=True):
            deaths, trials, left_s = _read(value, now)
            if _is_out(deaths, trials):
                left_out[symbol] = left_s
            elif deaths < DEATHS_TO_DOUBT:
                free.append(symbol)
                if value:
                    once.add(symbol)
            elif trials:
                alone.append((trials, deaths, symbol))
            else:
                together.append(symbol)
        groups = [
            *(tuple(together[i : i + TOGETHER]) for i in range(0, len(together), TOGETHER)),
            *((symbol,) for _, _, symbol in sorted(alone, key=itemgetter(0, 1))),
        ]
        return Standing(tuple(free), tuple(groups), left_out, frozenset(once))

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
    def trial(self, family: str, symbols: Sequence[str], patience_s: float) -> Generator[Trial]:
        """The turn of doubted symbols; those that survived it are cleared at the end.

        Args:
            family: From ``family``.
            symbols: One of ``Standing.doubted``.
            patience_s: Real seconds to wait for another trial in this process.
        """
        word = uuid.uuid4().hex
        with self.turn(patience_s) as mine:
            trial = Trial(lambda: self._note("trial", word, family, symbols), mine=mine)
            try:
                yield trial
            finally:
                self.clear(family, trial.survived)
                rest = [symbol for symbol in symbols if symbol not in trial.survived]
                if trial.begun and rest:
                    self._withdraw(word, family, rest)

    def all_left_out(self) -> dict[str, dict[str, int]]:
        """Symbols left out, by family -> real seconds until they are asked again.

        Raises:
            QueueError: Redis can't be used.
        """
        found: dict[str, dict[str, int]] = {}
        try:
            now = self._redis.time()[0]
            stood = self._redis.hgetall(_KEY)
        except RedisError as error:
            raise QueueError(f"can't read from Redis who is left out: {error}") from error
        for name, value in sorted(stood.items()):
            deaths, trials, left_s = _read(value, now)
            if _is_out(deaths, trials):
                of, _, symbol = name.decode(errors="replace").partition("|")
                found.setdefault(of, {})[symbol] = left_s
        return found

    def _withdraw(self, word: str, family: str, symbols: Sequence[str]) -> None:
        try:
            self._note("withdraw", word, family, symbols)
        except RedisError as error:
            log.debug("trial not withdrawn: %s", error)

    def _note(self, what: str, word: str, family: str, symbols: Collection[str]) -> None:
        limits = [DEATHS_TO_DOUBT + DEATHS_ON_TRIAL, DEATHS_ON_TRIAL, DOUBT_S, LEFT_OUT_S, SAME_S]
        fields = [f"{family}|{symbol}" for symbol in symbols]
        self._count(keys=[_KEY], args=[what, word, *limits, *fields])


def family(job: CollectJob) -> str:
    """Batches whose answers are of a kind and a size: who survives one proves nothing about another."""
    if not job.inbox:
        return str(job.kind)
    name = f"{job.kind}.elements"
    if job.end is None or job.slot - job.end < _OF_NOW:
        return name
    # A bar of the past that kills is in the windows that contain it, whatever others hold.
    window = job.window
    return f"{name}.{window.start:%Y%m%dT%H%M}-{window.end:%Y%m%dT%H%M}"


def _is_out(deaths: int, trials: int) -> bool:
    return deaths >= DEATHS_TO_DOUBT + DEATHS_ON_TRIAL and trials >= DEATHS_ON_TRIAL


def _read(value: bytes | None, now: int) -> tuple[int, int, int]:
    """Deaths, trials and for how many seconds they count; what can't be read says nothing."""
    try:
        one = orjson.loads(value or b"{}")
        deaths, trials = int(one.get("deaths", 0)), int(one.get("trials", 0))
        left_s = int(one.get("until", 0)) - now
    except (orjson.JSONDecodeError, AttributeError, TypeError, ValueError):
        return 0, 0, 0
    return (deaths, trials, left_s) if 0 < left_s <= LEFT_OUT_S else (0, 0, 0)
