"""The last inch of the wire: what the HTTP libraries must not do behind our back."""

import gzip
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from core.clock import SystemClock
from core.errors import (
    AuthRejectedError,
    BadRequestError,
    MalformedPayloadError,
    NotEntitledError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitedError,
    SymbolNotFoundError,
)
from core.words import Capability
from providers.base import Request
from tests.contract.conftest import KEY, NEW_YORK, VENDORS, Case, MakeCase, between
from tests.contract.scripted_server import Script, ScriptedServer, always, reply, reset

HOUR = between("2024-03-07T14:30", "2024-03-07T15:30")
REQUEST = Request(Capability.BARS_1M, ("BUSY",), HOUR)
EMPTY = {name: vendor.empty for name, vendor in VENDORS.items()}

Serve = Callable[[str, Script], tuple[Case, ScriptedServer]]


@pytest.fixture
def serve(make_case: MakeCase) -> Iterator[Serve]:
    """A provider that talks to a server with a script."""
    servers: list[ScriptedServer] = []

    def run(name: str, script: Script) -> tuple[Case, ScriptedServer]:
        server = ScriptedServer(script)
        servers.append(server)
        return make_case(name, **{VENDORS[name].url: server.url}), server

    yield run
    for server in servers:
        server.close()


def ask(case: Case, timeout_s: float = 3.0) -> object:
    (call,) = case.provider.plan(REQUEST)
    return case.provider.parse(call, case.provider.send(call, timeout_s), NEW_YORK)


everyone = pytest.mark.parametrize("name", list(VENDORS))


@everyone
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


def counted(name: str, opened: list[int]) -> Script:
    """Empty answers; a mark in ``opened`` for each connection."""

    def script(connection: socket.socket, number: int) -> bool:
        if number == 1:
            opened.append(connection.fileno())
        connection.sendall(reply(200, EMPTY[name]))
        return True

    return script


@everyone
def test_connections_are_as_many_as_requests_at_once(serve: Serve, name) -> None:
    opened: list[int] = []
    case, server = serve(name, counted(name, opened))

    def work() -> None:
        for _ in range(10):
            ask(case)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(server.arrived) == 40
    assert 1 <= len(opened) <= 4


@everyone
def test_a_thread_goes_on_with_the_connection_of_another(serve: Serve, name) -> None:
    opened: list[int] = []
    case, server = serve(name, counted(name, opened))

    for _ in range(5):
        thread = threading.Thread(target=ask, args=(case,))
        thread.start()
        thread.join()

    assert len(server.arrived) == 5
    assert len(opened) == 1


