"""Processes of a measure: the provider, a system's workers, and what CPU each tree of them has used."""

import json
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import psutil

from bench.queue.systems import System
from bench.queue.unit import PROVIDER, REDIS
from bench.run import MeasureError
from core.settings import environment

_ROOT = Path(__file__).resolve().parents[2]
_PUSH_S = 180.0


def cpu_s(pid: int) -> float:
    """Seconds of CPU of a process, its living descendants and its ended children."""
    spent = 0.0
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            # One that ended meanwhile is counted by its parent at the next look.
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                spent += times.user + times.system + times.children_user + times.children_system
    return spent


@dataclass(frozen=True, slots=True)
class Provider:
    """The running provider."""

    url: str
    pid: int

    def stats(self) -> Mapping[str, Any]:
        """What it has seen until now; see ``provider_process``."""
        # The environment's proxies are for the internet.
        with build_opener(ProxyHandler({})).open(f"{self.url}/stats", timeout=10) as reply:
            return json.load(reply)


@contextmanager
def provider() -> Generator[Provider]:
    """A provider process of its own; gone afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.queue.provider_process"],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise MeasureError("the bench's provider did not start; its error stands above")
        yield Provider(url, process.pid)
    finally:
        process.kill()
        process.communicate()


def push(system: System, redis_url: str, count: int) -> None:
    """Fill a database with a system's jobs for so many symbols, by its own push.

    Raises:
        MeasureError: it could not be done; the message quotes why.
    """
    done = subprocess.run(
        [sys.executable, "-m", "bench.queue.push_process", system.name, str(count)],
        cwd=_ROOT,
        env={**environment(), REDIS: redis_url},
        capture_output=True,
        text=True,
        timeout=_PUSH_S,
        check=False,
    )
    if done.returncode != 0:
        raise MeasureError(f"{system.title}: its push failed: {done.stderr[-600:]}")


class Fleet:
    """A system's workers."""

    def __init__(self, system: System, log: Path) -> None:
        self._system = system
        self._log = log
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, slots: int, redis_url: str, provider_url: str) -> None:
        """Start every process."""
        words = {**environment(), REDIS: redis_url, PROVIDER: provider_url}
        with self._log.open("wb") as log:
            for command in self._system.commands(slots):
                self._running.append(
                    subprocess.Popen(command, cwd=_ROOT, env=words, stdout=log, stderr=log)
                )

    def check(self) -> None:
        """See that all of them live.

        Raises:
            MeasureError: one has ended; the message quotes what it said.
        """
        for process in self._running:
            if process.poll() is not None:
                raise MeasureError(
                    f"{self._system.title}: a worker ended with {process.returncode}: "
                    f"{self._log.read_text(errors='replace')[-600:]}"
                )

    def cpu_s(self) -> float:
        """Seconds of CPU of the whole tree."""
        return sum(cpu_s(process.pid) for process in self._running)

    def kill(self) -> None:
        """End the whole tree at once; what they had in hand does not matter any more."""
        trees: list[psutil.Process] = []
        for process in self._running:
            with suppress(psutil.NoSuchProcess):
                root = psutil.Process(process.pid)
                trees += [root, *root.children(recursive=True)]
        for found in trees:
            with suppress(psutil.NoSuchProcess):
                found.kill()
        for process in self._running:
            process.wait()
        psutil.wait_procs(trees, timeout=5)


@contextmanager
def fleet(
    system: System, slots: int, *, redis_url: str, provider_url: str, log: Path
) -> Generator[Fleet]:
    """A system's workers with so many slots each; all gone afterwards."""
    made = Fleet(system, log)
    try:
        made.start(slots, redis_url, provider_url)
        yield made
    finally:
        made.kill()


def titles(systems: Sequence[System]) -> str:
    """Names and versions, for the table's notes."""
    return ", ".join(f"{system.title}: {system.package} {system.version}" for system in systems)
