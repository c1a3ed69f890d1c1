"""One HTTP request to a vendor: a kept connection, never sent twice, on request a browser's TLS.

libcurl handles (``curl_cffi.Curl``), set up once and kept, cost a fraction of what
``curl_cffi.requests.Session`` costs, and are the only place to stop libcurl from resending.
"""

import re
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from types import MappingProxyType
from typing import Any, cast
from urllib.parse import urlsplit

from curl_cffi import Curl, CurlECode, CurlError, CurlInfo, CurlOpt
from curl_cffi._wrapper import ffi, lib  # pyright: ignore[reportUnknownVariableType] - compiled

from core.clock import SystemClock
from core.errors import (
    MalformedPayloadError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from providers.base import Raw

_NOTHING: Mapping[str, str] = MappingProxyType({})
_AGENT = "gapless"
REST_S = 90.0
"""Real seconds; by then most vendors have closed a connection that rests. Longer than a minute's cadence."""
_LARGEST_REPLY = 32 << 20
_ENCODINGS = "gzip, deflate, br"
_PREREQ_OK, _PREREQ_ABORT = 0, 1
_ffi = cast("Any", ffi)
_lib = cast("Any", lib)
_NULL: Any = _ffi.NULL
_CURL_TEXT = re.compile(r"curl: \(\d+\) (.*?)\. See https://", re.DOTALL)


class Wire:
    """Keeps as many libcurl handles as there were requests at once lately; each has its own connection.

    The handle that rested least is taken first: its connection is the likeliest to be open still,
    and a vendor that is asked now and then costs one handle, not one in every thread.
    """

    def __init__(
        self, *, direct: bool, browser: str = "", headers: Mapping[str, str] = _NOTHING
    ) -> None:
        """Set up what all requests share.

        Args:
            direct: Ignore the proxies that the environment names (for a simulator).
            browser: Whose TLS and headers are shown, by curl_cffi's name of it; empty: our own.
            headers: Sent with every request; may hold keys.
        """
        self._direct = direct
        self._browser = browser
        self._headers = tuple(f"{name}: {value}".encode() for name, value in headers.items())
        self._clock = SystemClock()
        self._idle: deque[_Handle] = deque()
        """The one that rested longest first."""

    def get(self, url: str, timeout_s: float, *, cookie: str = "") -> Raw:
        """Send one GET and return the whole reply, whatever its status.

        Args:
            url: Absolute, encoded.
            timeout_s: Real seconds for everything, connecting included.
            cookie: Value of the Cookie header, empty for none.

        Raises:
            ProviderTimeoutError: the reply was not complete in time.
            ProviderUnavailableError: refused, reset, unresolvable, or broken off.
            MalformedPayloadError: the reply is not HTTP, or larger than 32 MiB.
        """
        try:
            handle = self._idle.pop()
        except IndexError:
            handle = _Handle(direct=self._direct, browser=self._browser, headers=self._headers)
        try:
            return handle.get(url, timeout_s, cookie)
        finally:
            handle.rests_since = self._clock.monotonic()
            self._idle.append(handle)

    def close_rested(self) -> None:
        """Close connections that nobody used for ``REST_S``; requests may be under way meanwhile."""
        since = self._clock.monotonic() - REST_S
        with suppress(IndexError):
            while (handle := self._idle.popleft()).rests_since <= since:
                handle.close()
            self._idle.appendleft(handle)

    def close(self) -> None:
        """Close every connection; no request may be under way."""
        while self._idle:
            self._idle.pop().close()


class _Handle(Curl):
    """A libcurl handle that keeps its options and connections, and sends each request once."""

    def __init__(self, *, direct: bool, browser: str, headers: tuple[bytes, ...]) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]
        if not browser:
            self.setopt(CurlOpt.USERAGENT, _AGENT)
        elif self.impersonate(browser, default_headers=True) != 0:
            raise ProviderUnavailableError(
                f"curl_cffi can't impersonate {browser}; install curl_cffi 0.16 or newer"
            )
        if headers:
            self.setopt(CurlOpt.HTTPHEADER, list(headers))
        self.setopt(CurlOpt.ACCEPT_ENCODING, _ENCODINGS)
        self.setopt(CurlOpt.NOSIGNAL, 1)
        self.setopt(CurlOpt.FOLLOWLOCATION, 0)
        self.setopt(CurlOpt.MAXFILESIZE_LARGE, _LARGEST_REPLY)
        if direct:
            self.setopt(CurlOpt.NOPROXY, "*")
        self.rests_since = 0.0
        """Monotonic seconds."""
        self._sent = [0]
        self._guard = self._send_once(self._sent)

    def get(self, url: str, timeout_s: float, cookie: str) -> Raw:
        body, head = BytesIO(), BytesIO()
        milliseconds = max(int(timeout_s * 1000), 1)
        self._sent[0] = 0
        self.setopt(CurlOpt.URL, url)
        self.setopt(CurlOpt.COOKIE, cookie or _NULL)
        self.setopt(CurlOpt.TIMEOUT_MS, milliseconds)
        self.setopt(CurlOpt.CONNECTTIMEOUT_MS, milliseconds)
        self.setopt(CurlOpt.WRITEDATA, body)
        self.setopt(CurlOpt.HEADERDATA, head)
        try:
            self.perform(clear_headers=False, clear_resolve=False)
        except CurlError as error:
            raise _translated(error, urlsplit(url).netloc, timeout_s) from error
        status = cast("int", self.getinfo(CurlInfo.RESPONSE_CODE))
        return Raw(status, body.getvalue(), _headers(head.getvalue()))

    def _send_once(self, sent: list[int]) -> object:
        """Make libcurl give up where it would resend; returns what must be kept alive meanwhile.

        libcurl repeats a request, up to five times, when a kept connection dies before the first
        byte of the reply. The provider has counted the first one already, our budget would not
        count the second. curl_cffi has no such option, so it is set on the C handle.
        """

        def before_each_request(*_: object) -> int:
            sent[0] += 1
            return _PREREQ_OK if sent[0] == 1 else _PREREQ_ABORT

        handle: Any = cast("Any", self)._curl  # noqa: SLF001 - the C pointer
        guard = _ffi.callback("int(void *, char *, char *, int, int)", before_each_request)
        _lib._curl_easy_setopt(handle, CurlOpt.PREREQFUNCTION, guard)  # noqa: SLF001 - its C name
        return guard


