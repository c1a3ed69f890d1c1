"""Brings a scheduled fault about and ends it; says whether it met a live target."""

import signal
from dataclasses import dataclass
from typing import Any, cast

from redis.exceptions import RedisError

from chaos.schedule import Fault, Kind
from chaos.world import LISTS, World

_MINUTES_LONG = 1_000_000.0
"""A provider's fault lasts until we take it off."""


@dataclass(slots=True)
class Struck:
    """A fault that began."""

    fault: Fault
    number: int
    hit: bool
    """Whether its target was alive."""
    began_s: float
    """Real seconds after the replay began, when it had begun."""
    ended_s: float | None = None
    """The same, when its target could go on; None while it lasts."""
    met_before: int = 0
    """Requests that met any fault of the source before this one."""
    forgot: frozenset[bytes] = frozenset()
    """Elements that were still on the coordinator's lists when Redis forgot, or may have forgotten, them."""
    note: str = ""


def begin(world: World, struck: Struck) -> None:
    """Strike, and note whom it met."""
    fault, number = struck.fault, struck.number
    match fault.kind:
        case Kind.KILL if "at" in fault.detail:
            # Nobody yet: it is struck when it comes by.
            pass
        case Kind.KILL | Kind.TERM | Kind.PAUSE:
            signum = {
                Kind.KILL: signal.SIGKILL,
                Kind.TERM: signal.SIGTERM,
                Kind.PAUSE: signal.SIGSTOP,
            }[fault.kind]
            struck.hit = world.stack.supervisor.kill(fault.target, signum) is not None
        case Kind.REDIS_KILL | Kind.REDIS_TRUNCATED:
            struck.forgot = _on_the_lists(world)
            struck.hit = world.stop_redis(by_force=True)
        case Kind.REDIS_RESTART:
            struck.hit = world.stop_redis(by_force=False)
        case Kind.REDIS_FLUSH:
            _flush(world, struck)
        case Kind.POSTGRES_STOP:
            struck.hit = world.stop_postgres()
        case Kind.CUT:
            count = world.proxies[fault.target].cut(refuse=fault.lasts_s > 0)
            struck.hit, struck.note = count > 0, f"{count} connections"
        case Kind.DELAY:
            count = world.proxies[fault.target].delay(float(fault.detail["seconds"]))
            struck.hit, struck.note = count > 0, f"{count} connections"
        case Kind.PROVIDER:
            source = _asked(world, fault.target)
            struck.met_before = sum(source["faults"].values())
            # A closed listener sees nobody: it is struck where somebody asked it before.
            struck.hit = fault.detail["fault"] == "refuse" and source["requests"] > 0
            world.sim.post("/admin/faults", {"add": [_provider_fault(fault, number)]})


def _flush(world: World, struck: Struck) -> None:
    """FLUSHALL, and in the same transaction what the lists held: that was nobody's but the coordinator's."""
    try:
        with cast("Any", world.redis).pipeline(transaction=True) as pipe:
            pipe.dbsize()
            for key in LISTS:
                pipe.lrange(key, 0, -1)
            pipe.flushall()
            keys, *lists, _done = pipe.execute()
    except RedisError as error:
        struck.note = str(error)
        return
    struck.hit, struck.note = keys > 0, f"{keys} keys"
    struck.forgot = frozenset(raw for entries in lists for raw in entries)


def _on_the_lists(world: World) -> frozenset[bytes]:
    client = cast("Any", world.redis)
    try:
        return frozenset(raw for key in LISTS for raw in client.lrange(key, 0, -1))
    except RedisError:
        # It is down already: whoever stopped it has looked.
        return frozenset()


def end(world: World, struck: Struck) -> None:
    """Let the target go on."""
    fault = struck.fault
    match fault.kind:
        case Kind.PAUSE:
            world.stack.supervisor.kill(fault.target, signal.SIGCONT)
        case Kind.REDIS_KILL | Kind.REDIS_RESTART:
            world.start_redis()
        case Kind.REDIS_TRUNCATED:
            lost = world.cut_append_only_file(int(fault.detail["bytes"]))
            struck.hit = struck.hit and lost > 0
            struck.note = f"{lost} bytes cut off"
            world.start_redis()
        case Kind.POSTGRES_STOP:
            world.start_postgres()
        case Kind.CUT:
            world.proxies[fault.target].accept()
        case Kind.DELAY:
            world.proxies[fault.target].delay(0.0)
        case Kind.PROVIDER:
            world.sim.post("/admin/faults", {"clear": [_name(struck.number)]})
            met = sum(_asked(world, fault.target)["faults"].values()) - struck.met_before
            struck.hit = struck.hit or met > 0
            struck.note = f"{met} requests met it"
        case Kind.KILL | Kind.TERM | Kind.REDIS_FLUSH:
            pass


def _asked(world: World, source: str) -> dict[str, Any]:
    """What the simulator counts of a source."""
    return world.sim.get("/admin/stats")["sources"][source]


def _provider_fault(fault: Fault, number: int) -> dict[str, object]:
    kind = str(fault.detail["fault"])
    row: dict[str, object] = {
        "id": _name(number),
        "source": fault.target,
        "capability": "*",
        "kind": kind,
        "from": "now",
        "minutes": _MINUTES_LONG,
    }
    if kind == "slow":
        row["seconds"] = 1.0
    if kind == "429":
        row["retry_after_s"] = 5.0
    return row


def _name(number: int) -> str:
    return f"chaos-{number}"
