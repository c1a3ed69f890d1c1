"""From a person's shell to the right database: settings, then the stack that runs in this folder."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from core.errors import QueueError, StorageError
from core.log import mask_url
from core.settings import Settings, load
from db.clock import connect_clock
from db.pool import Database
from ops.stack_file import StackInfo, find_stack, read_stack, shown, stacks


def settings() -> Settings:
    """Settings from the environment and ``.env``; what neither names comes from the stack that runs here.

    That is the stack of the state folder or, without one, the only live one below it; stderr says so
    then. With DATABASE_URL set, a stack counts only where it runs on that database.

    Raises:
        UsageError: several stacks run below the state folder; says how to choose.
    """
    found = load()
    home = Path(found.gapless_home)
    if "database_url" in found.model_fields_set:
        stack = stack_of(found)
    else:
        chosen = find_stack(home)
        stack = chosen.info if chosen else None
        if chosen and chosen.home != home:
            print(
                f"ops: asking the stack in {shown(chosen.home)} (`{chosen.info.command}`)",
                file=sys.stderr,
            )
            home = chosen.home
    if stack is None:
        return found
    local = {"database_url": stack.database_url, "redis_url": stack.redis_url} | (stack.env or {})
    overrides: dict[str, Any] = {"gapless_home": str(home)}
    for key, value in local.items():
        name, _, inner = key.lower().partition("__")
        if inner:
            overrides.setdefault(name, {})[inner] = value
        elif name not in found.model_fields_set:
            overrides[name] = value
    return load(overrides=overrides)


def stack_of(config: Settings) -> StackInfo | None:
    """The stack of the settings' state folder, None when there is none or it has another database."""
    stack = read_stack(Path(config.gapless_home))
    return stack if stack is not None and stack.database_url == config.database_url else None


@contextmanager
def database(config: Settings | None = None) -> Generator[Database]:
    """The database on its own clock, closed at the end.

    Raises:
        StorageError: with the mend, when it can't be reached or refuses the password.
    """
    config = config or settings()
    try:
        clock = connect_clock(config.database_url)
    except StorageError:
        _require_running(config)
        raise
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


def _require_running(config: Settings) -> None:
    """Say that nothing runs here where the database is nobody's choice, or its owner was killed."""
    stack = stack_of(config)
    chosen = "database_url" in config.model_fields_set
    if (stack is None and chosen) or (stack is not None and stack.alive):
        return
    home = Path(config.gapless_home)
    killed = [one for one in stacks(home) if not one.info.alive]
    fate = (
        f" (the `{killed[0].info.command}` in {shown(killed[0].home)} was killed)" if killed else ""
    )
    raise StorageError(
        f"nothing runs in {shown(home)}{fate}; start `ops up` (`ops up --sim` without internet), "
        "or set DATABASE_URL"
    ) from None
