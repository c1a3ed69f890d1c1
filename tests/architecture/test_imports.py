"""What import-linter cannot say: what is loaded at run time, and what alone is allowed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.project import ROOT, clean_environment, imported, modules

CORE_WORDS = {"core.bars", "core.clock", "core.errors", "core.log", "core.words"}
"""All that the simulated market may share with the pipeline which it judges."""

HEAVY = {"pandas", "pandas_market_calendars", "yfinance"}
"""What a collector never loads: 80 to 160 MB and two seconds a process."""


@pytest.mark.parametrize("path", [p for p in modules() if p.parts[0] == "sim"], ids=str)
def test_the_simulated_market_shares_only_words_with_what_it_judges(path: Path) -> None:
    ours = {name for name in imported(path) if name.split(".")[0] == "core"}

    assert ours <= CORE_WORDS


ADAPTERS = sorted(
    f"providers.{path.stem}"
    for path in (ROOT / "providers").glob("[!_]*.py")
    if path.stem != "base"
)
"""What workers.wiring imports late, so that loading workers alone would not show it."""


def loaded_by(name: str) -> set[str]:
    """The top-level modules in a process that has imported all of one package and nothing else."""
    code = (
        "import importlib, json, pkgutil, sys\n"
        "module = importlib.import_module(sys.argv[1])\n"
        "for found in pkgutil.walk_packages(getattr(module, '__path__', ()), sys.argv[1] + '.'):\n"
        "    importlib.import_module(found.name)\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, name],
        cwd=ROOT,
        env=clean_environment(PYTHONPATH=str(ROOT)),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("name", ["workers", "routing", "db", *ADAPTERS])
def test_what_collectors_are_made_of_loads_no_pandas(name: str) -> None:
    assert loaded_by(name) & HEAVY == set()


def test_the_heavy_libraries_would_be_noticed() -> None:
    assert loaded_by("pandas_market_calendars.market_calendar") >= {"pandas"}
