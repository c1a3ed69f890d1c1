"""``/admin/*``: the simulator's own port, JSON."""

import asyncio
import csv
import io
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import date, datetime
from typing import Any, cast

import orjson
from aiohttp import web

from core.errors import GaplessError, UsageError
from sim.config import read_segments
from sim.faults import Fault, read_faults
from sim.market.sessions import sessions_of
from sim.reader import Reader
from sim.service import Service
from sim.truth import truth_lines

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_JSON = "application/json"
_NDJSON = "application/x-ndjson"


class Admin:
    """Answers for one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def app(self) -> web.Application:
        """The routes."""
        app = web.Application(middlewares=[_said_plainly])
        app.add_routes(
            [
                web.get("/admin/health", self._health),
                web.get("/admin/endpoints", self._endpoints),
                web.get("/admin/universe", self._universe),
                web.get("/admin/sessions", self._sessions),
                web.get("/admin/truth/bars", self._truth),
                web.get("/admin/served", self._served),
                web.get("/admin/log", self._log),
                web.get("/admin/stats", self._stats),
                web.post("/admin/flush", self._flush),
                web.get("/admin/clock", self._clock),
                web.post("/admin/clock", self._set_clock),
                web.get("/admin/faults", self._faults),
                web.post("/admin/faults", self._set_faults),
                web.post("/admin/stop", self._stop),
            ]
        )
        return app

    async def _health(self, _request: web.Request) -> web.Response:
        service, session = self._service, self._service.market.session
        return _json(
            {
                "ok": True,
                "market": service.time.timestamp(),
                "real": service.time.real(),
                "speed": service.time.speed,
                "session": session.day.isoformat(),
                "open": session.open,
                "close": session.close,
            }
        )

    async def _endpoints(self, _request: web.Request) -> web.Response:
        return _json(self._service.endpoints())

    async def _universe(self, request: web.Request) -> web.Response:
        rows = [
            {
                "symbol": one.symbol,
                "tier": one.tier.value,
                "exchange": one.exchange,
                "calendar": one.sessions.code,
                "trades_per_minute": round(one.rate, 3),
            }
            for one in self._service.market.universe.instruments
        ]
        if request.query.get("format") != "csv":
            return _json(rows)
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["symbol", "exchange", "tier"])
        table.writerows([row["symbol"], row["exchange"], row["tier"]] for row in rows)
        return web.Response(text=text.getvalue(), content_type="text/csv")

    async def _sessions(self, request: web.Request) -> web.Response:
        market = self._service.market
        code = request.query.get("calendar", market.calendar.code)
        start = _day(request, "start") or market.session.day
        end = _day(request, "end")
        sessions = sessions_of(code)
        begin = datetime.fromisoformat(f"{start}T00:00:00+00:00").timestamp() - 86_400
        limit = (
            datetime.fromisoformat(f"{end}T00:00:00+00:00").timestamp()
            if end
            else begin + 3 * 86_400
        )
        return _json(
            [
                {"session": s.day.isoformat(), "open": s.open, "close": s.close}
                for s in sessions.between(begin, limit + 86_400)
                if s.day >= start and (s.day < end if end else s.day == start)
            ]
        )

    async def _truth(self, request: web.Request) -> web.StreamResponse:
        market = self._service.market
        interval = request.query.get("interval", "1m")
        if interval not in ("1m", "1d"):
            raise UsageError(f"interval is {interval!r}; expected 1m or 1d")
        lines = truth_lines(
            market,
            [symbol for symbol in request.query.get("symbols", "").split(",") if symbol],
            interval,
            _instant(request, "start", market.session.pre_open),
            _instant(request, "end", market.session.post_close),
            untraded=request.query.get("untraded", "0") not in ("0", ""),
        )
        return await _stream(request, lines)

    async def _served(self, request: web.Request) -> web.StreamResponse:
        log = self._service.log
        since = _count(request, "since", 0)
        if "from" in request.query:
            since = max(since, log.first_at(_instant(request, "from", 0.0)))
        stop = since + _count(request, "limit", len(log))
        source = request.query.get("source")
        pieces = log.read(since, stop)
        if source is not None:
            pieces = (_only(piece, source) for piece in pieces)
        return await _stream(request, pieces)

    async def _log(self, _request: web.Request) -> web.Response:
        """For which market time the log is whole; a replay has a clock of its own and one log."""
        log, replayed = self._service.log, bool(self._service.time.segments())
        runs = [{"began": None, "ended": None}] if replayed else [asdict(run) for run in log.runs]
        return _json({"requests": len(log), "runs": runs})

    async def _stats(self, _request: web.Request) -> web.Response:
        return _json(self._service.stats())

    async def _flush(self, _request: web.Request) -> web.Response:
        self._service.log.flush()
        return _json({"ok": True, "requests": len(self._service.log)})

    async def _clock(self, _request: web.Request) -> web.Response:
        return _json(self._clock_now())

    async def _set_clock(self, request: web.Request) -> web.Response:
        self._service.time.replace(read_segments(await _body(request)))
        return _json(self._clock_now())

    async def _faults(self, _request: web.Request) -> web.Response:
        return _json(self._fault_rows())

    async def _set_faults(self, request: web.Request) -> web.Response:
        service = self._service
        reader = Reader.root(await _body(request), "faults")
        cleared = reader.raw("clear")
        specs = read_faults(reader, "add", sources=list(service.config.sources))
        reader.finish()
        if not (cleared is None or cleared == "all" or isinstance(cleared, list)):
            reader.problem("clear", f"is {cleared!r}; expected a list of ids, or 'all'")
        if reader.problems:
            raise UsageError("; ".join(reader.problems))
        if cleared is not None:
            service.faults.clear(None if cleared == "all" else cast("list[str]", cleared))
        for spec in specs:
            service.add_fault(spec)
        # Who has the answer finds the ports as the timeline says, not a moment later.
        for source in service.sources.values():
            await source.follow()
        return _json(self._fault_rows())

    async def _stop(self, _request: web.Request) -> web.Response:
        # The answer goes out first.
        asyncio.get_running_loop().call_later(0.05, self._service.stopping.set)
        return _json({"ok": True})

    def _clock_now(self) -> dict[str, Any]:
        time = self._service.time
        segments = [[s.real_start, s.market_start, s.speed] for s in time.segments()]
        return {
            "market": time.timestamp(),
            "real": time.real(),
            "speed": time.speed,
            "segments": segments,
        }

    def _fault_rows(self) -> list[dict[str, Any]]:
        now = self._service.time.timestamp()
        return [_fault_row(fault, now) for fault in self._service.faults.all()]


def _fault_row(fault: Fault, now: float) -> dict[str, Any]:
    return {
        "id": fault.id,
        "source": fault.source,
        "capability": fault.capability,
        "kind": fault.kind,
        "from": fault.start,
        "until": fault.end,
        "share": fault.share,
        **fault.extra,
        "active": fault.start <= now < fault.end,
    }


@web.middleware
async def _said_plainly(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Bad questions get the reason as JSON."""
    try:
        return await handler(request)
    except GaplessError as error:
        return _json({"error": str(error)}, status=400)


