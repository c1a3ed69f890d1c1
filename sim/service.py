"""The running simulator: market, sources, faults, log and admin port in one event loop."""

import asyncio
import gc
import os
import resource
from collections.abc import Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from core.clock import Segment
from sim.clock import MarketTime
from sim.config import SimConfig, SourceConfig
from sim.faults import Fault, FaultPlan, FaultSpec
from sim.listener import Listener
from sim.log import RequestLog
from sim.market.model import build_market, instant
from sim.source import Source
from sim.wire.registry import WIRES

_FLUSH_S = 1.0
_LAG_LOOK_S = 0.05
_EASE = 0.95
"""How slowly the shown event-loop lag forgets, per look."""


class Service:
    """Built from a config; ``run`` serves until ``stopping`` is set."""

    def __init__(self, config: SimConfig) -> None:
        self.config = config
        self.time = MarketTime(config.segments)
        self.market = build_market(config.market, self.time.timestamp())
        self.faults = FaultPlan(config.market.seed)
        for spec in config.faults:
            self.add_fault(spec)
        with ExitStack() as undo:
            mark = self.market.mark(config.market) if config.log_kept else None
            self.log = RequestLog(config.log_file, self.time.timestamp, kept_for=mark)
            undo.callback(self.log.close)
            self.sources: dict[str, Source] = {}
            for name, source in config.sources.items():
                self.sources[name] = self._source(source)
                undo.callback(self.sources[name].release)
            self._admin = Listener(config.host, config.admin_port)
            # From here on `run` closes them.
            undo.pop_all()
        self.stopping = asyncio.Event()
        self._lag_s = 0.0
        self._worst_lag_s = 0.0

    def _source(self, config: SourceConfig) -> Source:
        return Source(
            config,
            WIRES[config.name].make(config, self.market, self.config.market.seed),
            self.market,
            self.time,
            self.faults,
            self.log,
            self.config.host,
        )

    def add_fault(self, spec: FaultSpec) -> Fault:
        """Put a fault on the timeline; ``now`` and HH:MM become instants here."""
        start = (
            self.time.timestamp()
            if spec.start == "now"
            else instant(spec.start, self.market.session)
        )
        return self.faults.add(spec, start)

    def replay(self, market_start: float, speed: float) -> None:
        """Let market time start at ``market_start`` now and run at ``speed``."""
        self.time.replace([Segment(self.time.real(), market_start, speed)])

    def endpoints(self) -> dict[str, Any]:
        """Where everything listens, and what a client or checker should know of each source."""
        return {
            "admin": f"http://{self.config.host}:{self._admin.port}",
            "pid": os.getpid(),
            "market": self.config.market.kind,
            "seed": self.config.market.seed,
            "session": self.market.session.day.isoformat(),
            "sources": {
                name: {
                    "base_url": source.root_url + source.wire.base_path,
                    "root_url": source.root_url,
                    "provider": source.config.provider,
                    "delay_s": source.config.delay_s,
                    "limits": [
                        {"units": limit.units, "seconds": limit.seconds, "scope": limit.scope}
                        for limit in source.config.limits
                    ],
                    **{key: value for key, value in source.config.options.items() if key != "keys"},
                }
                for name, source in self.sources.items()
            },
        }

    def stats(self) -> dict[str, Any]:
        """Counts since the start, and how late the event loop runs."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "market": self.time.timestamp(),
            "speed": self.time.speed,
            "requests": len(self.log),
            "loop_lag_s": self._lag_s,
            "loop_lag_worst_s": self._worst_lag_s,
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "max_rss_kb": usage.ru_maxrss,
            "sources": {name: source.stats() for name, source in self.sources.items()},
        }

    async def run(self, admin: web.Application, on_ready: asyncio.Future[None]) -> None:
        """Serve until ``stopping`` is set, then close everything in order.

        Args:
            admin: What the admin port answers.
            on_ready: Gets its result once all ports listen.
        """
        runner = web.AppRunner(admin, access_log=None)
        await runner.setup()
        tasks: list[asyncio.Task[None]] = []
        try:
            if runner.server is None:
                raise RuntimeError("the admin server has no listener")
            await self._admin.open(runner.server)
            for source in self.sources.values():
                await source.open()
                tasks.append(_task(source.follow_refusals()))
            tasks += [_task(self._flush_often()), _task(self._watch_lag())]
            # What lives until the end need not be looked at by the collector again.
            gc.collect()
            gc.freeze()
            if self.config.endpoints_file is not None:
                _write_whole(self.config.endpoints_file, orjson.dumps(self.endpoints()))
            on_ready.set_result(None)
            await self._until_stopped(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for source in self.sources.values():
                await source.close()
            await self._admin.close()
            await runner.cleanup()
            self.log.close()

    async def _until_stopped(self, tasks: list[asyncio.Task[None]]) -> None:
        """Wait for the stop; a background task that ends did so by an error, which is raised."""
        stop = asyncio.create_task(self.stopping.wait())
        try:
            await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
        for task in tasks:
            if task.done():
                task.result()

    async def _flush_often(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_S)
            self.log.flush()

    async def _watch_lag(self) -> None:
        while True:
            before = self.time.monotonic()
            await asyncio.sleep(_LAG_LOOK_S)
            late = max(0.0, self.time.monotonic() - before - _LAG_LOOK_S)
            self._worst_lag_s = max(self._worst_lag_s, late)
            self._lag_s = max(late, self._lag_s * _EASE)


def _task(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.create_task(work)


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(content + b"\n")
    draft.replace(path)
