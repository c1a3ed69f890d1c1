"""The exporter as the Procfile starts it: waits for its servers, and rides out their loss."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from db.pool import connect
from ops.embedded.valkey import ValkeyServer
from tests.servers import MakeHome

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[subprocess.Popen[bytes]] = []

    def begin(**settings: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "exporter.log").open("wb") as log:
            running.append(
                subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "ops",
                        "exporter",
                        "--port-file",
                        str(tmp_path / "port"),
                    ],
                    env={
                        "PATH": os.environ["PATH"],
                        "PYTHONPATH": str(ROOT),
                        "METRICS_PORT": "0",
                        "GAPLESS_HOME": str(tmp_path / "home"),
                        **settings,
                    },
                    cwd=tmp_path,
                    stderr=log,
                )
            )
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.wait()


def ask(folder: Path, path: str) -> str:
    if not (folder / "port").exists():
        return "{}"
    port = (folder / "port").read_text().strip()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}") as reply:
            return reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


def health(folder: Path) -> dict[str, Any]:
    return json.loads(ask(folder, "healthz"))


def test_an_exporter_waits_for_its_servers(
    start: Start, database_url: str, redis_url: str, tmp_path: Path, wait_until
) -> None:
    process = start(DATABASE_URL=database_url, REDIS_URL="redis://:hunter2@127.0.0.1:1/0")
    log = tmp_path / "exporter.log"
    wait_until(lambda: "waiting" in log.read_text(), seconds=20)
    assert health(tmp_path) == {"ok": True, "state": "waiting for its servers"}
    assert "hunter2" not in log.read_text()

    process.terminate()

    assert process.wait(timeout=10) == 0
    assert "Traceback" not in log.read_text()


def test_an_exporter_goes_on_when_both_servers_were_lost(
    start: Start, database_url: str, make_home: MakeHome, tmp_path: Path, wait_until
) -> None:
    home = make_home()
    valkey = ValkeyServer.start(home, durable=False)
    start(DATABASE_URL=database_url, REDIS_URL=valkey.url)
    log = tmp_path / "exporter.log"
    wait_until(lambda: "queue_depth" in ask(tmp_path, "metrics"), seconds=20)

    valkey.stop()
    with connect(database_url) as owner:
        owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gapless-exporter'"
        )
    wait_until(lambda: "refresh failed" in log.read_text(), seconds=20)
    ValkeyServer.start(home, durable=False)

    wait_until(lambda: (health(tmp_path).get("refreshed_s_ago") or 99) < 1, seconds=20)
    assert "Traceback" not in log.read_text()