async def _stream(request: web.Request, pieces: Any) -> web.StreamResponse:
    """Send pieces one by one, giving way to the sources' requests after each."""
    response = web.StreamResponse(headers={"Content-Type": _NDJSON})
    await response.prepare(request)
    for piece in pieces:
        if piece:
            await response.write(piece)
        await asyncio.sleep(0)
    await response.write_eof()
    return response


async def _body(request: web.Request) -> Any:
    raw = await request.read()
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise UsageError(f"the body is no JSON: {error}") from error


def _json(value: Any, *, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(value), content_type=_JSON)


def _only(piece: bytes, source: str) -> bytes:
    lines = piece.splitlines(keepends=True)
    return b"".join(line for line in lines if orjson.loads(line)["source"] == source)


def _instant(request: web.Request, name: str, default: float) -> float:
    text = request.query.get(name)
    if text is None:
        return default
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{name} is {text!r}; expected epoch seconds or an ISO instant") from error
    if moment.tzinfo is None:
        raise UsageError(f"{name} is {text!r}; expected Z or an offset")
    return moment.timestamp()


def _count(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isdigit():
        raise UsageError(f"{name} is {text!r}; expected a whole number from 0")
    return int(text)


def _day(request: web.Request, name: str) -> date | None:
    text = request.query.get(name)
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{name} is {text!r}; expected a date YYYY-MM-DD") from error
