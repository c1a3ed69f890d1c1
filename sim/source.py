"""One provider's listener: limits, then faults, then the wire, then the log."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from sim.clock import MarketTime
from sim.config import SourceConfig
from sim.faults import ALTERING, WAITING, Fault, FaultPlan
from sim.feed import Feed, Record
from sim.limits import Limiter, Violation
from sim.listener import Listener, reset
from sim.log import RequestLog
from sim.market.model import Market
from sim.wire.base import Ask, Call, Reply, Wire

_LOOK_S = 0.02
"""Real seconds between looks at a connection that is left hanging."""
_EDGE_LOOK_S = 0.25
"""Longest real wait before the timeline of refusals is looked at again: it may have changed."""
GONE = 0
"""Status in the log when no answer was sent."""


class Source:
    """Plays one provider on a port of its own."""

    def __init__(
        self,
        config: SourceConfig,
        wire: Wire,
        market: Market,
        time: MarketTime,
        faults: FaultPlan,
        log: RequestLog,
        host: str,
    ) -> None:
        self.config = config
        self.wire = wire
        self._market = market
        self._time = time
        self._faults = faults
        self._log = log
        self._limiter = Limiter(config.limits)
        self._listener = Listener(host, config.port)
        self._http: web.Server | None = None
        self._following = asyncio.Lock()
        self._statuses: Counter[int] = Counter()
        self._fault_kinds: Counter[str] = Counter()
        self._violations = 0
        self._bytes = 0
        self.root_url = f"http://{host}:{self._listener.port}"

    async def follow_refusals(self) -> None:
        """Open and close the listener as the timeline says, for ever."""
        while True:
            now = self._time.timestamp()
            await self.follow()
            edge = self._faults.next_edge(self.config.name, now)
            wait = _EDGE_LOOK_S if edge is None else min(_EDGE_LOOK_S, self._time.real_until(edge))
            await asyncio.sleep(max(0.001, wait))

    async def follow(self) -> None:
        """Open or close the listener as the timeline says now."""
        # The admin port and the watch over the timeline may both come here.
        async with self._following:
            if self._faults.refused(self.config.name, self._time.timestamp()):
                self._listener.refuse()
            else:
                await self._listen()

    async def open(self) -> None:
        """Listen, unless the timeline begins with a refusal."""
        if not self._faults.refused(self.config.name, self._time.timestamp()):
            await self._listen()

    async def _listen(self) -> None:
        if self._http is None:
            self._http = web.Server(self._handle, access_log=None, keepalive_timeout=300.0)
        await self._listener.open(self._http)

    def release(self) -> None:
        """Give the port back without ever having listened."""
        self._listener.release()

    async def close(self) -> None:
        """Stop listening and give the port back."""
        await self._listener.close()

    def stats(self) -> dict[str, Any]:
        """Counts since the start."""
        return {
            "requests": self._statuses.total(),
            "statuses": {str(status): count for status, count in sorted(self._statuses.items())},
            "violations": self._violations,
            "faults": dict(self._fault_kinds),
            "bytes": self._bytes,
            "limits": [
                {"units": spec.units, "seconds": spec.seconds, "scope": spec.scope, "peak": peak}
                for spec, peak in self._limiter.busiest()
            ],
        }

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        arrived, arrived_real = self._time.timestamp(), self._time.real()
        ask = _ask(request, self.wire.prefix)
        call = self.wire.understand(ask)
        name, capability = self.config.name, call.capability
        violation: Violation | None = None
        faults: Sequence[Fault] = ()
        if not self._faults.refused(name, arrived):
            violation = self.wire.banned(ask.address, arrived) or self._limiter.arrive(
                capability, call.key, ask.address, arrived, call.weight
            )
        if violation is None:
            faults = self._faults.active(name, capability, arrived, request.raw_path)
            if self.config.latency_ms:
                await asyncio.sleep(self.config.latency_ms / 1000)
            if faults:
                await self._delay(request, faults)
        if _is_gone(request):
            feed, reply = Feed(self._market, self._time.timestamp(), self.config.delay_s), None
        else:
            feed, reply = await self._reply(call, violation, faults)
        self._note(call, feed, reply, arrived, arrived_real, violation, faults)
        if reply is None:
            reset(request.transport)
            return web.Response(status=500)
        headers = {"Content-Type": reply.content_type, **reply.headers}
        room = self._limiter.headroom(call.key, ask.address, arrived)
        if room is not None:
            headers.update(self.wire.quota_headers(room))
        return web.Response(status=reply.status, body=reply.body, headers=headers)

    async def _delay(self, request: web.BaseRequest, faults: Sequence[Fault]) -> None:
        """Wait as the faults say: ``slow`` its seconds, ``hang`` until it ends or the client is gone."""
        for fault in faults:
            if fault.kind == "slow":
                await asyncio.sleep(fault.extra["seconds"])
            elif fault.kind == "hang":
                cap = fault.extra["seconds"]
                stop = None if cap is None else self._time.monotonic() + cap
                while not _is_gone(request) and self._time.timestamp() < fault.end:
                    if stop is not None and self._time.monotonic() >= stop:
                        break
                    await asyncio.sleep(_LOOK_S)

    async def _reply(
        self, call: Call, violation: Violation | None, faults: Sequence[Fault]
    ) -> tuple[Feed, Reply | None]:
        """The answer at this instant and the feed that it was read from; no answer means a reset."""
        feed = Feed(self._market, self._time.timestamp(), self.config.delay_s, faults)
        if violation is not None:
            return feed, self.wire.over_limit(violation, call)
        for fault in faults:
            if fault.kind in WAITING or fault.kind in ALTERING:
                continue
            reply = self._broken(fault, call, feed)
            # Nobody can read values from a broken answer.
            feed.record = Record()
            return feed, reply
        if call.prepare is not None:
            for _ in call.prepare(feed):
                await asyncio.sleep(0)
            # Days were built meanwhile; what is shown is the market of now.
            feed = Feed(self._market, self._time.timestamp(), self.config.delay_s, faults)
        return feed, call.answer(feed)

    def _broken(self, fault: Fault, call: Call, feed: Feed) -> Reply | None:
        match fault.kind:
            case "5xx":
                return self.wire.outage(fault.extra["status"])
            case "429":
                after = fault.extra["retry_after_s"]
                reply = self.wire.too_many()
                headers = {} if after is None else {"Retry-After": str(int(-(-after // 1)))}
                return Reply(reply.status, reply.body, reply.content_type, headers)
            case "throttle_200":
                return self.wire.throttled_200()
            case "expired_key":
                return self.wire.expired_key()
            case "garbage":
                return _garbage(call.answer(feed), fault.extra["variant"])
            case _:
                return None

    def _note(
        self,
        call: Call,
        feed: Feed,
        reply: Reply | None,
        arrived: float,
        arrived_real: float,
        violation: Violation | None,
        faults: Sequence[Fault],
    ) -> None:
        status = GONE if reply is None else reply.status
        self._statuses[status] += 1
        self._bytes += 0 if reply is None else len(reply.body)
        self._violations += violation is not None
        for fault in faults:
            self._fault_kinds[fault.kind] += 1
        record = feed.record
        row: dict[str, Any] = {
            "seq": 0,
            "source": self.config.name,
            "endpoint": call.endpoint,
            "capability": call.capability,
            "symbols": call.symbols,
            "window": record.window,
            "arrived": arrived,
            "arrived_real": arrived_real,
            "answered": feed.now,
            "status": status,
            "fault": "+".join(fault.kind for fault in faults) or None,
            "violation": None if violation is None else asdict(violation),
        }
        if call.feed:
            row["feed"] = call.feed
        if record.served:
            row["served"] = record.served
        if record.inline:
            row["inline"] = record.inline
        if record.quotes:
            row["quotes"] = record.quotes
        self._log.append(row)


def _ask(request: web.BaseRequest, prefix: str) -> Ask:
    path, _, query = request.raw_path.partition("?")
    while "//" in path:
        path = path.replace("//", "/")
    if path == prefix or path.startswith(prefix + "/"):
        path = path[len(prefix) :]
    pairs: Mapping[str, str] = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
    return Ask(request.method, path, pairs, request.headers, request.remote or "")


def _is_gone(request: web.BaseRequest) -> bool:
    """Whether the client hung up, so that nothing can be served any more."""
    return request.transport is None or request.transport.is_closing()


def _garbage(reply: Reply, variant: str) -> Reply:
    match variant:
        case "html":
            return Reply(200, b"<!DOCTYPE html><html><body>Hello</body></html>", reply.content_type)
        case "empty":
            return Reply(200, b"", reply.content_type)
        case "wrong_type":
            return Reply(200, b'["this", "is", 1, "list"]', reply.content_type)
        case _:
            return Reply(200, reply.body[: max(1, len(reply.body) * 2 // 3)], reply.content_type)
