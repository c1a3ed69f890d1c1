"""A running simulator for tests: market time stands still until the test moves it."""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import requests

from core.clock import real_timestamp
from sim.server import SimHandle, start

STILL = 1e-9
"""Market seconds per real second: none that a test would notice."""
TWO_SYMBOLS = [
    {"symbol": "BUSY", "tier": "T0", "exchange": "XNYS"},
    {"symbol": "DULL", "tier": "T2", "exchange": "XNYS"},
]


def moment(text: str) -> int:
    """Epoch seconds of an ISO instant in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


OPEN, CLOSE = moment("2024-03-05T14:30"), moment("2024-03-05T21:00")


def segments(market: float, speed: float = STILL) -> list[list[float]]:
    return [[real_timestamp(), market, speed]]


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Simulator(AbstractContextManager["Simulator"]):
    """``Simulator(at=..., market={...}, sources={...}, faults=[...])``, in a ``with`` block."""

    at: float = OPEN + 3600
    market: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, Any] = field(default_factory=lambda: {"yahoo": {}, "finnhub": {}})
    faults: list[dict[str, Any]] = field(default_factory=list)
    speed: float = STILL

    def __post_init__(self) -> None:
        self.http = requests.Session()
        self.http.trust_env = False
        plain = {"seed": 7, "session": "2024-03-05", "universe": TWO_SYMBOLS}
        self.handle: SimHandle = start(
            {
                "clock": {"segments": segments(self.at, self.speed)},
                "market": plain | self.market if "kind" not in self.market else self.market,
                "sources": self.sources,
                "faults": self.faults,
            }
        )

    def __exit__(self, *_error: object) -> None:
        self.http.close()
        self.handle.stop()

    def url(self, source: str) -> str:
        return self.handle.endpoints["sources"][source]["base_url"]

    def ask(self, method: str, url: str, **words: Any) -> Answer:
        reply = self.http.request(method, url, timeout=10, **words)
        return Answer(reply.status_code, reply.headers, reply.content)

    def yahoo(self, path: str, **words: Any) -> Answer:
        return self.ask("GET", self.url("yahoo") + path, **words)

    def chart(self, symbol: str, **query: Any) -> Answer:
        plain = {"interval": "1m", "includePrePost": "true"}
        return self.yahoo(f"/v8/finance/chart/{symbol}", params=plain | query)

    def rows(
        self, symbol: str, start: float, end: float, **query: Any
    ) -> dict[int, tuple[float | None, ...]]:
        """Rows of a one-minute chart by their stamps."""
        (result,) = self.chart(symbol, period1=int(start), period2=int(end), **query).json["chart"][
            "result"
        ]
        columns = result["indicators"]["quote"][0]
        names = ("open", "high", "low", "close", "volume")
        return {
            ts: tuple(columns[name][n] for name in names)
            for n, ts in enumerate(result.get("timestamp", []))
        }

    def finnhub(self, path: str, token: str | None = "key", **query: Any) -> Answer:
        params = {**query, **({} if token is None else {"token": token})}
        return self.ask("GET", self.url("finnhub") + path, params=params)

    def candles(self, symbol: str, start: float, end: float, resolution: str = "1") -> Any:
        words = {"symbol": symbol, "resolution": resolution, "from": int(start), "to": int(end)}
        return self.finnhub("/stock/candle", **words).json

    def admin(self, path: str, body: Any = None) -> Any:
        url = self.handle.admin + path
        reply = self.ask("GET", url) if body is None else self.ask("POST", url, json=body)
        assert reply.status == 200, reply.body
        return reply.json

    def lines(self, path: str, **query: Any) -> list[dict[str, Any]]:
        reply = self.ask("GET", self.handle.admin + path, params=query)
        assert reply.status == 200, reply.body
        return [json.loads(line) for line in reply.body.splitlines()]

    def move(self, market: float, speed: float = STILL) -> None:
        """Let it be another market instant."""
        self.admin("/admin/clock", {"segments": segments(market, speed)})

    def truth(self, symbol: str, start: float, end: float) -> dict[int, list[tuple[float, ...]]]:
        """Every version by minute, as (reveal, open, high, low, close, volume)."""
        rows = self.lines("/admin/truth/bars", symbols=symbol, start=start, end=end)
        return {
            row["ts"]: [
                tuple(version[name] for name in ("reveal", *"ohlcv")) for version in row["versions"]
            ]
            for row in rows
        }

    def log(self) -> list[dict[str, Any]]:
        return self.lines("/admin/served", since=0)
