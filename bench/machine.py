"""The machine and the versions that a figure is of."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import psycopg

from bench.report import Value
from ops.embedded.sizing import memory_bytes


def facts() -> dict[str, Value]:
    """This machine and the Python side."""
    return {
        "machine": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        "memory_gib": round(memory_bytes() / 2**30, 1),
        "system": platform.platform(aliased=True, terse=True),
        "python": platform.python_version(),
        "psycopg": version("psycopg"),
        "load": round(os.getloadavg()[0], 2),
    }


def server_facts(url: str) -> dict[str, Value]:
    """The database server and those of its settings that decide about speed."""
    with psycopg.connect(url, autocommit=True) as conn:
        settings: dict[str, Value] = dict(
            conn.execute(
                "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY (%s)",
                [["fsync", "synchronous_commit", "full_page_writes", "shared_buffers"]],
            ).fetchall()
        )
        found = conn.execute(
            "SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb'"
            " AND current_setting('timescaledb.disable_load', true) IS NOT NULL"
        ).fetchone()
        return {
            "postgresql": conn.info.parameter_status("server_version"),
            "timescaledb": found[0] if found else None,
            "timescale": found is not None,
            **settings,
        }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
