"""Metrics of one process and the small server that shows them: ``/metrics`` and ``/healthz``.

A metric of the catalogue appears when the process first uses it, so that a worker does not report a
zero for what only the exporter knows.
"""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

from core.errors import UsageError
from core.metrics import Metric


class Telemetry:
    """Counters, gauges and histograms of one process, made from the catalogue; thread-safe."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._lock = threading.Lock()
        self._collectors: dict[str, Counter | Gauge | Histogram] = {}
        self._children: dict[tuple[str, tuple[str, ...]], Any] = {}

    def count(self, metric: Metric, *labels: str, amount: float = 1) -> None:
        """Add to a counter; labels in the catalogue's order."""
        self._child(metric, labels).inc(amount)

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Set a gauge; labels in the catalogue's order."""
        self._child(metric, labels).set(value)

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Record one value in a histogram; labels in the catalogue's order."""
        self._child(metric, labels).observe(value)

    def _child(self, metric: Metric, labels: tuple[str, ...]) -> Any:
        key = (metric.name, labels)
        child = self._children.get(key)
        if child is None:
            with self._lock:
                collector = self._collectors.get(metric.name)
                if collector is None:
                    collector = self._collectors[metric.name] = self._make(metric)
                child = collector.labels(*labels) if labels else collector
                self._children[key] = child
        return child

    def _make(self, metric: Metric) -> Counter | Gauge | Histogram:
        if metric.kind == "histogram":
            return Histogram(
                metric.name,
                metric.help,
                metric.labels,
                registry=self.registry,
                buckets=metric.buckets or Histogram.DEFAULT_BUCKETS,
            )
        kind = Counter if metric.kind == "counter" else Gauge
        return kind(metric.name, metric.help, metric.labels, registry=self.registry)


class TelemetryServer:
    """Serves ``/metrics`` and ``/healthz`` from threads of its own until closed."""

    def __init__(
        self, telemetry: Telemetry, health: Callable[[], tuple[bool, dict[str, object]]], port: int
    ) -> None:
        """Listen.

        Args:
            telemetry: What ``/metrics`` shows.
            health: Whether the process does its work, and facts for the reader of ``/healthz``.
            port: 0 takes a free one on the loopback interface, for many processes on one host,
                which tell their ports by file; any other is opened to the network, where
                Prometheus and probes look for it.

        Raises:
            UsageError: the port is taken or not allowed.
        """

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    encode, kind = choose_encoder(self.headers.get("Accept", ""))
                    self._reply(200, kind, encode(cast("Any", telemetry.registry)))
                elif path == "/healthz":
                    well, facts = health()
                    body = json.dumps({"ok": well, **facts}).encode()
                    self._reply(200 if well else 503, "application/json", body)
                else:
                    self._reply(404, "text/plain", b"try /metrics or /healthz\n")

            def _reply(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
                pass

        try:
            self._server = ThreadingHTTPServer(("" if port else "127.0.0.1", port), Handler)
        except OSError as error:
            raise UsageError(
                f"METRICS_PORT {port} can't be opened: {error.strerror}; "
                "set another, or 0 for any free one"
            ) from error
        self._server.daemon_threads = True
        self.port = self._server.server_port
        """The port that was really opened."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="telemetry", daemon=True
        )
        self._thread.start()

    def write_port(self, path: Path) -> None:
        """Publish the port in a file, in one step."""
        fresh = path.with_name(path.name + ".new")
        fresh.write_text(f"{self.port}\n")
        fresh.replace(path)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
