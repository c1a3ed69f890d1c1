"""Messages that send the reader to a section of the runbook: the section is there."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"\(runbook: ([^)]+)\)")


def test_every_section_that_a_message_names_is_in_the_runbook() -> None:
    runbook = (REPOSITORY / "docs" / "runbook.md").read_text()
    sections = set(re.findall(r"^## (.+)$", runbook, re.MULTILINE))
    sources = [path.read_text() for path in (REPOSITORY / "ops").rglob("*.py")]

    named = {name for text in sources for name in NAMED.findall(text)}

    assert len(named) >= 4
    assert named <= sections


def test_every_trouble_of_status_names_a_section() -> None:
    status = (REPOSITORY / "ops" / "commands" / "status.py").read_text()

    said = re.findall(r"trouble(?:\"\])?\.append", status)
    assert len(NAMED.findall(status)) == len(said) >= 5
