"""Measure 5: CPU of a collected symbol with each provider, routed and bare, beside the vendor's client and HTTP.

One thread, turn by turn, the same symbols and window for all. What HTTP costs at least is the same URL, asked
by the project's own wire and thrown away. Vendors' clients are asked as their documentation shows.
"""

import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch
from urllib.parse import urlencode, urlsplit

from bench.report import at_most
from bench.routing.market import Stage, stage
from bench.run import MeasureError, Run
from core.settings import Settings, adopt, load
from core.windows import Window, floor_to
from core.words import Capability, Interval, Share
from db import calendars
from providers import wire
from providers.base import Call, Provider, Request
from routing.router import Router
from workers.wiring import build_router, build_sources

_AMPLE = "1000000/60s"
_MINUTES = 5
_STEP = Interval.M1.delta

Work = Callable[[int], object]
"""Asks once; the number tells which symbols."""


@dataclass(frozen=True, slots=True)
class _Case:
    """One provider and capability."""

    source: str
    capability: Capability
    batch: int
    client: Callable[[Stage, Sequence[str], Window], Work] | None
    """Makes the vendor's client ask for the same; None where it has no call for it."""


def measure(run: Run) -> None:
    """Every provider in turn."""
    cases = (
        _Case("finnhub", Capability.QUOTES_L1, 1, _finnhub_quotes),
        _Case("finnhub", Capability.BARS_1M, 1, _finnhub_bars),
        _Case("yfinance", Capability.BARS_1M, 1, _yfinance_bars),
        _Case("polygon", Capability.BARS_1M, 1, _polygon_bars),
        _Case("alpaca.sip", Capability.BARS_1M, 50, _alpaca_bars),
        _Case("alphavantage", Capability.QUOTES_L1, 1, _alphavantage_quotes),
        _Case("binance", Capability.BARS_1M, 1, _binance_bars),
    )
    names = ("finnhub", "yahoo", "polygon", "alpaca", "alphavantage", "binance")
    with stage(run, {name: {} for name in names}, symbols=100) as made:
        shares = [_one(run, made, case) for case in cases]
    run.report.number(
        "overhead_ratio_max",
        "routing of a call over the bare call's CPU, worst",
        max(shares),
        "",
        at_most(0.1),
    )


def _one(run: Run, made: Stage, case: _Case) -> float:
    run.say(f"  {case.source} {case.capability}")
    settings = _settings(made)
    names = made.symbols()
    end = floor_to(made.clock.now(), _STEP)
    window = None if case.capability.interval is None else Window(end - _MINUTES * _STEP, end)
    with ExitStack() as closing_all:
        sources = build_sources(settings, made.clock)
        source = next(source for source in sources if source.name == case.source)
        provider = source.provider
        if provider is None:
            raise MeasureError(f"{case.source}: {source.ineligible}")
        router = build_router(settings, made.clock, made.place.db, sources=sources)
        closing_all.enter_context(closing(router))
        bare, routed, floor = _ours(made, case, provider, router, names, window)
        works: dict[str, Work] = {"bare": bare, "routed": routed, "floor": floor}
        if case.client is not None:
            works["client"] = case.client(made, names, window or Window(end - _STEP, end))
        cpu_ms = _cpu(run, works)
    key = f"{case.source}_{case.capability}".replace(".", "_")
    report, batch = run.report, case.batch
    routed_ms = cpu_ms["routed"] / batch
    report.number(
        f"cpu_ms_{key}", f"{case.source} {case.capability}: CPU a symbol, routed", routed_ms, "ms"
    )
    report.number(
        f"calls_per_core_{key}", "  calls a second and core", 1000 / cpu_ms["routed"], "/s"
    )
    report.ratio(
        f"floor_{key}_ratio", "  against HTTP alone", cpu_ms["routed"], cpu_ms["floor"], "ms"
    )
    if "client" in cpu_ms:
        report.ratio(
            f"client_{key}_ratio",
            "  against the vendor's client",
            cpu_ms["routed"],
            cpu_ms["client"],
            "ms",
        )
    overhead = cpu_ms["routed"] / cpu_ms["bare"] - 1
    report.number(f"overhead_{key}", "  routing over the bare call", overhead)
    return overhead


