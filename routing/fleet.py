"""Keeps this process and the fleet of one mind about every source, in one round trip now and then.

What this process saw goes out and what all saw comes back, every ``_CALM_S`` real seconds, every
``_EVERY_S`` while a source fails or comes back, and only while calls are made; at once when the
breaker may have to move. Whoever ends a call makes the exchange, so that the next call does not wait
for it; only what is too old to go by is renewed before a call.
"""

import math
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from core.clock import Clock
from core.errors import QueueError
from routing import health, retry
from routing.circuit import RULES, Standing, State
from routing.health import Health
from routing.pair import Pair, View
from routing.retry import RetryBudget
from routing.state import RoutingState

_EVERY_S, _CALM_S, _BEFORE_S = 0.1, 0.5, 0.6
_LOOKED_S, _ALL_S = 10.0, 5.0
"""Pairs that nobody here looked at within so long are exchanged less often."""
_OLD_S = 1.0
"""A view older than this is worth waiting for."""
_USUAL_S = 300.0
_USUAL_LEAST = 20
_OFF_S = 6 * 3600.0
"""A capability that the plan does not include is asked for again after so many real seconds."""
_OFF_LEAST = 3
"""Refusals in a row that outweigh an earlier good answer."""

_RULES = orjson.dumps(
    {
        **RULES,
        "half_life_ms": health.HALF_LIFE_S * 1000,
        "weight": health.WEIGHT,
        "usual_ms": _USUAL_S * 1000,
        "usual_least": _USUAL_LEAST,
        "off_ms": _OFF_S * 1000,
        "off_least": _OFF_LEAST,
        "retry_share": retry.SHARE,
        "retry_floor": retry.FLOOR,
    }
)


class Fleet:
    """Exchanges all pairs of a process with Redis; thread-safe.

    Args:
        pairs: What this process knows.
        state: Redis.
        clock: Monotonic time.
        moved: Called with a pair whose breaker's state is another than before.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        state: RoutingState,
        clock: Clock,
        moved: Callable[[Pair], None],
    ) -> None:
        self._pairs = tuple(pairs)
        self._state = state
        self._clock = clock
        self._moved = moved
        self._keys = {
            id(pair): state.pair_key(pair.source, pair.capability) for pair in self._pairs
        }
        self._retries_key = state.key("retries")
        self._lock = threading.Lock()
        self._at = self._all_at = -math.inf
        self._every_s = _EVERY_S
        self.retries = RetryBudget(lambda wanted: self.exchange(retries=wanted))

    def refresh(self, now: float, *, before: bool = True) -> None:
        """Exchange if the last one is long enough ago; costs nothing otherwise.

        Args:
            now: Monotonic seconds.
            before: A call waits: what is known will do unless a source is failing or it is too old.
        """
        age = now - self._at
        if age < self._every_s or (before and age < _BEFORE_S and self._every_s == _CALM_S):
            return
        if self._lock.acquire(blocking=age >= _OLD_S and not self._state.away):
            try:
                if self._at < now:
                    self._exchange(0)
            finally:
                self._lock.release()

    def exchange(self, *, retries: int = 0, everything: bool = False) -> None:
        """Exchange now: something happened that the others should know, or retries are wanted.

        Args:
            retries: How many are wanted.
            everything: Of every pair, also those that nobody here looked at lately.
        """
        with self._lock:
            if everything:
                self._all_at = -math.inf
            self._exchange(retries)

    def look(self, pair: Pair, now: float) -> None:
        """A pair is about to be judged; one that nobody looked at for a while is asked about first."""
        unseen_s, pair.looked = now - pair.looked, now
        if unseen_s > _LOOKED_S and now - pair.view.at > _BEFORE_S and not self._state.away:
            self.exchange()

    def hurry(self) -> None:
        """Something failed: look more often for a while."""
        self._every_s = _EVERY_S

    def claim(self, pair: Pair, token: str, within_s: float) -> bool:
        """Become the fleet's one probe of a source; it is given up after ``within_s`` real seconds."""
        key = self._state.pair_key(pair.source, pair.capability)
        try:
            won = self._state.run("probe", [key], [_RULES, token, round(within_s * 1000)])
        except QueueError:
            return pair.claim_alone(self._clock.monotonic(), token, within_s)
        # Whoever lost sees on the next look who went.
        self._at = -math.inf
        return bool(won)

    def _exchange(self, retries: int) -> None:
        now = self._clock.monotonic()
        self._every_s = _EVERY_S
        if self._state.away:
            self._go_alone(now, self.retries.take_calls(), {})
            return
        pairs: Sequence[Pair] = self._pairs
        if now - self._all_at < _ALL_S:
            pairs = [pair for pair in pairs if now - pair.looked <= _LOOKED_S]
        else:
            self._all_at = now
        samples = [pair.take_samples() for pair in pairs]
        calls = self.retries.take_calls()
        args: list[str | bytes | int | float] = [_RULES, _jitter(), calls, retries]
        args += ["" if packed is None else orjson.dumps(packed) for packed in samples]
        try:
            keys = [self._retries_key, *(self._keys[id(pair)] for pair in pairs)]
            answer = self._state.run("sync", keys, args)
        except QueueError:
            unsent = {id(pair): packed for pair, packed in zip(pairs, samples, strict=True)}
            self._go_alone(self._clock.monotonic(), calls, unsent)
            return
        granted, rows = orjson.loads(answer)
        self.retries.exchanged(calls, int(granted))
        self._at = now = self._clock.monotonic()
        views = [_view(now, row) for row in rows]
        for pair, view in zip(pairs, views, strict=True):
            if pair.saw(view):
                self._moved(pair)
        if len(pairs) == len(self._pairs):
            self._compare_completeness()
        failed = any(packed and (packed["failed"] or packed["bad"]) for packed in samples)
        if not failed and all(view.standing.share >= 1 for view in views):
            self._every_s = _CALM_S

    def _compare_completeness(self) -> None:
        best = dict[str, float]()
        for pair in self._pairs:
            usual = pair.view.usual_completeness
            if usual is not None:
                best[pair.capability] = max(best.get(pair.capability, 0.0), usual)
        for pair in self._pairs:
            pair.best_completeness = best.get(pair.capability, 1.0)

    def _go_alone(
        self, now: float, calls: int, unsent: Mapping[int, Mapping[str, Any] | None]
    ) -> None:
        self.retries.exchanged(calls, None)
        self._at = now
        for pair in self._pairs:
            if pair.alone(now, unsent.get(id(pair))):
                self._moved(pair)


def _view(now: float, row: Sequence[Any]) -> View:
    """A row of ``lua/sync.lua``."""
    state, version, share, wait_ms, why, latency, errors, completeness, *rest = row
    usual_ms, usual_completeness, off_ms, off_why, calls = rest
    state = State(state)
    return View(
        at=now,
        standing=Standing(state, int(version), share, wait_ms, why),
        health=Health(health.breaker_term(state), latency, errors, completeness),
        usual_s=usual_ms / 1000 or None,
        usual_completeness=usual_completeness or None,
        off_s=off_ms / 1000,
        off_why=off_why,
        calls=calls,
    )


def _jitter() -> float:
    return random.random()  # noqa: S311 - spreads open times only


def rules() -> Mapping[str, Any]:
    """The constants that the scripts get."""
    return orjson.loads(_RULES)
