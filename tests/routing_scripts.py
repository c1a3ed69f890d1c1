"""The scripts of routing with a clock of the test's own."""

from pathlib import Path
from typing import Any

import redis

import routing.state

LUA = Path(routing.state.__file__).parent / "lua"
_NOW = "test:now"
_FAKE = {
    "market": f"real_now = function() return tonumber(redis.call('GET', '{_NOW}')) end",
    "circuit": f"now_ms = function() return tonumber(redis.call('GET', '{_NOW}')) end",
}


class Scripts:
    """Runs one script at instants that the test sets, in the script's own unit."""

    def __init__(self, url: str, prelude: str, name: str) -> None:
        self.redis = redis.Redis.from_url(url, decode_responses=True)
        texts = [
            (LUA / f"{prelude}.lua").read_text(),
            _FAKE[prelude],
            (LUA / f"{name}.lua").read_text(),
        ]
        self._script = self.redis.register_script("\n".join(texts))

    def at(self, now: float, keys: list[str], args: list[Any]) -> Any:
        self.redis.set(_NOW, f"{now:.0f}")
        return self._script(keys=keys, args=args)
