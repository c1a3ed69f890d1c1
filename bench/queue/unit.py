"""The unit of work that every system does alike: one GET for one symbol, by the process's one client.

Peers' processes import this, so it loads as little as it can: what a forking worker carries, it forks.
"""

import os
from functools import cache

from providers.wire import Wire

PROVIDER = "BENCH_PROVIDER_URL"
"""Environment variable: where the provider listens."""
REDIS = "BENCH_REDIS_URL"
"""Environment variable: the queue's database."""
BODY = b'{"c":101.25,"h":102.5,"l":99.75,"o":100.0,"pc":100.5,"t":1709650800}'
_TIMEOUT_S = 10.0


def fetch(symbol: str) -> None:
    """Ask for one symbol; the answer has to be whole.

    Raises:
        RuntimeError: it was something else.
        ProviderError: it did not come.
    """
    wire, url = _client()
    body = wire.get(f"{url}/{symbol}", _TIMEOUT_S).body
    if body != BODY:
        raise RuntimeError(f"the provider answered {body[:100]!r} to {symbol}")


def redis_url() -> str:
    """The queue's database, as the environment says."""
    return os.environ[REDIS]  # noqa: TID251 - core.settings would make peers' forks larger


@cache
def _client() -> tuple[Wire, str]:
    return Wire(direct=True), os.environ[PROVIDER]  # noqa: TID251 - as above
