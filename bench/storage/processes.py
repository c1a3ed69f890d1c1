"""Writer processes of a measure: started with a task, stopped and resumed by signals, killed, restarted."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from bench.run import MeasureError
from core.clock import Clock

_ROOT = Path(__file__).resolve().parents[2]
_COMMIT = re.compile(r"(\S+) (\S+\+00:00)")
_MODULE = "bench.storage.writer_process"


@dataclass(slots=True)
class WriterProcess:
    """A process that writes its task's batches and logs each commit."""

    name: str
    """Its application_name, too."""
    url: str
    folder: Path
    """Of its log and of what it complained about."""
    task: Mapping[str, object]
    """Its ``workload`` and the workload's parameters."""
    starts: int = 0
    _process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Begin, or go on after the last logged commit."""
        self.starts += 1
        with self._errors.open("a") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _MODULE],
                cwd=_ROOT,
                stdin=subprocess.PIPE,
                stdout=errors,
                stderr=errors,
                text=True,
            )
        assert self._process.stdin is not None
        # By stdin: the URL may hold a password, and arguments can be seen by everybody.
        self._process.stdin.write(
            json.dumps(
                {
                    **self.task,
                    "name": self.name,
                    "url": self.url,
                    "log": str(self.log),
                    "end": str(self.end),
                }
            )
        )
        self._process.stdin.close()

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def end(self) -> Path:
        """When this file exists, the process ends after the commit at hand."""
        return self.folder / f"{self.name}.end"

    @property
    def _errors(self) -> Path:
        return self.folder / f"{self.name}.errors"

    def send(self, number: signal.Signals) -> None:
        """Send a signal if the process lives."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once, wherever it is."""
        self.send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def finished(self) -> bool:
        """Whether it came to its end; a crash is an error of the bench.

        Raises:
            MeasureError: it ended with an error, which the message quotes.
        """
        code = None if self._process is None else self._process.poll()
        if code not in (None, 0):
            raise MeasureError(f"{self.name} ended with {code}:\n{self.complaints()}")
        return code == 0

    def wait(self, clock: Clock, seconds: float) -> None:
        """Wait for its end.

        Raises:
            MeasureError: it took longer, or ended with an error.
        """
        deadline = clock.monotonic() + seconds
        while not self.finished():
            if clock.monotonic() > deadline:
                raise MeasureError(f"{self.name} did not end within {seconds} s")
            clock.sleep(0.02)

    def complaints(self) -> str:
        """What it wrote to stderr, and the errors that its writes surfaced."""
        with suppress(FileNotFoundError):
            return self._errors.read_text()
        return ""

    def commits(self) -> list[tuple[str, datetime]]:
        """Label and as_of of each logged commit."""
        return read_log(self.log)


def read_log(log: Path) -> list[tuple[str, datetime]]:
    """Label and as_of of each commit in a log; a line that a kill tore is none."""
    if not log.exists():
        return []
    lines = map(_COMMIT.fullmatch, log.read_text().splitlines())
    return [(line[1], datetime.fromisoformat(line[2])) for line in lines if line]
