"""The proxy between our processes and their servers, against a real listening socket."""

import socket
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager

import pytest

from chaos.proxy import Proxy


@contextmanager
def _echo() -> Generator[int]:
    """A server that sends everything back."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=_send_back, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def _send_back(connection: socket.socket) -> None:
    with connection:
        try:
            while data := connection.recv(1024):
                connection.sendall(data)
        except OSError:
            return


@pytest.fixture
def proxy() -> Generator[Proxy]:
    with _echo() as port, closing(Proxy(port)) as made:
        yield made


def _connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def _says_back(connection: socket.socket) -> bool:
    try:
        connection.sendall(b"hello")
        return connection.recv(16) == b"hello"
    except ConnectionError:
        return False


def test_it_carries_both_directions(proxy: Proxy) -> None:
    with _connect(proxy) as connection:
        assert _says_back(connection)


def test_a_cut_resets_what_is_open_and_lets_new_connections_in(proxy: Proxy) -> None:
    with _connect(proxy) as connection:
        assert _says_back(connection)
        assert proxy.cut() == 1
        assert not _says_back(connection)
    with _connect(proxy) as connection:
        assert _says_back(connection)


def test_refused_until_accepted_again(proxy: Proxy) -> None:
    proxy.cut(refuse=True)
    with _connect(proxy) as connection:
        assert not _says_back(connection)
    proxy.accept()
    with _connect(proxy) as connection:
        assert _says_back(connection)


def test_a_server_that_is_away_is_a_connection_that_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with closing(Proxy(port)) as proxy, _connect(proxy) as connection:
        assert not _says_back(connection)


def test_the_end_of_one_side_ends_the_other(proxy: Proxy) -> None:
    with _connect(proxy) as connection:
        assert _says_back(connection)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(16) == b""
