"""The last inch of the wire: what the HTTP libraries must not do behind our back."""

import gzip
import socket
import threading
from collections.abc import Callable, Iterator

import orjson
import pytest

from core.clock import SystemClock
from core.errors import (
    AuthRejectedError,
    BadRequestError,
    MalformedPayloadError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitedError,
)
from core.words import Capability
from providers.base import Request
from tests.contract.conftest import KEY, NEW_YORK, Case, MakeCase, between
from tests.contract.scripted_server import Script, ScriptedServer, always, reply, reset

HOUR = between("2024-03-07T14:30", "2024-03-07T15:30")
REQUEST = Request(Capability.BARS_1M, ("BUSY",), HOUR)
EMPTY = {
    "yfinance": orjson.dumps(
        {"chart": {"result": [{"meta": {}, "indicators": {"quote": [{}]}}], "error": None}}
    ),
    "finnhub": b'{"s":"no_data"}',
}

Serve = Callable[[str, Script], tuple[Case, ScriptedServer]]


@pytest.fixture
def serve(make_case: MakeCase) -> Iterator[Serve]:
    """A provider that talks to a server with a script."""
    servers: list[ScriptedServer] = []

    def run(name: str, script: Script) -> tuple[Case, ScriptedServer]:
        server = ScriptedServer(script)
        servers.append(server)
        setting = "yahoo_base_url" if name == "yfinance" else "finnhub_base_url"
        return make_case(name, **{setting: server.url}), server

    yield run
    for server in servers:
        server.close()


def ask(case: Case, timeout_s: float = 3.0) -> object:
    (call,) = case.provider.plan(REQUEST)
    return case.provider.parse(call, case.provider.send(call, timeout_s), NEW_YORK)


both = pytest.mark.parametrize("name", ["yfinance", "finnhub"])


@both
def test_a_request_on_a_kept_connection_that_dies_is_not_sent_again(serve: Serve, name) -> None:
    def script(connection: socket.socket, number: int) -> bool:
        if number == 2:
            return reset(connection)
        connection.sendall(reply(200, EMPTY[name]))
        return True

    case, server = serve(name, script)
    ask(case)

    with pytest.raises(ProviderUnavailableError):
        ask(case)

    assert len(server.arrived) == 2
    ask(case)
    assert len(server.arrived) == 3


@both
def test_connections_are_kept_by_each_thread(serve: Serve, name) -> None:
    connections: set[int] = set()

    def script(connection: socket.socket, _number: int) -> bool:
        connections.add(connection.fileno())
        connection.sendall(reply(200, EMPTY[name]))
        return True

    case, server = serve(name, script)

    def work() -> None:
        for _ in range(10):
            ask(case)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(server.arrived) == 40
    assert len(connections) <= 4


@both
def test_a_reply_that_trickles_is_given_up_in_time(serve: Serve, name) -> None:
    clock, over = SystemClock(), threading.Event()

    def script(connection: socket.socket, _number: int) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not over.wait(0.05):
            connection.sendall(b" ")
        return False

    case, _ = serve(name, script)
    begun = clock.monotonic()

    with pytest.raises(ProviderTimeoutError, match=r"within 0\.5 s"):
        ask(case, timeout_s=0.5)

    over.set()
    assert clock.monotonic() - begun < 1.5


@both
def test_a_reply_that_breaks_off_is_no_answer(serve: Serve, name) -> None:
    def script(connection: socket.socket, _number: int) -> bool:
        connection.sendall(reply(200, EMPTY[name])[:-3])
        return False

    with pytest.raises((ProviderUnavailableError, MalformedPayloadError)):
        ask(serve(name, script)[0])


@both
def test_a_redirect_is_not_followed(serve: Serve, name) -> None:
    case, server = serve(name, always(reply(302, b"", "Location: /elsewhere")))

    with pytest.raises(ProviderUnavailableError, match="302"):
        ask(case)

    assert len(server.arrived) == 1


@both
def test_compressed_replies_are_read(serve: Serve, name) -> None:
    body = gzip.compress(EMPTY[name])

    case, _ = serve(name, always(reply(200, body, "Content-Encoding: gzip")))

    assert ask(case)


@both
def test_a_reply_that_claims_to_be_compressed_is_malformed_or_broken(serve: Serve, name) -> None:
    case, _ = serve(name, always(reply(200, EMPTY[name], "Content-Encoding: gzip")))

    with pytest.raises((MalformedPayloadError, ProviderUnavailableError)):
        ask(case)


@both
def test_what_is_no_http_is_no_answer(serve: Serve, name) -> None:
    with pytest.raises((MalformedPayloadError, ProviderUnavailableError)):
        ask(serve(name, always(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"))[0])


@both
@pytest.mark.parametrize("body", [b"null", b"[]", b"7", b'"text"', b"{}", b"\xff\xfe", b'{"s":1}'])
def test_no_body_trips_the_adapter(serve: Serve, name, body: bytes) -> None:
    for status in (200, 400, 403, 500):
        with pytest.raises(ProviderError):
            ask(serve(name, always(reply(status, body)))[0])


@pytest.mark.parametrize(
    ("name", "status", "body", "error"),
    [
        ("yfinance", 404, b"<html>nginx</html>", ProviderUnavailableError),
        ("yfinance", 403, b"<html>Forbidden</html>", AuthRejectedError),
        ("yfinance", 400, b"Bad Request", BadRequestError),
        ("yfinance", 408, b"", ProviderUnavailableError),
        ("yfinance", 429, b"Edge: Too Many Requests", RateLimitedError),
        ("finnhub", 404, b"<html>nginx</html>", ProviderUnavailableError),
        ("finnhub", 403, b'{"error":"Invalid API key"}', AuthRejectedError),
        ("finnhub", 422, b'{"error":"Wrong resolution"}', BadRequestError),
        ("finnhub", 429, b'{"error":"Please sign up for a free account"}', AuthRejectedError),
        ("finnhub", 500, b"null", ProviderUnavailableError),
        ("finnhub", 504, b"upstream", ProviderUnavailableError),
    ],
)
def test_statuses_mean_what_the_words_beside_them_say(
    serve: Serve, name, status: int, body: bytes, error: type[ProviderError]
) -> None:
    with pytest.raises(ProviderError) as caught:
        ask(serve(name, always(reply(status, body)))[0])

    assert type(caught.value) is error
    assert KEY not in str(caught.value)


def test_a_key_that_the_provider_echoes_is_masked(serve: Serve) -> None:
    case, _ = serve("finnhub", always(reply(401, f'{{"error":"bad key {KEY}"}}'.encode())))

    with pytest.raises(AuthRejectedError, match=r"bad key \*\*\*"):
        ask(case)


def test_the_key_travels_only_to_the_provider(serve: Serve) -> None:
    case, server = serve("finnhub", always(reply(200, EMPTY["finnhub"])))

    ask(case)

    assert f"token={KEY}" in server.arrived[0]


@pytest.mark.parametrize("symbol", ["^GSPC", "EURUSD=X", "BRK-B", "A/B", "Ü&x=1"])
def test_symbols_are_encoded_whole(serve: Serve, symbol: str) -> None:
    case, server = serve("yfinance", always(reply(200, EMPTY["yfinance"])))
    (call,) = case.provider.plan(Request(Capability.BARS_1M, (symbol,), HOUR))

    case.provider.send(call, 3.0)

    path = server.arrived[0].split(" ")[1].partition("?")[0]
    assert path.count("/") == 4
    assert "&" not in path
