"""The only Redis access of routing: scripts that never block a call for long.

A failure to reach Redis is remembered for ``_REST_S``, so that an outage costs one short timeout
now and then instead of one for each call.
"""

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.exceptions import RedisError
from redis.retry import Retry

from core.clock import Clock
from core.errors import QueueError

log = logging.getLogger(__name__)

_LUA = Path(__file__).parent / "lua"
_TIMEOUT_S = 0.08
_REST_S = 0.25


class RoutingState:
    """Runs the scripts of ``routing/lua`` on a connection of its own with short timeouts."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._clock = clock
        self._redis = Redis.from_url(  # pyright: ignore[reportUnknownMemberType] - its **kwargs
            url,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )
        names = ("lease", "decide", "report", "health", "throttle", "retries", "entitle")
        self._scripts: dict[str, Script] = {
            name: self._redis.register_script((_LUA / f"{name}.lua").read_text()) for name in names
        }
        self._down_until = 0.0
        self._was_down = False
        self._lock = threading.Lock()

    def run(self, name: str, keys: Sequence[str], args: Sequence[str | int | float]) -> Any:
        """Run one script.

        Raises:
            QueueError: Redis does not answer now; decide on what is known locally.
        """
        if self._clock.monotonic() < self._down_until:
            raise QueueError("Redis did not answer a moment ago")
        try:
            answer = self._scripts[name](keys=list(keys), args=list(args))
        except (RedisError, OSError) as error:
            self._note_down(error)
            raise QueueError(f"Redis does not answer the router: {error}") from error
        if self._was_down:
            self._was_down = False
            log.info("routing state is reachable again")
        return answer

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def _note_down(self, error: Exception) -> None:
        with self._lock:
            self._down_until = self._clock.monotonic() + _REST_S
            if not self._was_down:
                self._was_down = True
                log.warning("routing state is unreachable", extra={"reason": str(error)})
