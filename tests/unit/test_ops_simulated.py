"""Every provider is led to the simulator: its address, its key, its limits."""

from core.settings import Settings
from ops.simulated import limited_to, pointed_at
from sim.wire.registry import WIRES


def test_every_source_of_the_simulator_stands_for_its_vendor() -> None:
    endpoints = {"sources": {name: {"base_url": f"http://127.0.0.1:1/{name}"} for name in WIRES}}

    env = pointed_at(endpoints)

    settings = Settings.model_validate({name.lower(): value for name, value in env.items()})
    urls = {
        name: value for name, value in settings.model_dump().items() if name.endswith("_base_url")
    }
    assert set(urls.values()) == {f"http://127.0.0.1:1/{name}" for name in WIRES}
    assert settings.polygon_plan == "advanced"


def test_every_limit_that_there_is_can_be_set_at_once() -> None:
    limits = {name for name in Settings.model_fields if name.endswith("_limits")}

    assert {name.lower() for name in limited_to("5/1s")} == limits
