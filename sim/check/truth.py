"""What the simulated market really traded, and when each version of a bar became visible."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

Values = tuple[float | None, float | None, float | None, float | None, float | None]
"""Open, high, low, close, volume; all None for a tombstone."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a bar."""

    reveal: float
    """Market epoch seconds from which it can be seen."""
    values: Values


@dataclass(frozen=True, slots=True)
class TrueBar:
    """One bar of the market: every version it ever has, oldest first; none when nothing traded."""

    symbol: str
    interval: str
    ts: int
    """Start, epoch seconds; for daily bars the session's open."""
    expected: bool
    halted: bool
    versions: tuple[Version, ...]


class Admin:
    """The simulator's admin port."""

    def __init__(self, base: str) -> None:
        self._base = base

    def get(self, path: str, **query: Any) -> Any:
        """A JSON answer."""
        return json.loads(self._read(path, query))

    def lines(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """An NDJSON answer, one object at a time."""
        address = f"{self._base}{path}?{urlencode(query)}"
        with urlopen(address, timeout=120) as answer:  # noqa: S310 - loopback
            for line in answer:
                if line.strip():
                    yield json.loads(line)

    def post(self, path: str) -> None:
        """An empty question."""
        request = Request(f"{self._base}{path}", data=b"{}", method="POST")  # noqa: S310 - loopback
        with urlopen(request, timeout=60) as answer:  # noqa: S310
            answer.read()

    def _read(self, path: str, query: dict[str, Any]) -> bytes:
        with urlopen(f"{self._base}{path}?{urlencode(query)}", timeout=60) as answer:  # noqa: S310
            return answer.read()


def read_truth(
    admin: Admin, interval: str, start: float, end: float
) -> dict[tuple[str, int], TrueBar]:
    """Every bar that starts in ``[start, end)``, untraded expected ones included."""
    bars: dict[tuple[str, int], TrueBar] = {}
    for row in admin.lines(
        "/admin/truth/bars", interval=interval, start=start, end=end, untraded=1
    ):
        versions = tuple(
            Version(float(v["reveal"]), (v["o"], v["h"], v["l"], v["c"], v["v"]))
            for v in row["versions"]
        )
        bar = TrueBar(
            row["symbol"], interval, int(row["ts"]), row["expected"], row["halted"], versions
        )
        bars[(bar.symbol, bar.ts)] = bar
    return bars
