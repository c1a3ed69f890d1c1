"""A simulated market that every provider serves: over HTTP, and one from files made of the truth."""

import csv
import json
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pytest

from core.clock import ReplayClock, Segment, SystemClock, real_timestamp
from core.sessions import Calendar, Session
from core.settings import Settings
from core.windows import Window
from core.words import Capability
from providers import csv as csv_files
from providers import finnhub, yfinance
from providers.alpaca import adapter as alpaca
from providers.alphavantage import adapter as alphavantage
from providers.base import Call, Page, Provider, Raw, Request, SessionNotReadyError
from providers.binance import adapter as binance
from providers.polygon import adapter as polygon
from providers.yahoo.session import SessionKeeper
from sim.server import SimHandle, start

NOW = datetime(2024, 3, 7, 16, 0, 30, tzinfo=UTC)
"""Market time when the simulator starts: a Thursday, 90 minutes after New York's open."""
KEY = "key-of-the-contract"
"""Whatever a vendor's secret is called, this is it."""
SESSIONS = [
    date(2024, 2, 5) + timedelta(days=n)
    for n in range(33)
    if (date(2024, 2, 5) + timedelta(days=n)).weekday() < 5 and n != 14  # Presidents' Day
]
NEW_YORK = Calendar(
    "XNYS",
    1,
    SESSIONS[0],
    SESSIONS[-1],
    [
        Session(
            day,
            (
                Window(
                    datetime(day.year, day.month, day.day, 14, 30, tzinfo=UTC),
                    datetime(day.year, day.month, day.day, 21, tzinfo=UTC),
                ),
            ),
        )
        for day in SESSIONS
    ],
)
"""Written by hand: New York was five hours behind UTC until 10 March 2024."""
MARKET = {
    "seed": 11,
    "session": "2024-03-07",
    "universe": [
        {"symbol": "BUSY", "tier": "T0", "exchange": "XNYS"},
        {"symbol": "CALM", "tier": "T1", "exchange": "XNYS"},
        {"symbol": "DULL", "tier": "T2", "exchange": "XNYS"},
    ],
    # A bar is final when its minute ends, so the truth is one number.
    "settle_share": 0,
    "restate_share": 0,
}
SYMBOLS = ("BUSY", "CALM", "DULL")


@dataclass(frozen=True)
class Vendor:
    """What the suite needs to know of a provider that talks HTTP, beside its contract."""

    sim: str
    """The simulator's source that it talks to."""
    url: str
    """Setting of its base URL."""
    build: Callable[[Settings, Any], Provider]
    empty: bytes
    """An answer to a request for bars, without any."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Keys, and a plan that includes everything."""
    dated_quotes: bool = False
    """Its quotes say the day and no time."""
    weight: int = 1
    """Units that a request for bars takes of its limits."""


_ALPACA = {
    "sim": "alpaca",
    "url": "alpaca_base_url",
    "empty": b'{"bars":{},"next_page_token":null}',
    "settings": {
        "alpaca_api_key": KEY,
        "alpaca_secret_key": KEY,
        "alpaca_sip_realtime": True,
    },
}
VENDORS = {
    "yfinance": Vendor(
        "yahoo",
        "yahoo_base_url",
        yfinance.build,
        orjson.dumps(
            {"chart": {"result": [{"meta": {}, "indicators": {"quote": [{}]}}], "error": None}}
        ),
    ),
    "finnhub": Vendor(
        "finnhub",
        "finnhub_base_url",
        finnhub.build,
        b'{"s":"no_data"}',
        {"finnhub_api_key": KEY, "finnhub_premium": True},
    ),
    "alphavantage": Vendor(
        "alphavantage",
        "alpha_vantage_base_url",
        alphavantage.build,
        b'{"Meta Data":{"6. Time Zone":"US/Eastern"},"Time Series (1min)":{}}',
        {"alpha_vantage_api_key": KEY, "alpha_vantage_plan": "realtime"},
        dated_quotes=True,
    ),
    "alpaca.iex": Vendor(build=partial(alpaca.build, feed="iex"), **_ALPACA),
    "alpaca.sip": Vendor(build=partial(alpaca.build, feed="sip"), **_ALPACA),
    "polygon": Vendor(
        "polygon",
        "polygon_base_url",
        polygon.build,
        b'{"ticker":"BUSY","queryCount":0,"resultsCount":0,"adjusted":false,"status":"OK"}',
        {"polygon_api_key": KEY, "polygon_plan": "advanced"},
    ),
    "binance": Vendor("binance", "binance_base_url", binance.build, b"[]", weight=2),
}
"""By the name of the source."""


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def between(start: str, end: str) -> Window:
    return Window(at(start), at(end))


