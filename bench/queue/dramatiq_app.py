"""The unit as a Dramatiq actor, with Dramatiq's own middleware and settings."""

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.queue import unit

dramatiq.set_broker(RedisBroker(url=unit.redis_url()))


@dramatiq.actor
def fetch_symbol(symbol: str) -> None:
    """Ask for one symbol."""
    unit.fetch(symbol)
