"""A worker's small chores: a chore that trips stops none of the others."""

import pytest

from db import switches
from db.live_settings import LiveSettings
from tests.workers_world import World, at
from workers.upkeep import Upkeep

pytestmark = pytest.mark.integration


def test_a_chore_that_trips_leaves_the_others_to_go_on(
    database_url: str, redis_url: str, wait_until
) -> None:
    told: list[int] = []

    def tell() -> list[object]:
        told.append(1)
        if len(told) > 1:
            raise RuntimeError("a bug")
        return []

    with World(database_url, redis_url, at("15:00:00")) as world:
        upkeep = Upkeep(world.db, LiveSettings.of(world.settings()))
        upkeep.start(tell)  # pyright: ignore[reportArgumentType] - it tells nothing
        try:
            wait_until(lambda: len(told) > 1, seconds=20)
            switches.switch(world.db, "one", enabled=False, who="test", reason="a test")
            wait_until(lambda: "one" in upkeep.disabled(), seconds=5)
        finally:
            upkeep.close()
