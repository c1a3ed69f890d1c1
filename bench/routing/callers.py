"""Caller processes of a measure: started with a task, killed, restarted; and their logs, read."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.routing.market import ROOT, Stage
from bench.run import MeasureError
from core.settings import environment

_READY_S = 30.0


@dataclass(frozen=True, slots=True)
class Event:
    """A line of a caller's log."""

    at: float
    """Real time, epoch seconds."""
    what: str
    source: str
    more: str = ""


@dataclass(slots=True)
class Callers:
    """A fleet of alike processes."""

    stage: Stage
    name: str
    task: Mapping[str, Any]
    settings: Mapping[str, str]
    module: str = "bench.routing.caller_process"
    _running: dict[int, "subprocess.Popen[str]"] = field(default_factory=dict)

    def start(self, count: int, **more: Any) -> None:
        """Start processes and wait until they are ready to ask."""
        for _ in range(count):
            self.start_one(len(self._running), **more)
        self.wait_ready(count)

    def start_one(self, number: int, **more: Any) -> None:
        """Start the process of that number, again if it was killed."""
        with self._errors(number).open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", self.module],
                cwd=ROOT,
                env={**environment(), **self.stage.settings(**self.settings)},
                stdin=subprocess.PIPE,
                stdout=errors,
                stderr=errors,
                text=True,
            )
        assert process.stdin is not None
        process.stdin.write(
            json.dumps(
                {
                    **self.task,
                    **more,
                    "log": str(self._log(number)),
                    "end": str(self._end),
                    "number": number,
                }
            )
        )
        process.stdin.close()
        self._running[number] = process

    def kill(self, number: int) -> None:
        """End one at once, wherever it is."""
        self._running[number].kill()
        self._running[number].wait()

    def stop(self, within_s: float = 20.0) -> None:
        """Let all of them come to their end; whoever does not is killed."""
        self._end.touch()
        deadline = self.stage.clock.monotonic() + within_s
        for process in self._running.values():
            try:
                process.wait(timeout=max(0.1, deadline - self.stage.clock.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for number, process in self._running.items():
            if process.returncode not in (0, -9):
                raise MeasureError(f"caller {number}: {self._errors(number).read_text()[-800:]}")

    def events(self, since: float = 0.0) -> list[Event]:
        """All that was logged from a real time on, by time; half a line of a killed one is none."""
        found: list[Event] = []
        for path in sorted(self.stage.folder.glob(f"{self.name}-*.log")):
            for line in path.read_text().splitlines():
                at, _, rest = line.partition(" ")
                words = rest.split(" ", 2)
                if len(words) >= 2 and _is_time(at) and float(at) >= since:
                    found.append(Event(float(at), *words))
        return sorted(found, key=lambda event: event.at)

    def wait_ready(self, count: int) -> None:
        """Wait until so many have said that they are.

        Raises:
            MeasureError: one ended before, or it took too long.
        """
        deadline = self.stage.clock.monotonic() + _READY_S
        while sum(event.what == "r" for event in self.events()) < count:
            dead = [n for n, process in self._running.items() if process.poll() is not None]
            if dead or self.stage.clock.monotonic() > deadline:
                number = dead[0] if dead else 0
                raise MeasureError(f"caller {number}: {self._errors(number).read_text()[-800:]}")
            self.stage.clock.sleep(0.05)

    def _log(self, number: int) -> Path:
        return self.stage.folder / f"{self.name}-{number}.log"

    def _errors(self, number: int) -> Path:
        return self.stage.folder / f"{self.name}-{number}.errors"

    @property
    def _end(self) -> Path:
        return self.stage.folder / f"{self.name}.end"


def _is_time(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def share(events: Sequence[Event], what: str, source: str) -> float | None:
    """Share of a source in the events of one kind; None where there are none."""
    found = [event for event in events if event.what == what]
    return sum(event.source == source for event in found) / len(found) if found else None
