"""Starts the simulator: in this process until a signal, or in a thread for a test."""

import asyncio
import signal
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from sim.admin import Admin
from sim.config import SimConfig, read_config
from sim.service import Service
from sim.wire.registry import source_kinds

try:
    from uvloop import new_event_loop
except ImportError:  # the plain loop is slower, not different
    from asyncio import new_event_loop


def serve(service: Service, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM, SIGINT or ``POST /admin/stop``; ``ready`` is called once all ports listen."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(service, ready))


async def _serve(service: Service, ready: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.stopping.set)
    listening: asyncio.Future[None] = loop.create_future()
    listening.add_done_callback(lambda done: None if done.cancelled() else ready())
    await service.run(Admin(service).app(), listening)


class SimHandle:
    """A simulator in a thread of this process; a context manager that stops it."""

    def __init__(self, config: SimConfig) -> None:
        self.service = Service(config)
        self._loop = new_event_loop()
        self._up = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="sim", daemon=True)
        self._thread.start()
        self._up.wait()
        if self._error is not None:
            raise self._error
        self.endpoints: dict[str, Any] = self.service.endpoints()
        self.admin: str = self.endpoints["admin"]

    def stop(self) -> None:
        """Stop and wait until every port is closed; safe to call twice.

        Raises:
            BaseException: what ended the simulator, if it did not end by itself.
        """
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self.service.stopping.set)
            self._thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def __enter__(self) -> "SimHandle":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:  # noqa: BLE001 - handed to the thread that started us
            self._error = error
        finally:
            self._loop.close()
            self._up.set()

    async def _serve(self) -> None:
        listening: asyncio.Future[None] = self._loop.create_future()
        listening.add_done_callback(lambda _done: self._up.set())
        await self.service.run(Admin(self.service).app(), listening)


def start(config: SimConfig | Mapping[str, Any]) -> SimHandle:
    """Start a simulator in a thread and return once it listens.

    Raises:
        SettingsError: the config is wrong, or a port can't be had.
    """
    checked = config if isinstance(config, SimConfig) else read_config(dict(config), source_kinds())
    return SimHandle(checked)
