"""The page of failure modes names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_test_that_the_page_names_is_there() -> None:
    text = (ROOT / "docs" / "failure-modes.md").read_text()
    named = re.findall(r"`((?:tests/\w+/)?test_\w+\.py)`", text)
    assert len(named) > 20
    for name in named:
        path = Path(name) if "/" in name else Path("tests", "integration", name)
        assert (ROOT / path).is_file(), name
