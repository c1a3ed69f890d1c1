"""Intake processes as the Procfile starts them: started, waited for, killed."""

import json
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

from bench.run import MeasureError
from core.clock import Clock
from core.settings import environment

_ROOT = Path(__file__).resolve().parents[2]
_READY_S = 60.0


class Movers:
    """A few intakes over the same lists and the same database."""

    def __init__(self, count: int, folder: Path, settings: Mapping[str, str], clock: Clock) -> None:
        """Prepare.

        Args:
            count: How many.
            folder: For their logs and their ports.
            settings: Where database, queues and lists are.
            clock: For waiting.
        """
        self._folder = folder
        self._clock = clock
        self._env = {
            **environment(),
            **settings,
            "PYTHONPATH": str(_ROOT),
            "USE_RLC": "true",
            "METRICS_PORT": "0",
            "LOG_LEVEL": "ERROR",
        }
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._starts = 0
        self._ports: dict[int, Path] = {}
        self.count = count

    def start(self, number: int) -> None:
        """Start one; it is ready some time later."""
        self._starts += 1
        port = self._ports[number] = self._folder / f"port-{self._starts}"
        with (self._folder / "movers.log").open("ab") as log:
            self._running[number] = subprocess.Popen(
                [sys.executable, "-m", "workers", "intake", "--port-file", str(port)],
                env=self._env,
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )

    def start_all(self) -> None:
        """Start those that do not run."""
        for number in range(self.count):
            if number not in self._running:
                self.start(number)

    def kill(self, number: int) -> None:
        """SIGKILL one."""
        process = self._running.pop(number)
        process.kill()
        process.wait()

    def kill_all(self) -> None:
        """SIGKILL all."""
        for number in list(self._running):
            self.kill(number)

    def wait_ready(self) -> None:
        """Wait until every one of them moves elements.

        Raises:
            MeasureError: one has ended by itself, or does not get ready.
        """
        deadline = self._clock.monotonic() + _READY_S
        for number, process in self._running.items():
            while not self._is_ready(number):
                if process.poll() is not None:
                    said = (self._folder / "movers.log").read_text(errors="replace")[-600:]
                    raise MeasureError(f"an intake ended with {process.returncode}: {said}")
                if self._clock.monotonic() > deadline:
                    raise MeasureError(f"an intake was not ready within {_READY_S:g} s")
                self._clock.sleep(0.02)

    def _is_ready(self, number: int) -> bool:
        port = self._ports[number]
        if not port.exists():
            return False
        url = f"http://127.0.0.1:{port.read_text().strip()}/healthz"
        # The environment's proxies are for the internet.
        with suppress(OSError), build_opener(ProxyHandler({})).open(url, timeout=5) as reply:
            return json.load(reply).get("intake") == "fine"
        return False


@contextmanager
def movers(
    count: int, folder: Path, settings: Mapping[str, str], clock: Clock
) -> Generator[Movers]:
    """Started intakes; all gone afterwards."""
    made = Movers(count, folder, settings, clock)
    try:
        made.start_all()
        yield made
    finally:
        made.kill_all()
