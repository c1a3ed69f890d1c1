"""PostgreSQL's settings, sized to this machine, as the documentation advises for such a load.

Sources: https://www.postgresql.org/docs/current/runtime-config.html and
https://www.postgresql.org/docs/current/non-durability.html.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_MB = 1 << 20
_SHM = Path("/dev/shm")  # noqa: S108 - looked at, never written
_LEAST_SHM = 64 * _MB
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def memory_bytes() -> int:
    """Memory that we may use: the machine's, or less where a container says so."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):
            memory = min(memory, int(path.read_text()))
    return memory


def postgres_settings(
    *, durable: bool, preload: Sequence[str], memory: int, shared_memory: bool
) -> dict[str, str]:
    """All settings that differ from PostgreSQL's own.

    Args:
        durable: False: a crash of the machine may lose the database, a killed server loses nothing.
        preload: Libraries loaded at the start.
        memory: Bytes that the machine has.
        shared_memory: Whether ``/dev/shm`` can be used.
    """
    buffers = _clamp(memory // 8, 64 * _MB, 1024 * _MB if durable else 256 * _MB)
    settings = {
        "max_connections": "200",
        "superuser_reserved_connections": "5",
        "shared_buffers": _mb(buffers),
        "effective_cache_size": _mb(max(memory // 2, buffers)),
        "work_mem": "16MB",
        "maintenance_work_mem": _mb(_clamp(memory // 32, 64 * _MB, 512 * _MB)),
        "dynamic_shared_memory_type": "posix" if shared_memory else "mmap",
        "max_wal_size": "2GB",
        "min_wal_size": "128MB",
        "checkpoint_timeout": "15min",
        "random_page_cost": "1.1",
        # Queries are short: compiling them costs more than it gives.
        "jit": "off",
        # Partitions and chunks are locked one by one.
        "max_locks_per_transaction": "256",
        # A client that was killed does not keep its query, and its locks, running.
        "client_connection_check_interval": "5s",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_line_prefix": "%m [%p] %q%a ",
        "log_checkpoints": "off",
        "log_startup_progress_interval": "2s",
        "lc_messages": "C",
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
    }
    if not durable:
        settings |= {
            # Commits still reach the system's cache, so that a killed server loses none: that costs
            # 8 us each. Only a crash of the machine loses.
            "fsync": "off",
            "full_page_writes": "off",
            "wal_level": "minimal",
            "max_wal_senders": "0",
            "autovacuum_naptime": "10s",
        }
    if preload:
        settings["shared_preload_libraries"] = ",".join(preload)
    if "timescaledb" in preload:
        settings |= {"max_worker_processes": "24", "timescaledb.telemetry_level": "off"}
    return settings


def has_shared_memory() -> bool:
    """Whether POSIX shared memory works: on Linux ``/dev/shm``, which a container may not have."""
    if sys.platform != "linux":
        return True
    try:
        room = os.statvfs(_SHM)
        return bool(_SHM.stat().st_mode & 0o002) and room.f_bavail * room.f_frsize >= _LEAST_SHM
    except OSError:
        return False


def render(settings: Mapping[str, str]) -> str:
    """The lines of a configuration file."""
    quoted = {name: value.replace("'", "''") for name, value in settings.items()}
    return "".join(f"{name} = '{value}'\n" for name, value in quoted.items())


def _clamp(value: int, least: int, most: int) -> int:
    return max(least, min(value, most))


def _mb(size: int) -> str:
    return f"{size // _MB}MB"
