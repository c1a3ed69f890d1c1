"""An HTTP server that says exactly what a test wrote, byte by byte, and counts what arrives."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

Script = Callable[[socket.socket, int], bool]
"""Answers a request on its connection, given how many that connection had; False closes it."""


class ScriptedServer:
    """Runs until ``close``; every request line that arrived is in ``arrived``, open connections in ``open``."""

    def __init__(self, script: Script) -> None:
        self.arrived: list[str] = []
        self.open: set[socket.socket] = set()
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        # Wakes accept, which a plain close does not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        self.open.add(connection)
        with connection, contextlib.suppress(OSError):
            for number, line in enumerate(_request_lines(connection), start=1):
                self.arrived.append(line)
                if not self._script(connection, number):
                    break
        self.open.discard(connection)


def reply(status: int, body: bytes, *headers: str) -> bytes:
    head = [
        f"HTTP/1.1 {status} Whatever",
        f"Content-Length: {len(body)}",
        "Content-Type: application/json",
        *headers,
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def always(message: bytes) -> Script:
    def script(connection: socket.socket, _number: int) -> bool:
        connection.sendall(message)
        return True

    return script


def reset(connection: socket.socket) -> bool:
    """Close with a reset instead of a farewell."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def _request_lines(connection: socket.socket) -> Iterator[str]:
    buffer = b""
    while True:
        while b"\r\n\r\n" not in buffer:
            part = connection.recv(65_536)
            if not part:
                return
            buffer += part
        head, _, buffer = buffer.partition(b"\r\n\r\n")
        yield head.split(b"\r\n")[0].decode()