@everyone
def test_connections_that_rested_are_closed_and_others_are_not(
    serve: Serve, name, monkeypatch: pytest.MonkeyPatch, wait_until
) -> None:
    crowd = threading.Barrier(3)

    def script(connection: socket.socket, number: int) -> bool:
        if number == 1:
            crowd.wait(timeout=10)
        connection.sendall(reply(200, EMPTY[name]))
        return True

    case, server = serve(name, script)
    threads = [threading.Thread(target=ask, args=(case, 10.0)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    case.provider.close_rested()
    ask(case)
    assert len(server.open) == 3

    used = SystemClock().monotonic()
    SystemClock().sleep(0.2)
    ask(case)
    for module in ("wire", "finnhub"):
        monkeypatch.setattr(f"providers.{module}.REST_S", SystemClock().monotonic() - used)
    case.provider.close_rested()
    wait_until(lambda: len(server.open) == 1, what="the two that rested are closed")

    ask(case)
    assert len(server.open) == 1
    assert len(server.arrived) == 6


@everyone
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


@everyone
def test_a_reply_that_breaks_off_is_no_answer(serve: Serve, name) -> None:
    def script(connection: socket.socket, _number: int) -> bool:
        connection.sendall(reply(200, EMPTY[name])[:-3])
        return False

    with pytest.raises((ProviderUnavailableError, MalformedPayloadError)):
        ask(serve(name, script)[0])


@everyone
def test_a_redirect_is_not_followed(serve: Serve, name) -> None:
    case, server = serve(name, always(reply(302, b"", "Location: /elsewhere")))

    with pytest.raises(ProviderUnavailableError, match="302"):
        ask(case)

    assert len(server.arrived) == 1


@everyone
def test_compressed_replies_are_read(serve: Serve, name) -> None:
    body = gzip.compress(EMPTY[name])

    case, _ = serve(name, always(reply(200, body, "Content-Encoding: gzip")))

    assert ask(case)


@everyone
def test_a_reply_that_claims_to_be_compressed_is_malformed_or_broken(serve: Serve, name) -> None:
    case, _ = serve(name, always(reply(200, EMPTY[name], "Content-Encoding: gzip")))

    with pytest.raises((MalformedPayloadError, ProviderUnavailableError)):
        ask(case)


@everyone
def test_what_is_no_http_is_no_answer(serve: Serve, name) -> None:
    with pytest.raises((MalformedPayloadError, ProviderUnavailableError)):
        ask(serve(name, always(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"))[0])


@everyone
@pytest.mark.parametrize("body", [b"null", b"[]", b"7", b'"text"', b"{}", b"\xff\xfe", b'{"s":1}'])
def test_no_body_trips_the_adapter(serve: Serve, name, body: bytes) -> None:
    for status in (200, 400, 403, 500):
        if status == 200 and body == EMPTY[name]:
            continue
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
        ("alphavantage", 404, b"<html>nginx</html>", ProviderUnavailableError),
        ("alphavantage", 403, b"<html>Forbidden</html>", AuthRejectedError),
        ("alphavantage", 429, b"<html>Cloudflare</html>", RateLimitedError),
        ("alphavantage", 502, b"", ProviderUnavailableError),
        ("alpaca.sip", 401, b'{"message":"unauthorized."}', AuthRejectedError),
        ("alpaca.iex", 403, b'{"message":"forbidden."}', AuthRejectedError),
        (
            "alpaca.sip",
            403,
            b'{"message":"subscription does not permit querying recent SIP data"}',
            NotEntitledError,
        ),
        ("alpaca.sip", 422, b'{"message":"end is too late for subscription"}', NotEntitledError),
        ("alpaca.iex", 400, b'{"message":"invalid symbol: BUSY"}', SymbolNotFoundError),
        ("alpaca.iex", 400, b'{"message":"invalid timeframe"}', BadRequestError),
        ("alpaca.iex", 404, b"<html>nginx</html>", ProviderUnavailableError),
        ("alpaca.iex", 429, b'{"message":"too many requests."}', RateLimitedError),
        ("polygon", 400, b'{"status":"ERROR","error":"bad from"}', BadRequestError),
        ("polygon", 401, b'{"status":"ERROR","error":"Unknown API Key"}', AuthRejectedError),
        ("polygon", 403, b'{"status":"NOT_AUTHORIZED","message":"not entitled"}', NotEntitledError),
        (
            "polygon",
            403,
            b'{"status":"NOT_AUTHORIZED","message":"Your plan does not include this timeframe."}',
            BadRequestError,
        ),
        ("polygon", 404, b"404 page not found", ProviderUnavailableError),
        ("polygon", 429, b"", RateLimitedError),
        ("polygon", 502, b"<html>", ProviderUnavailableError),
        ("binance", 400, b'{"code":-1121,"msg":"Invalid symbol."}', SymbolNotFoundError),
        ("binance", 400, b'{"code":-1120,"msg":"Invalid interval."}', BadRequestError),
        ("binance", 403, b"<html>WAF</html>", RateLimitedError),
        ("binance", 404, b"<html>", ProviderUnavailableError),
        ("binance", 418, b'{"code":-1003,"msg":"IP banned"}', RateLimitedError),
        ("binance", 451, b'{"code":0,"msg":"restricted location"}', NotEntitledError),
        ("binance", 500, b'{"code":-1000,"msg":"unknown"}', ProviderUnavailableError),
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
