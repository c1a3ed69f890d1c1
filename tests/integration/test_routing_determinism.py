"""The same state gives the same source in every process, and every source that is not asked has its reason."""

import re
from contextlib import closing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from core.clock import SystemClock
from core.errors import NoRouteError
from core.words import Share
from routing.router import Router
from routing.sources import Source
from routing.state import RoutingState
from tests.routing_parts import BARS, limit, router, source

pytestmark = pytest.mark.integration

CLOCK = SystemClock()
NAMES = ("a", "b", "c", "d")
NUMBER = re.compile(r"\d+\.\d+")

standing = st.fixed_dictionaries(
    {
        "state": st.sampled_from(["closed", "closed", "open", "half-open"]),
        "lat": st.sampled_from([1.0, 0.7, 0.3, 0.0]),
        "err": st.sampled_from([1.0, 0.8, 0.2]),
        "cmp": st.sampled_from([1.0, 0.5, 0.0]),
        "off": st.booleans(),
        "disabled": st.booleans(),
        "installed": st.sampled_from([True, True, True, False]),
        "spent": st.booleans(),
    }
)
policies = st.permutations(NAMES).flatmap(
    lambda names: st.lists(st.booleans(), min_size=3, max_size=3).map(
        lambda breaks: _bands(names, breaks)
    )
)


def _bands(names: Any, breaks: list[bool]) -> tuple[tuple[str, ...], ...]:
    bands: list[list[str]] = [[names[0]]]
    for name, new in zip(names[1:], breaks, strict=True):
        if new:
            bands.append([name])
        else:
            bands[-1].append(name)
    return tuple(map(tuple, bands))


def built(url: str, bands: Any, facts: dict[str, Any]) -> Router:
    sources = [
        source(name, limit(5, 60)) if facts[name]["installed"] else Source(name, None, "no key")
        for name in NAMES
    ]
    off = {name: "by hand" for name in NAMES if facts[name]["disabled"]}
    return router(url, CLOCK, sources, bands=bands, disabled=lambda: off)


def prepare(url: str, facts: dict[str, Any]) -> None:
    """The fleet's state, as its scripts keep it."""
    now = round(CLOCK.timestamp() * 1000)
    keys = RoutingState(url, CLOCK)
    with Redis.from_url(url) as client:
        client.flushall()
        for name, fact in facts.items():
            row: dict[str, Any] = {"state": fact["state"], "why": "test", "ver": 3, "opens": 1}
            row |= {"until": now + 60_000, "probe": "x", "probe_until": now + 60_000}
            for term in ("lat", "err", "cmp"):
                row |= {term: fact[term], f"{term}_at": now}
            if fact["off"]:
                row |= {"off_until": now + 600_000, "off_why": "not in the plan"}
            client.hset(keys.pair_key(name, BARS), mapping=row)  # pyright: ignore[reportArgumentType]
    keys.close()


def ask(url: str, bands: Any, facts: dict[str, Any]) -> tuple[str | None, dict[str, str]]:
    """Who takes the call, and why whoever stands before it does not."""
    with closing(built(url, bands, facts)) as one:
        try:
            lease = one.acquire(BARS, share=Share.LIVE, deadline=CLOCK.monotonic())
        except NoRouteError as error:
            return None, {name: NUMBER.sub("#", why) for name, why in error.refusals.items()}
        taken = lease.source
        lease.release()
        return taken, {}


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(bands=policies, facts=st.fixed_dictionaries(dict.fromkeys(NAMES, standing)))
def test_two_processes_that_see_the_same_choose_the_same_and_say_why(
    redis_url: str, bands: Any, facts: dict[str, Any]
) -> None:
    prepare(redis_url, facts)
    with closing(built(redis_url, bands, facts)) as spender:
        for name in NAMES:
            while facts[name]["spent"]:
                try:
                    spender.acquire(BARS, share=Share.LIVE, pinned=name, deadline=CLOCK.monotonic())
                except NoRouteError:
                    break
    first, second = (ask(redis_url, bands, facts) for _ in range(2))
    assert first == second
    taken, refusals = first
    if taken is None:
        assert set(refusals) == set(NAMES)
        assert all(refusals.values())
        return
    fact = facts[taken]
    assert fact["installed"]
    assert not any(fact[name] for name in ("disabled", "off", "spent"))
    assert fact["state"] == "closed"
