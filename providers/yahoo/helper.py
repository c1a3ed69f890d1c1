"""Makes a Yahoo session by the yfinance library, in a short-lived process of its own.

``python -m providers.yahoo.helper`` reads ``{"base_url": "", "timeout_s": 10}`` from stdin and
writes one JSON object to stdout: ``{"cookie", "crumb"}``, or ``{"error": kind, "detail"}`` with the
kinds of ``providers.yahoo.session``. No module of the project imports this one: it loads yfinance
and with it pandas, which a collector does without.
"""

import json
import logging
import re
import signal
import socket
import sys
import tempfile
from typing import Any, cast
from urllib.parse import urlsplit

import yfinance  # pyright: ignore[reportMissingTypeStubs]
from curl_cffi import CurlOpt
from curl_cffi.requests import Session
from curl_cffi.requests.exceptions import RequestException
from yfinance.data import YfData  # pyright: ignore[reportMissingTypeStubs]
from yfinance.exceptions import (  # pyright: ignore[reportMissingTypeStubs]
    YFException,
    YFRateLimitError,
)

from providers.yahoo.browser import BROWSER

_USED_ON = "query1.finance.yahoo.com"
_CRUMB = re.compile(r"[\w.\-/+=\\]{4,64}")


class _SessionOfOurs(Session[Any]):
    """What yfinance talks through: bounded in time, and led to a simulator where one is set.

    Host names stay Yahoo's, so that cookies are set and kept for yahoo.com as they are in earnest.
    """

    def __init__(self, base_url: str, timeout_s: float) -> None:
        self._base = urlsplit(base_url)
        self._timeout_s = timeout_s
        self.answers: list[str] = []
        options: dict[Any, Any] = {}
        if base_url:
            address = socket.gethostbyname(self._base.hostname or "")
            options = {
                CurlOpt.RESOLVE: [f"*:{self._base.port or 80}:{address}"],
                CurlOpt.NOPROXY: "*",
            }
        super().__init__(impersonate=BROWSER, curl_options=options)

    def request(self, method: Any, url: str, *args: Any, **kwargs: Any) -> Any:
        kwargs["timeout"] = self._timeout_s
        parts = urlsplit(url)
        if self._base.hostname and (parts.hostname or "").endswith("yahoo.com"):
            path = f"{self._base.path.rstrip('/')}{parts.path or '/'}"
            url = f"http://{parts.hostname}:{self._base.port or 80}{path}"
            url += f"?{parts.query}" if parts.query else ""
        response: Any = cast("Any", super()).request(method, url, *args, **kwargs)
        self.answers.append(f"{parts.hostname}{parts.path} {response.status_code}")
        return response


def make(base_url: str, timeout_s: float) -> dict[str, str]:
    """The session, or the error, as written to stdout."""
    logging.getLogger("yfinance").setLevel(logging.CRITICAL)
    session = _SessionOfOurs(base_url, timeout_s)
    try:
        # yfinance offers no public way to its crumb; the contract tests hold this one.
        crumb, _ = cast("Any", YfData(session=session))._get_cookie_and_crumb(timeout=timeout_s)  # noqa: SLF001
    except YFRateLimitError:
        return {"error": "rate_limited", "detail": _story(session)}
    except (RequestException, OSError, YFException) as error:
        return {"error": "unavailable", "detail": f"{error}; {_story(session)}"}
    if not isinstance(crumb, str) or not _CRUMB.fullmatch(crumb):
        return {"error": "refused", "detail": _story(session)}
    cookies = [
        f"{cookie.name}={cookie.value}"
        for cookie in cast("Any", session.cookies).jar
        if _matches(cookie.domain)
    ]
    if not cookies:
        return {"error": "refused", "detail": f"no cookie for {_USED_ON}; {_story(session)}"}
    return {"cookie": "; ".join(cookies), "crumb": crumb}


def _matches(domain: str) -> bool:
    bare = domain.lstrip(".")
    return bare == _USED_ON or _USED_ON.endswith(f".{bare}")


def _story(session: _SessionOfOurs) -> str:
    return "answers: " + (", ".join(session.answers) or "none")


def main() -> None:
    """Read the request, print the result; the alarm ends the process whatever hangs."""
    request = json.load(sys.stdin)
    timeout_s = float(request["timeout_s"])
    signal.alarm(int(timeout_s * 3) + 1)
    with tempfile.TemporaryDirectory(prefix="gapless-yahoo-") as cache:
        # A cookie of an earlier run is what may have gone stale: start from none.
        yfinance.set_tz_cache_location(cache)
        result = make(request["base_url"], timeout_s)
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
