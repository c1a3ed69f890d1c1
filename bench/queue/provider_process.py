"""``python -m bench.queue.provider_process``: answers every symbol with the same body after 100 ms.

Prints its address. ``/stats`` is answered at once with what it has seen: JSON with ``at`` (its own
seconds), ``answered``, ``distinct`` symbols, ``waited_s`` in sum, and ``most`` requests at once since
it was asked last.
"""

import asyncio
import json
import sys
from typing import cast

from bench.queue.unit import BODY

LATENCY_S = 0.1
_END = b"\r\n\r\n"
_REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
_SYMBOL = _REPLY % (len(BODY), BODY)


class _Seen:
    """Counts of the whole process."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.answered = 0
        self.waited_s = 0.0
        self.waiting = 0
        self.most = 0
        self.symbols: set[bytes] = set()

    def stats(self) -> bytes:
        words = {
            "at": self.loop.time(),
            "answered": self.answered,
            "distinct": len(self.symbols),
            "waited_s": self.waited_s,
            "most": self.most,
        }
        self.most = self.waiting
        body = json.dumps(words).encode()
        return _REPLY % (len(body), body)


class _Connection(asyncio.Protocol):
    def __init__(self, seen: _Seen) -> None:
        self._seen = seen
        self._read = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._read += data
        while _END in self._read:
            head, _, self._read = self._read.partition(_END)
            path = head.split(b" ", 2)[1]
            seen = self._seen
            if path == b"/stats":
                assert self._transport is not None
                self._transport.write(seen.stats())
                continue
            seen.waiting += 1
            seen.most = max(seen.most, seen.waiting)
            seen.loop.call_later(LATENCY_S, self._answer, path, seen.loop.time())

    def _answer(self, path: bytes, came: float) -> None:
        seen = self._seen
        seen.waiting -= 1
        assert self._transport is not None
        if self._transport.is_closing():
            # Its process was killed; nobody got an answer.
            return
        self._transport.write(_SYMBOL)
        seen.answered += 1
        seen.symbols.add(path)
        seen.waited_s += seen.loop.time() - came


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    seen = _Seen(loop)
    server = await loop.create_server(lambda: _Connection(seen), "127.0.0.1", 0, backlog=2048)
    host, port = server.sockets[0].getsockname()[:2]
    print(f"http://{host}:{port}", flush=True)
    await server.serve_forever()


def main() -> None:
    """Serve until killed."""
    if sys.platform == "win32":
        asyncio.run(_serve())
        return
    import uvloop  # noqa: PLC0415

    uvloop.run(_serve())


if __name__ == "__main__":
    main()