def _translated(error: CurlError, host: str, timeout_s: float) -> ProviderError:
    code = CurlECode(error.code)
    found = _CURL_TEXT.search(str(error))
    text = found[1] if found else code.name
    if code == CurlECode.OPERATION_TIMEDOUT:
        return ProviderTimeoutError(f"{host} gave no complete reply within {timeout_s:g} s")
    if code == CurlECode.ABORTED_BY_CALLBACK:
        return ProviderUnavailableError(f"{host} closed the connection without a reply")
    if code in {
        CurlECode.WEIRD_SERVER_REPLY,
        CurlECode.BAD_CONTENT_ENCODING,
        CurlECode.FILESIZE_EXCEEDED,
        CurlECode.UNSUPPORTED_PROTOCOL,
    }:
        return MalformedPayloadError(f"{host} sent what can't be read: {text}")
    return ProviderUnavailableError(f"{host} can't be reached: {text}")


def _headers(head: bytes) -> dict[str, str]:
    """Headers of the final reply (an informational one may precede it), names in lower case."""
    headers: dict[str, str] = {}
    for line in head.decode("latin-1").split("\r\n"):
        if line.startswith("HTTP/"):
            headers = {}
        name, colon, value = line.partition(":")
        if colon and not line.startswith("HTTP/"):
            headers[name.strip().lower()] = value.strip()
    return headers
