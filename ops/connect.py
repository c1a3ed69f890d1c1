"""From a person's shell to the right database: settings, then the stack that runs in this folder."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from core.errors import QueueError, UsageError
from core.log import mask_url
from core.settings import Settings, load
from db.clock import connect_clock
from db.pool import Database

STACK_FILE = "stack.json"


@dataclass(frozen=True, slots=True)
class StackInfo:
    """Where the stack that `ops up` or `ops demo --keep` started can be reached."""

    kind: str
    database_url: str
    redis_url: str
    sim_admin: str | None = None
    env: dict[str, str] | None = None
    """Settings that its processes run with and that a command must share (base URLs, policies)."""


def write_stack(home: Path, info: StackInfo) -> None:
    """Publish a running stack to the commands typed in the same folder; only the owner may read it."""
    path = home / STACK_FILE
    fresh = path.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_text(json.dumps(asdict(info)))
    fresh.replace(path)


def remove_stack(home: Path) -> None:
    """Forget the stack; safe when there is none."""
    (home / STACK_FILE).unlink(missing_ok=True)


def read_stack(home: Path) -> StackInfo | None:
    """The stack published in this folder, None when there is none."""
    path = home / STACK_FILE
    if not path.exists():
        return None
    return StackInfo(**json.loads(path.read_text()))


def settings() -> Settings:
    """Settings from the environment and ``.env``; URLs that neither names come from the local stack."""
    found = load()
    stack = read_stack(Path(found.gapless_home))
    if stack is None:
        return found
    local = {"database_url": stack.database_url, "redis_url": stack.redis_url} | (stack.env or {})
    overrides: dict[str, Any] = {}
    for key, value in local.items():
        name, _, inner = key.lower().partition("__")
        if inner:
            overrides.setdefault(name, {})[inner] = value
        elif name not in found.model_fields_set:
            overrides[name] = value
    return load(overrides=overrides)


@contextmanager
def database(config: Settings | None = None) -> Generator[Database]:
    """The database on its own clock, closed at the end.

    Raises:
        StorageError: with the mend, when it can't be reached or refuses the password.
    """
    config = config or settings()
    clock = connect_clock(config.database_url)
    db = Database(config.database_url, clock, max_size=2, application="gapless-ops")
    try:
        yield db
    finally:
        db.close()


def redis_client(url: str) -> Redis:
    """A client that answers or fails within a second.

    Raises:
        QueueError: when nobody answers there.
    """
    client = Redis.from_url(  # pyright: ignore[reportUnknownMemberType] - its **kwargs
        url, socket_timeout=2, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0)
    )
    try:
        cast("Any", client).ping()
    except (RedisError, OSError) as error:
        raise QueueError(
            f"Redis at {mask_url(url)} does not answer ({error}); start it, or set REDIS_URL, "
            "or run `ops up`"
        ) from None
    return client


def require_stack(home: Path) -> StackInfo:
    """The stack of this folder.

    Raises:
        UsageError: nothing runs here.
    """
    info = read_stack(home)
    if info is None:
        raise UsageError(f"no stack runs in {home}; start one with `ops up` or `ops demo --keep`")
    return info
