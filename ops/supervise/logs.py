"""Log files of child processes, rotated by size when a process starts."""

from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

MAX_BYTES = 10_000_000
"""A log larger than this is set aside at the next start of its process."""
KEEP = 3
"""Set-aside logs kept beside the current one: NAME.log.1 (newest) to NAME.log.3."""


def log_path(state: Path, name: str) -> Path:
    """Where the output of the process ``name`` goes."""
    return state / "logs" / f"{name}.log"


def open_log(state: Path, name: str, *, max_bytes: int = MAX_BYTES) -> BinaryIO:
    """Open the log of ``name`` for appending, after setting aside one that grew too large.

    Raises:
        OSError: when the folder or the file can't be written.
    """
    path = log_path(state, name)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        if path.stat().st_size > max_bytes:
            for number in range(KEEP - 1, 0, -1):
                with suppress(FileNotFoundError):
                    _aside(path, number).replace(_aside(path, number + 1))
            path.replace(_aside(path, 1))
    return path.open("ab", buffering=0)


def tail(path: Path, *, offset: int = 0, lines: int = 20) -> str:
    """The last lines written to a log after ``offset`` bytes; empty when there are none."""
    try:
        with path.open("rb") as log:
            log.seek(offset)
            text = log.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
