"""What a routing measure stands on: a simulator and a Redis of its own, a database with its universe."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from redis import Redis

from bench.run import MeasureError, Place, Run
from core.clock import Clock
from core.exchanges import calendar_of
from core.settings import environment
from core.words import Tier
from db import calendars, universe
from ops.demo.watch import SimAdmin
from ops.embedded.home import Home
from ops.embedded.valkey import ValkeyServer
from ops.simulated import pointed_at

ROOT = Path(__file__).resolve().parents[2]
_READY_S = 30.0
_AROUND = timedelta(days=5)


@dataclass(slots=True)
class Stage:
    """Everything that callers need, running."""

    run: Run
    place: Place
    folder: Path
    """For logs; gone afterwards."""
    endpoints: Mapping[str, Any]
    admin: SimAdmin
    redis: ValkeyServer
    home: Home

    @property
    def clock(self) -> Clock:
        return self.run.clock

    def settings(self, **more: str) -> dict[str, str]:
        """Environment of a process that talks to this stage only."""
        return {
            **pointed_at(self.endpoints),
            "DATABASE_URL": self.place.url,
            "REDIS_URL": self.redis.url,
            "GAPLESS_HOME": str(self.folder / "home"),
            "LOG_LEVEL": "ERROR",
            **more,
        }

    def symbols(self) -> list[str]:
        """Names of the universe that trade in nearly every minute."""
        return [row["symbol"] for row in self.admin.get("/admin/universe") if row["tier"] == "T0"]

    def fault(self, **words: Any) -> None:
        """Put a fault on the timeline, from now on."""
        self.admin.post("/admin/faults", {"add": [{"from": "now", "minutes": 600, **words}]})

    def heal(self) -> None:
        """Take every fault off."""
        self.admin.post("/admin/faults", {"clear": "all"})

    def flush(self) -> None:
        """Lose every key."""
        with Redis.from_url(self.redis.url) as client:
            client.flushall()

    def forget_health(self) -> None:
        """Forget what the fleet knows of its sources; not what was spent, which would count as full."""
        with Redis.from_url(self.redis.url) as client:
            for kind in ("pair", "throttle", "retries"):
                for key in client.scan_iter(f"gapless:{{routing}}:*:{kind}*"):
                    client.delete(key)

    def restart_redis(self) -> float:
        """Stop Redis and start it on its port; returns the real seconds that it was away."""
        began, port = self.clock.monotonic(), self.redis.port
        self.redis.stop()
        self.redis = ValkeyServer.start(self.home, port=port)
        return self.clock.monotonic() - began


@contextmanager
def stage(
    run: Run, sources: Mapping[str, Any], *, symbols: int = 60, durable_redis: bool = True
) -> Generator[Stage]:
    """Build a stage; the market trades round the clock on the machine's own time.

    Args:
        run: The bench.
        sources: The simulator's sources with their settings.
        symbols: How many symbols of the first tier.
        durable_redis: Whether Redis keeps its keys over a restart, as in production.
    """
    folder = Path(tempfile.mkdtemp(prefix="gapless-bench-routing-")).resolve()
    with ExitStack() as ending:
        ending.callback(shutil.rmtree, folder, ignore_errors=True)
        market = {
            "kind": "seeded",
            "seed": 1,
            "symbols": {"T0": symbols, "T1": 0, "T2": 0},
            "exchanges": {"24/7": 1.0},
        }
        endpoints = ending.enter_context(
            _simulator(run, folder, {"market": market, "sources": dict(sources)})
        )
        home = Home(folder / "redis", clock=run.clock)
        redis = ValkeyServer.start(home, durable=durable_redis)
        place = ending.enter_context(run.place())
        made = Stage(run, place, folder, endpoints, SimAdmin(endpoints["admin"]), redis, home)
        ending.callback(_stop_redis, made)
        _load(made)
        yield made


def _stop_redis(made: Stage) -> None:
    # Whichever runs then: it may have been restarted.
    made.redis.stop()


@contextmanager
def _simulator(run: Run, folder: Path, config: Mapping[str, Any]) -> Generator[Mapping[str, Any]]:
    path, answer = folder / "sim.json", folder / "endpoints.json"
    path.write_text(json.dumps({**config, "endpoints_file": str(answer)}))
    with (folder / "sim.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "sim", "--config", str(path), "--log-level", "WARNING"],
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = run.clock.monotonic() + _READY_S
        while not answer.exists():
            if process.poll() is not None or run.clock.monotonic() > deadline:
                raise MeasureError(f"the simulator: {(folder / 'sim.log').read_text()[-500:]}")
            run.clock.sleep(0.02)
        yield json.loads(answer.read_text())
    finally:
        process.terminate()
        process.wait()


def _load(made: Stage) -> None:
    rows = [
        (r["symbol"], Tier(r["tier"]), calendar_of(r["exchange"]), r["exchange"])
        for r in made.admin.get("/admin/universe")
    ]
    today = made.clock.now()
    days = [(today + sign * _AROUND).date().isoformat() for sign in (-1, 1)]
    built = subprocess.run(
        [
            *(sys.executable, "-m", "core.sessions_build"),
            *sorted({row[2] for row in rows}),
            *("--start", days[0], "--end", days[1]),
        ],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    for line in built.stdout.splitlines():
        calendars.publish(made.place.db, json.loads(line))
    universe.load(made.place.db, rows, origin="bench")
