"""Connections of a ``requests`` session that are closed when nobody used them for a while."""

import queue
from typing import Any, cast

from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from core.clock import SystemClock

_clock = SystemClock()


class RestingAdapter(HTTPAdapter):
    """One host's kept connections, the one that rested least taken first; those through a proxy are urllib3's."""

    def __init__(self, size: int) -> None:
        """Keep at most ``size`` connections; nothing is sent twice."""
        super().__init__(pool_connections=1, pool_maxsize=size, max_retries=0)
        # urllib3's own switch for subclasses of its pools.
        cast("Any", self).poolmanager.pool_classes_by_scheme = {"http": _Http, "https": _Https}

    def close_rested(self, rested_s: float) -> None:
        """Close those that nobody used for so many real seconds; requests may be under way meanwhile."""
        pools = cast("Any", self).poolmanager.pools
        for key in pools.keys():  # noqa: SIM118 - urllib3's container can't be iterated over
            pool = pools.get(key)
            if pool is not None and pool.pool is not None:
                pool.pool.close_rested(_clock.monotonic() - rested_s)


class _Kept(queue.LifoQueue[Any]):
    """What urllib3 keeps connections in, each with the second since which it rests; None: not opened yet."""

    def _put(self, item: object) -> None:
        self.queue.append((item, _clock.monotonic()))

    def _get(self) -> object:
        return self.queue.pop()[0]

    def close_rested(self, since: float) -> None:
        with self.mutex:
            for place, (connection, at) in enumerate(self.queue):
                if connection is not None and at <= since:
                    self.queue[place] = (None, at)
                    connection.close()


class _Http(HTTPConnectionPool):
    QueueCls = _Kept


class _Https(HTTPSConnectionPool):
    QueueCls = _Kept
