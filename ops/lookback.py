"""How far back the configured providers answer."""

from datetime import datetime

from core.clock import Clock
from core.settings import Settings
from core.words import Capability
from workers.wiring import build_sources


def oldest_answerable(config: Settings, clock: Clock, capability: Capability) -> datetime | None:
    """The oldest instant that any source of the policy still answers; None when one has no limit.

    A policy without an installed source has no look-back to judge by: None too, the router says why.
    """
    named = {name for band in config.policy(capability) for name in band}
    looks = [
        source.provider.specs()[capability].lookback
        for source in build_sources(config, clock)
        if source.name in named
        and source.provider is not None
        and capability in source.provider.specs()
    ]
    if not looks or None in looks:
        return None
    return clock.now() - max(look for look in looks if look is not None)
