"""A TCP proxy on loopback whose connections can be cut, refused and delayed."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

_T = TypeVar("_T")
_CHUNK = 65_536


class Proxy:
    """One listening port before one server; runs in a thread of its own until ``close``.

    Args:
        port: Of the server, on 127.0.0.1; the server may come and go.
    """

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._delay_s = 0.0
        self._refusing = False
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{port}")
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]
        """Where clients connect."""

    def cut(self, *, refuse: bool = False) -> int:
        """Reset every connection, and with ``refuse`` each new one; returns how many were open."""
        self._refusing = refuse

        async def reset() -> int:
            pairs = list(self._pairs)
            for pair in pairs:
                for writer in pair:
                    writer.transport.abort()
            return len(pairs)

        return self._call(reset())

    def accept(self) -> None:
        """Take new connections again."""
        self._refusing = False

    def delay(self, seconds: float) -> int:
        """Hold every piece of data back for so many real seconds; returns how many are connected."""
        self._delay_s = seconds
        return len(self._pairs)

    def close(self) -> None:
        """Cut everything and end the thread."""
        self.cut(refuse=True)

        async def end() -> None:
            self._server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: "Coroutine[Any, Any, _T]") -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            # As a client without us would see it.
            writer.transport.abort()
            return
        pair = (writer, far_writer)
        self._pairs.add(pair)
        try:
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        finally:
            self._pairs.discard(pair)
            for end in pair:
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one direction until its end; then the whole connection is over."""
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                writer.write(data)
                await writer.drain()
        # PostgreSQL and Redis never go on in one direction only.
        writer.close()
