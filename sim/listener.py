"""A port that can be closed and opened again while the process keeps it for itself."""

import asyncio
import socket
import struct
from typing import cast

from aiohttp import web

from core.errors import SettingsError

_BACKLOG = 1024
# l_onoff = 1, l_linger = 0: closing the socket sends RST.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Listener:
    """Serves HTTP on one port. Closed, the port refuses connections and still belongs to us."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        # Bound and never listening: the kernel refuses who connects, and nobody else gets the port.
        self._held = _bound(host, port)
        self.port: int = self._held.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._http: web.Server | None = None

    async def open(self, http: web.Server) -> None:
        """Accept connections; does nothing when it does already."""
        if self._server is not None:
            return
        self._http = http
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            http, sock=_bound(self._host, self.port), backlog=_BACKLOG
        )

    def refuse(self) -> None:
        """Stop listening and reset every open connection; does nothing when closed already."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        if self._http is not None:
            for connection in self._http.connections:
                reset(connection.transport)

    def release(self) -> None:
        """Give the port back; for a listener that is not open."""
        self._held.close()

    async def close(self) -> None:
        """Stop listening, end every connection, and give the port back."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._http is not None:
            await self._http.shutdown(0.2)
        self.release()


def reset(transport: asyncio.BaseTransport | None) -> None:
    """End a connection with RST, so that its client sees a reset and no orderly end."""
    if transport is None or transport.is_closing():
        return
    sock = cast("socket.socket | None", transport.get_extra_info("socket"))
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    cast(asyncio.Transport, transport).abort()


def _bound(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise SettingsError(
            f"port {port} of {host} can't be had ({error.strerror}); choose another, or 0 for a free one"
        ) from error
    sock.settimeout(0)
    return sock
