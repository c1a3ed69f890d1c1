"""The image: every package and nothing else, unprivileged, with a probe that tells the truth."""

import http.server
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.architecture.project import PACKAGES
from tests.deploy.manifests import ROOT, dockerfile

PROBE = ROOT / "deploy" / "healthz.py"


def test_it_carries_every_package() -> None:
    copied = re.findall(r"^COPY (\w+) (\w+)$", dockerfile(), re.MULTILINE)

    assert copied == [(name, name) for name in PACKAGES]


def test_the_build_sees_every_package_and_no_more() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}

    assert "*" in lines
    assert let_in == {*PACKAGES, "deploy/healthz.py", "deploy/requirements.lock"}


def test_it_runs_as_an_ordinary_user_and_finds_our_packages_first() -> None:
    last_stage = dockerfile().rpartition("\nFROM ")[2]

    assert re.search(r"^USER 10001:10001$", last_stage, re.MULTILINE)
    assert "PYTHONPATH=/app" in last_stage
    assert "WORKDIR /app" in last_stage


def test_no_stage_needs_a_compiler() -> None:
    text = dockerfile()

    assert "--only-binary :all:" in text
    assert "--require-hashes" in text
    assert not re.search(r"apt-get|apk add|gcc|build-essential", text)


def test_its_stages_stand_on_one_pinned_python() -> None:
    bases = re.findall(r"^FROM (\S+)", dockerfile(), re.MULTILINE)

    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", bases[0])


@contextmanager
def process_answering(status: int, body: bytes = b"") -> Iterator[int]:
    """An HTTP server on a free port whose /healthz has this status."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def probe(port: int, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROBE)],
        env={**os.environ, "METRICS_PORT": str(port), **env},
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_the_probe_believes_a_process_that_says_it_is_well() -> None:
    with process_answering(200) as port:
        assert probe(port).returncode == 0


def test_the_probe_repeats_why_a_process_is_not_well() -> None:
    with process_answering(503, b"database unreachable") as port:
        done = probe(port)

    assert done.returncode == 1
    assert done.stderr == "HTTP 503: database unreachable\n"


def test_the_probe_notices_that_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        done = probe(port)

    assert done.returncode == 1
    assert f"no answer on port {port}" in done.stderr


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_no_proxy_comes_between_the_probe_and_its_process(name: str) -> None:
    with process_answering(200) as port:
        assert probe(port, **{name: "http://127.0.0.1:1"}).returncode == 0
