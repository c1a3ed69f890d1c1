"""The parts of the queue bench: each side really does the work that it is measured by."""

from pathlib import Path

import pytest

from bench.queue.processes import cpu_s, fleet, provider, push
from bench.queue.systems import PROCESSES, RQ, SYSTEMS, System

pytestmark = pytest.mark.integration

SLOTS = 8


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_every_symbol_is_asked_once_and_acknowledged(
    system: System, redis_url: str, tmp_path: Path, wait_until
) -> None:
    count = 20 if system is RQ else 300
    push(system, redis_url, count)
    assert system.left(redis_url) == count
    at_once: list[int] = []
    log = tmp_path / "workers.log"
    with (
        provider() as asked,
        fleet(system, SLOTS, redis_url=redis_url, provider_url=asked.url, log=log) as workers,
    ):

        def done() -> bool:
            workers.check()
            stats = asked.stats()
            at_once.append(stats["most"])
            return stats["answered"] >= count and system.left(redis_url) == 0

        wait_until(done, seconds=60, what=f"{system.title} has asked for {count} symbols")
        assert asked.stats()["answered"] == asked.stats()["distinct"] == count
        assert workers.cpu_s() > 0
        assert cpu_s(asked.pid) > 0
    assert 1 < max(at_once) <= PROCESSES * SLOTS