def _settings(made: Stage) -> Settings:
    with patch.dict(os.environ, made.settings()):  # noqa: TID251 - for the time of reading
        own = load(Path("/nonexistent/.env"))
    limits = ("finnhub", "yfinance", "polygon", "alpaca", "alpha_vantage", "binance")
    return adopt(own, {**{f"{name}_limits": _AMPLE for name in limits}, **_plans()})


def _plans() -> Mapping[str, str]:
    return {
        "finnhub_premium": "true",
        "alpha_vantage_plan": "realtime",
        "alpaca_sip_realtime": "true",
        "polygon_plan": "advanced",
    }


def _ours(
    made: Stage,
    case: _Case,
    provider: Provider,
    router: Router,
    names: Sequence[str],
    window: Window | None,
) -> tuple[Work, Work, Work]:
    with made.place.db.transaction() as conn:
        calendar = calendars.require(conn, ["24/7"])["24/7"]

    def call_of(number: int) -> Call:
        symbols = tuple(names[(number + n) % len(names)] for n in range(case.batch))
        return provider.plan(Request(case.capability, symbols, window))[0]

    def ask(call: Call) -> None:
        raw = provider.send(call, 5.0)
        provider.parse(call, raw, calendar)

    def routed(number: int) -> None:
        lease = router.acquire(
            case.capability,
            share=Share.LIVE,
            pinned=case.source,
            deadline=made.clock.monotonic() + 5,
        )
        call = call_of(number)
        began = made.clock.monotonic()
        raw = provider.send(call, 5.0)
        provider.parse(call, raw, calendar)
        lease.answered(made.clock.monotonic() - began, endpoint=call.endpoint, headers=raw.headers)

    asked: list[tuple[Any, ...]] = []
    get = wire.Wire.get

    def noted(self: wire.Wire, url: str, timeout_s: float, *, cookie: str = "") -> Any:
        asked.append((self, url, cookie))
        return get(self, url, timeout_s, cookie=cookie)

    with patch.object(wire.Wire, "get", noted):
        for number in range(10):
            ask(call_of(number))
    if not asked:
        # The adapter asks through the vendor's client: the same paths by our wire.
        own = wire.Wire(direct=True)
        path = {Capability.QUOTES_L1: "quote", Capability.BARS_1M: "stock/candle"}[case.capability]
        for number in range(10):
            call = call_of(number)
            query = urlencode({**call.params, "symbol": call.symbols[0], "token": "key"})
            asked.append((own, f"{_url(made, case.source)}/{path}?{query}", ""))

    def floor(number: int) -> None:
        own, url, cookie = asked[-10:][number % 10]
        get(own, url, 5.0, cookie=cookie)

    return lambda number: ask(call_of(number)), routed, floor


def _cpu(run: Run, works: Mapping[str, Work]) -> dict[str, float]:
    """CPU ms of a call in this process: the median of many short turns, all sides in alternation."""
    turns, calls = run.size(150, 12), 10
    taken: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        for number in range(calls):
            work(number)
    for turn in range(turns):
        order = list(works.items())
        for name, work in order if turn % 2 == 0 else reversed(order):
            began = time.process_time()
            for number in range(calls):
                work(turn * calls + number)
            taken[name].append(1000 * (time.process_time() - began) / calls)
    return {name: median(times) for name, times in taken.items()}


def _url(made: Stage, source: str) -> str:
    return made.endpoints["sources"][source]["base_url"]


def _finnhub(made: Stage) -> Any:
    import finnhub  # noqa: PLC0415 - a development package

    class Client(finnhub.Client):
        API_URL: str = _url(made, "finnhub")

    client = Client("key")
    client._session.trust_env = False  # noqa: SLF001 - the loopback needs no proxy
    return client


def _finnhub_quotes(made: Stage, names: Sequence[str], _window: Window) -> Work:
    client = _finnhub(made)
    return lambda number: client.quote(names[number % len(names)])