class World:
    """The simulator, its admin door, and a market clock in step with it."""

    def __init__(self) -> None:
        self.segment = Segment(real_timestamp(), NOW.timestamp(), 1.0)
        self.clock = ReplayClock([self.segment])
        self.sim = start(self.config())

    def config(self, **sources: Any) -> dict[str, Any]:
        anchor = [self.segment.real_start, self.segment.market_start, self.segment.speed]
        config: dict[str, Any] = {"clock": {"segments": [anchor]}, "market": MARKET}
        return config | ({"sources": sources} if sources else {})

    def base_url(self, source: str, sim: SimHandle | None = None) -> str:
        return (sim or self.sim).endpoints["sources"][source]["base_url"]

    def get(self, path: str, sim: SimHandle | None = None) -> list[dict[str, Any]]:
        """Lines of an admin page."""
        with urllib.request.urlopen((sim or self.sim).admin + path, timeout=10) as reply:
            return [json.loads(line) for line in reply.read().splitlines()]

    def post(self, path: str, body: object) -> None:
        question = urllib.request.Request(
            self.sim.admin + path, json.dumps(body).encode(), method="POST"
        )
        urllib.request.urlopen(question, timeout=10).close()

    def fault(self, **fields: Any) -> None:
        """Begin a fault now; the test's end clears it."""
        fault = {"source": "*", "capability": "*", "from": "now", "minutes": 60, **fields}
        self.post("/admin/faults", {"add": [fault]})

    def served(self, source: str | None, sim: SimHandle | None = None) -> list[dict[str, Any]]:
        """Data requests that arrived, session requests left out."""
        lines = self.get(f"/admin/served?since=0&source={source}", sim)
        return [line for line in lines if line["capability"] != "session"]

    def truth(self, symbol: str, window: Window, interval: str = "1m") -> list[tuple[Any, ...]]:
        """Start and OHLCV of every bar that traded in the window."""
        query = (
            f"?symbols={symbol}&interval={interval}"
            f"&start={window.start.timestamp():.0f}&end={window.end.timestamp():.0f}"
        )
        return [
            (datetime.fromtimestamp(row["ts"], UTC), *(row["versions"][-1][c] for c in "ohlcv"))
            for row in self.get("/admin/truth/bars" + query)
            if row["expected"]
        ]


@pytest.fixture(scope="session")
def running_world() -> Iterator[World]:
    world = World()
    yield world
    world.sim.stop()


@pytest.fixture
def world(running_world: World) -> Iterator[World]:
    yield running_world
    running_world.post("/admin/faults", {"clear": "all"})


@dataclass
class Case:
    """One provider with what the suite needs to know beside its contract."""

    name: str
    """The source's, which bars are stored under."""
    provider: Provider
    source: str | None
    """The simulator's source that it talks to; None for files."""

    def page(self, capability: Capability, symbol: str, window: Window | None) -> list[Page]:
        """The pages of a request, plan to parse."""
        calls = self.provider.plan(Request(capability, (symbol,), window))
        return [
            self.provider.parse(call, self.provider.send(call, 5.0), NEW_YORK) for call in calls
        ]

    def bars(self, capability: Capability, symbol: str, window: Window) -> list[Any]:
        return [bar for page in self.page(capability, symbol, window) for bar in page.bars[symbol]]

    def sent_when_ready(self, call: Call) -> Raw:
        """The reply to a call that may have to wait for a session of ours."""
        return _patiently(lambda: self.provider.send(call, 3.0))


_Made = TypeVar("_Made")


def _patiently(ask: Callable[[], _Made]) -> _Made:
    """What is there once a session has been made."""
    clock = SystemClock()
    deadline = clock.monotonic() + 60
    while True:
        try:
            return ask()
        except SessionNotReadyError:
            if clock.monotonic() > deadline:
                raise
        clock.sleep(0.05)


MakeCase = Callable[..., Case]


@pytest.fixture(scope="session")
def session_home(running_world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a session that works at the simulator: making one takes a process and seconds."""
    home = tmp_path_factory.mktemp("yahoo")
    keeper = SessionKeeper(running_world.base_url("yahoo"), home, running_world.clock)
    _patiently(keeper.session)
    keeper.close()
    return home


@pytest.fixture
def make_case(world: World, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MakeCase]:
    """Builds a provider by its name, through its own ``build`` and plain settings."""
    made: list[Provider] = []

    def make(name: str, **settings: Any) -> Case:
        chosen: dict[str, Any] = {"_env_file": None, "gapless_home": str(tmp_path / "home")}
        vendor = VENDORS.get(name)
        if vendor is None:
            chosen["csv_dir"] = str(tmp_path / "bars")
            _write_files(world, tmp_path / "bars")
            build, source = csv_files.build, None
        else:
            build, source = vendor.build, vendor.sim
            chosen |= {**vendor.settings, vendor.url: world.base_url(vendor.sim)}
        wanted = settings.pop("session", "made")
        if name == "yfinance" and wanted == "made" and "yahoo_base_url" not in settings:
            made_before = request.getfixturevalue("session_home")
            shutil.copytree(made_before, tmp_path / "home", dirs_exist_ok=True)
        provider = build(Settings(**(chosen | settings)), world.clock)
        made.append(provider)
        return Case(name, provider, source)

    yield make
    for provider in made:
        provider.close()


@pytest.fixture(params=[*VENDORS, "csv"])
def case(request: pytest.FixtureRequest, make_case: MakeCase) -> Case:
    return make_case(request.param)


@pytest.fixture(params=list(VENDORS))
def wired(request: pytest.FixtureRequest, make_case: MakeCase) -> Case:
    """Providers that talk HTTP."""
    return make_case(request.param)


def _write_files(world: World, folder: Path) -> None:
    days = [day for day in SESSIONS if date(2024, 3, 1) <= day <= date(2024, 3, 7)]
    for symbol in SYMBOLS:
        home = folder / symbol
        home.mkdir(parents=True)
        for day in days:
            hours = NEW_YORK.session(day).segments[0]
            until = min(hours.end, NOW.replace(second=0))
            _write(home / f"{day}.csv", "ts", world.truth(symbol, Window(hours.start, until)))
        opens = Window(NEW_YORK.session(days[0]).open, NEW_YORK.session(days[-2]).close)
        daily = world.truth(symbol, opens, "1d")
        _write(home / "daily.csv", "session", [(row[0].date(), *row[1:]) for row in daily])


def _write(path: Path, first: str, rows: list[tuple[Any, ...]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([first, "open", "high", "low", "close", "volume"])
        writer.writerows([(row[0].isoformat(), *row[1:]) for row in rows])
