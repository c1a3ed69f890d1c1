"""Each mutation still finds the safety that it takes away; applied in a process of its own."""

import subprocess
import sys

import pytest

from chaos.mutations import MUTATIONS


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_the_safety_is_still_where_the_mutation_looks_for_it(name: str) -> None:
    code = f"from chaos.mutations import MUTATIONS; MUTATIONS[{name!r}]()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
