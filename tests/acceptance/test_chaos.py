"""Three fixed seeds of the chaos run, as ``make chaos`` runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.judge import MUST_BE_ZERO
from tests.servers import MakeHome

pytestmark = pytest.mark.acceptance

SEEDS = 3


def test_three_seeds_keep_every_promise(make_home: MakeHome, tmp_path: Path) -> None:
    report = tmp_path / "chaos.json"
    words = ["--seeds", str(SEEDS), "--lanes", "2", "--minutes", "10", "--faults", "8"]
    done = subprocess.run(
        [sys.executable, "-m", "chaos", *words, "--symbols", "24", "--json", str(report)],
        env={**os.environ, "GAPLESS_HOME": str(make_home().path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(report.read_text())
    assert said["seeds"] == SEEDS
    assert said["faults"] >= 3 * SEEDS
    assert said["asked"] > 0
    assert said["elements"] > 0
    assert {name: said[f"count_{name}"] for name in MUST_BE_ZERO} == dict.fromkeys(MUST_BE_ZERO, 0)
