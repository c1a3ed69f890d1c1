"""A settled process gives up cycles soon, however many modules it imported."""

import subprocess
import sys

COUNT = """
import gc, sys
from core.garbage import settle

class Cycle:
    alive = 0
    def __init__(self):
        self.me, self.body = self, [[] for _ in range(20)]
        Cycle.alive += 1
    def __del__(self):
        Cycle.alive -= 1

modules = [[[] for _ in range(500)] for _ in range(2000)]
gc.collect()
if sys.argv[1] == "settled":
    settle()
kept, worst = [], 0
for number in range(30_000):
    kept.append(Cycle())
    if len(kept) > 100:
        kept.pop(0)
    worst = max(worst, Cycle.alive)
print(worst, gc.get_freeze_count() > 1_000_000)
"""


def worst(how: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", COUNT, how], capture_output=True, text=True, check=True
    )
    alive, frozen = done.stdout.split()
    return int(alive), frozen


def test_cycles_that_outlived_young_generations_are_collected_soon() -> None:
    settled, frozen = worst("settled")
    unsettled, _ = worst("as it is")
    assert frozen == "True"
    assert settled < unsettled / 2
