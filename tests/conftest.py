"""What every test may ask for."""

import logging
from collections.abc import Iterator

import pytest

pytest_plugins = ["tests.servers", "tests.storage"]


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Commands run in the test's own process set up logging; the next test knows nothing of it."""
    root = logging.getLogger()
    level = root.level
    ours = list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = ours
