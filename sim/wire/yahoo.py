"""Yahoo Finance: which path means what, cookies and crumbs, refusals. Charts and quotes have their own files."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar
from urllib.parse import unquote

import orjson

from sim.config import SourceConfig
from sim.feed import Feed
from sim.limits import Headroom
from sim.market.draws import key_of
from sim.market.model import Market
from sim.reader import Reader
from sim.wire.base import Ask, Call, Reply, Wire, fixed
from sim.wire.yahoo_chart import Chart, chart_error
from sim.wire.yahoo_quote import answer_quotes

_YEAR_S = 31_557_600
_TEXT = "text/plain;charset=utf-8"
_HTML = "text/html;charset=utf-8"
_CONSENT = (
    '<html><body><form method="post" action="/v2/collectConsent">'
    '<input type="hidden" name="csrfToken" value="{token}"/>'
    '<input type="hidden" name="sessionId" value="{session}"/>'
    '<button name="agree" value="agree">Accept</button></form></body></html>'
)


def read_options(reader: Reader) -> Mapping[str, Any]:
    """``float32``: prices as Yahoo's floats; ``crumb_ttl_s``: a crumb's life; ``first_row_zero``: the quirk."""
    return {
        "float32": reader.flag("float32", default=False),
        "crumb_ttl_s": reader.optional_number("crumb_ttl_s", low=1.0),
        "first_row_zero": reader.flag("first_row_zero", default=True),
    }


class YahooWire(Wire):
    """Answers as query1, query2, fc, guce and consent.yahoo.com do; the Host header decides nothing but cookies."""

    prefix: ClassVar[str] = "/yahoo"
    base_path: ClassVar[str] = "/yahoo"

    def __init__(self, config: SourceConfig, market: Market, seed: int) -> None:
        self._market = market
        self._ttl: float | None = config.options["crumb_ttl_s"]
        self._seed = seed
        self._cookie = f"d=AQABB{key_of(seed, 'A3'):016x}&S=AQAAA{key_of(seed, 'S'):016x}"
        self._chart = Chart(
            market,
            float32=config.options["float32"],
            first_row_zero=config.options["first_row_zero"],
        )

    def understand(self, ask: Ask) -> Call:
        path = ask.path.rstrip("/")
        if path.startswith("/v8/finance/chart/"):
            return self._chart.understand(unquote(path.removeprefix("/v8/finance/chart/")), ask)
        match path:
            case "/v7/finance/quote":
                return self._quote(ask)
            case "/v1/test/getcrumb":
                return Call("getcrumb", "session", partial(self._crumb_page, ask))
            case "":
                body = b"<html><body>Not Found on Accelerator</body></html>"
                return fixed("cookie", "session", Reply(404, body, _HTML, self._set_cookie(ask)))
            case "/consent":
                words = {"token": f"{key_of(self._seed, 'csrf'):x}", "session": "3_cc-session_sim"}
                return fixed(
                    "consent", "session", Reply(200, _CONSENT.format(**words).encode(), _HTML)
                )
            case "/v2/collectConsent" | "/copyConsent":
                return fixed("consent", "session", Reply(200, b"", _HTML, self._set_cookie(ask)))
            case _:
                return fixed("unknown", "meta", _unknown(path))

    def too_many(self) -> Reply:
        return Reply(429, b"Edge: Too Many Requests", _TEXT)

    def throttled_200(self) -> Reply:
        return Reply(200, b"Too Many Requests\r\n", _TEXT)

    def outage(self, status: int) -> Reply:
        page = f"<html><head><title>Yahoo</title></head><body>Will be right back: {status}</body></html>"
        return Reply(status, page.encode(), _HTML)

    def quota_headers(self, room: Headroom) -> Mapping[str, str]:
        del room
        return {}

    def _quote(self, ask: Ask) -> Call:
        symbols = tuple(symbol for symbol in ask.query.get("symbols", "").split(",") if symbol)
        answer = partial(self._guarded, ask, partial(answer_quotes, self._market, symbols))
        return Call("quote", "quotes_l1", answer, symbols)

    def _guarded(self, ask: Ask, answer: partial[Reply], feed: Feed) -> Reply:
        if not self._has_cookie(ask) or ask.query.get("crumb") not in self._crumbs(feed.now):
            return _unauthorized("Invalid Crumb")
        return answer(feed)

    def _crumb_page(self, ask: Ask, feed: Feed) -> Reply:
        if not self._has_cookie(ask):
            return _unauthorized("Invalid Cookie")
        return Reply(200, self._crumbs(feed.now)[0].encode(), _TEXT)

    def _crumbs(self, now: float) -> tuple[str, ...]:
        """The crumb given out now."""
        era = 0 if self._ttl is None else int(now // self._ttl)
        return (f"{key_of(self._seed, 'crumb', era):016x}"[:11],)

    def _has_cookie(self, ask: Ask) -> bool:
        return f"A3={self._cookie}" in ask.headers.get("Cookie", "")

    def _set_cookie(self, ask: Ask) -> Mapping[str, str]:
        # No Secure attribute: the simulator speaks plain HTTP, where clients would not send it back.
        host = ask.headers.get("Host", "").partition(":")[0]
        domain = " Domain=.yahoo.com;" if host.endswith("yahoo.com") else ""
        return {
            "Set-Cookie": f"A3={self._cookie}; Max-Age={_YEAR_S};{domain} Path=/; SameSite=None; HttpOnly"
        }


def _unauthorized(text: str) -> Reply:
    error = {"code": "Unauthorized", "description": text}
    return Reply(401, orjson.dumps({"finance": {"result": None, "error": error}}))


def _unknown(path: str) -> Reply:
    if path.startswith("/v10/finance/quoteSummary/"):
        error = {"code": "Not Found", "description": "Quote not found for symbol"}
        return Reply(404, orjson.dumps({"quoteSummary": {"result": None, "error": error}}))
    return chart_error(404, "Not Found", "HTTP 404 Not Found")
