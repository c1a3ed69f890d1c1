"""The only Redis access of routing: atomic scripts that never block a call for long.

A failure to reach Redis is remembered for ``_REST_S``, so that an outage costs one short timeout now
and then instead of one for each call. Nothing is sent twice: a script whose reply was lost may have
run, which callers take for granted.
"""

import hashlib
import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import orjson
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry

from core.clock import Clock, Segment
from core.errors import QueueError
from core.words import Capability

log = logging.getLogger(__name__)

_LUA = Path(__file__).parent / "lua"
_SCRIPTS = {
    "lease": ("market", "lease"),
    "fill": ("market", "fill"),
    "throttle": ("market", "throttle"),
    "sync": ("circuit", "sync"),
    "probe": ("circuit", "probe"),
}
"""Script -> the files that it is made of."""
_CONNECT_S = 0.04
_ANSWER_S = 0.07
_REST_S = 0.25
_SEGMENTS_SENT = 16
_IDLE = 4
"""Connections kept; a script takes 0.2 ms, so more are busy at once only where a process is overloaded."""


@dataclass(frozen=True, slots=True)
class LastWords:
    """The last good answer and the last error of a source, as long as Redis remembers them: two days."""

    answer_s: float | None = None
    """Real seconds since the last good answer; None: none."""
    error: str = ""
    error_s: float | None = None
    """Real seconds since the last error."""


class RoutingState:
    """Runs the scripts of ``routing/lua`` on connections of its own with short timeouts.

    Keys begin with ``gapless:{routing}:<era>:``. The era keeps a replay's budgets apart from the
    system clock's and from another replay's; the braces keep a script's keys in one cluster slot.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        self._clock = clock
        self._redis = Redis.from_url(  # pyright: ignore[reportUnknownMemberType] - its **kwargs
            url,
            socket_timeout=_ANSWER_S,
            socket_connect_timeout=_CONNECT_S,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
            protocol=2,
            driver_info=None,
        )
        texts = {
            name: "\n".join((_LUA / f"{part}.lua").read_text(encoding="utf-8") for part in parts)
            for name, parts in _SCRIPTS.items()
        }
        self._scripts = {
            name: (hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), text)
            for name, text in texts.items()
        }
        self._idle: deque[Any] = deque()
        """Connections that nobody uses; the last one back goes first. redis-py's own pool asks the kernel
        at every turn whether a connection still lives, which costs more than the call itself."""
        segments = clock.segments()
        era = f"replay-{int(segments[0].real_start)}" if segments else "system"
        self._prefix = f"gapless:{{routing}}:{era}:"
        self._segments: tuple[tuple[Segment, ...], bytes] = ((), b"[]")
        self._away_until = 0.0
        self._was_away = False
        self._lock = threading.Lock()

    @property
    def away(self) -> bool:
        """Whether Redis did not answer a moment ago."""
        return self._clock.monotonic() < self._away_until

    @property
    def rest_s(self) -> float:
        """Real seconds after which Redis is tried again."""
        return max(0.0, self._away_until - self._clock.monotonic())

    def key(self, kind: str, *names: str) -> str:
        """``pair``, ``budget``, ``throttle`` or ``retries`` in this era."""
        return self._prefix + ":".join((kind, *names))

    def pair_key(self, source: str, capability: Capability) -> str:
        """Where the breaker and the health of a source and capability live."""
        return self.key("pair", source, capability)

    def segments(self) -> bytes:
        """The replay's newest segments as the scripts take them: microseconds, JSON."""
        segments = self._clock.segments()
        known, text = self._segments
        if segments is not known:
            rows = [
                (round(s.real_start * 1e6), round(s.market_start * 1e6), s.speed)
                for s in segments[-_SEGMENTS_SENT:]
            ]
            text = orjson.dumps(rows)
            self._segments = (segments, text)
        return text

    def run(self, name: str, keys: Sequence[str], args: Sequence[str | bytes | int | float]) -> Any:
        """Run one script.

        Raises:
            QueueError: Redis does not answer now; decide on what is known here.
        """
        if self.away:
            raise QueueError("Redis did not answer a moment ago")
        try:
            answer = self._evaluate(*self._scripts[name], keys, args)
        except (RedisError, OSError) as error:
            self._note_away(error)
            raise QueueError(f"Redis does not answer the router: {error}") from error
        if self._was_away:
            self._note_back()
        return answer

    def last_words(self, keys: Sequence[str]) -> list[LastWords]:
        """What each pair's source said last, good and bad.

        Raises:
            QueueError: Redis does not answer now.
        """
        client = cast("Any", self._redis)
        try:
            with client.pipeline(transaction=False) as pipe:
                pipe.time()
                for key in keys:
                    pipe.hmget(key, "ok", "error", "error_at")
                (seconds, micros), *rows = pipe.execute()
        except (RedisError, OSError) as error:
            self._note_away(error)
            raise QueueError(f"Redis does not answer the router: {error}") from error
        now_ms = int(seconds) * 1000 + int(micros) / 1000

        def ago_s(at: str | None) -> float | None:
            return (now_ms - float(at)) / 1000 if at else None

        return [LastWords(ago_s(ok), text or "", ago_s(at)) for ok, text, at in rows]

    def close(self) -> None:
        """Close the connections."""
        self._drop_idle()
        self._redis.close()

    def _evaluate(
        self,
        sha: str,
        text: str,
        keys: Sequence[str],
        args: Sequence[str | bytes | int | float],
    ) -> Any:
        try:
            conn = self._idle.pop()
        except IndexError:
            conn = cast("Any", self._redis.connection_pool).make_connection()
        try:
            try:
                answer = _ask(conn, "EVALSHA", sha, len(keys), *keys, *args)
            except NoScriptError:
                answer = _ask(conn, "EVAL", text, len(keys), *keys, *args)
        except BaseException:
            # What is on its way on it is nobody's answer any more; the others died with it, if it died.
            conn.disconnect()
            self._drop_idle()
            raise
        if len(self._idle) < _IDLE:
            self._idle.append(conn)
        else:
            # Left over from a moment when many asked at once.
            conn.disconnect()
        return answer

    def _drop_idle(self) -> None:
        while self._idle:
            try:
                self._idle.pop().disconnect()
            except IndexError:
                return

    def _note_away(self, error: Exception) -> None:
        with self._lock:
            self._away_until = self._clock.monotonic() + _REST_S
            news, self._was_away = not self._was_away, True
        if news:
            log.warning("routing state is unreachable", extra={"reason": str(error)})

    def _note_back(self) -> None:
        with self._lock:
            news, self._was_away = self._was_away, False
        if news:
            log.info("routing state is reachable again")


def _ask(conn: Any, *words: str | bytes | int | float) -> Any:
    conn.send_packed_command(conn.pack_command(*words), check_health=False)
    return conn.read_response()