def _finnhub_bars(made: Stage, names: Sequence[str], window: Window) -> Work:
    client = _finnhub(made)
    start, end = int(window.start.timestamp()), int(window.end.timestamp()) - 1
    return lambda number: client.stock_candles(names[number % len(names)], "1", start, end)


def _polygon_bars(made: Stage, names: Sequence[str], window: Window) -> Work:
    from massive import RESTClient  # noqa: PLC0415

    client = RESTClient("key", base=_url(made, "polygon"), retries=0)
    start, end = int(window.start.timestamp() * 1000), int(window.end.timestamp() * 1000) - 1
    return lambda number: list(
        client.get_aggs(names[number % len(names)], 1, "minute", start, end, adjusted=False)
    )


def _alpaca_bars(made: Stage, names: Sequence[str], window: Window) -> Work:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from alpaca.data.enums import Adjustment, DataFeed  # noqa: PLC0415
        from alpaca.data.historical import StockHistoricalDataClient  # noqa: PLC0415
        from alpaca.data.requests import StockBarsRequest  # noqa: PLC0415
        from alpaca.data.timeframe import TimeFrame  # noqa: PLC0415

    client: Any = StockHistoricalDataClient("key", "secret", url_override=_url(made, "alpaca"))
    client._session.trust_env = False  # noqa: SLF001
    minute: Any = TimeFrame.Minute

    def work(number: int) -> object:
        symbols = [names[(number + n) % len(names)] for n in range(50)]
        return client.get_stock_bars(
            StockBarsRequest(
                symbol_or_symbols=symbols,
                timeframe=minute,
                start=window.start,
                end=window.end - timedelta(seconds=1),
                feed=DataFeed.SIP,
                adjustment=Adjustment.RAW,
            )
        )

    return work


def _alphavantage_quotes(made: Stage, names: Sequence[str], _window: Window) -> Work:
    from alpha_vantage.alphavantage import AlphaVantage  # noqa: PLC0415
    from alpha_vantage.timeseries import TimeSeries  # noqa: PLC0415

    base: Any = AlphaVantage
    base._ALPHA_VANTAGE_API_URL = f"{_url(made, 'alphavantage')}/query?"  # noqa: SLF001
    client = TimeSeries(key="key", output_format="json")
    return lambda number: client.get_quote_endpoint(symbol=names[number % len(names)])


def _binance_bars(made: Stage, names: Sequence[str], window: Window) -> Work:
    from binance_common.configuration import ConfigurationRestAPI  # noqa: PLC0415
    from binance_sdk_spot.spot import Spot  # noqa: PLC0415

    words = ConfigurationRestAPI(base_path=_url(made, "binance"), retries=0, timeout=10_000)
    client: Any = Spot(config_rest_api=words).rest_api
    client._session.trust_env = False  # noqa: SLF001
    start, end = int(window.start.timestamp() * 1000), int(window.end.timestamp() * 1000) - 1
    return lambda number: client.klines(
        names[number % len(names)], "1m", start_time=start, end_time=end
    ).data()


def _yfinance_bars(made: Stage, names: Sequence[str], window: Window) -> Work:
    import yfinance  # noqa: PLC0415
    from curl_cffi import CurlOpt  # noqa: PLC0415
    from curl_cffi.requests import Session  # noqa: PLC0415

    port = urlsplit(_url(made, "yahoo")).port

    class Rerouted(Session[Any]):
        """Yahoo's own host names, led to the simulator."""

        def request(self, method: Any, url: str, *args: Any, **more: Any) -> Any:
            parts = urlsplit(url)
            query = f"?{parts.query}" if parts.query else ""
            target = f"http://{parts.hostname}:{port}{parts.path or '/'}{query}"
            return super().request(method, target, *args, **more)

    yfinance.set_tz_cache_location(str(made.folder))
    session: Any = Rerouted(
        curl_options={CurlOpt.RESOLVE: [f"*:{port}:127.0.0.1"]}, trust_env=False
    )
    start, end = (datetime.fromtimestamp(at.timestamp(), UTC) for at in (window.start, window.end))
    return lambda number: yfinance.Ticker(names[number % len(names)], session=session).history(
        start=start, end=end, interval="1m", auto_adjust=False, actions=False, prepost=True
    )
