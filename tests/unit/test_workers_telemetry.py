"""Metrics and health of a process, as Prometheus and a probe read them."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import metrics
from core.errors import UsageError
from core.telemetry import Telemetry, TelemetryServer

Facts = dict[str, object]


@pytest.fixture
def state() -> list[tuple[bool, Facts]]:
    return [(True, {"queue": "collect:T0"})]


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def server(telemetry: Telemetry, state: list[tuple[bool, Facts]]) -> Iterator[TelemetryServer]:
    made = TelemetryServer(telemetry, lambda: state[-1], 0)
    yield made
    made.close()


def read(server: TelemetryServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}") as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_metric_shows_with_its_labels_and_help_once_it_was_used(
    telemetry: Telemetry, server: TelemetryServer
) -> None:
    assert "jobs_processed_total" not in read(server, "/metrics")[1]

    telemetry.count(metrics.JOBS_PROCESSED, "bars_1m", "finnhub")
    telemetry.count(metrics.JOBS_PROCESSED, "bars_1m", "finnhub", amount=2)
    telemetry.set(metrics.INGESTION_LAG, 12.5, "1m")
    telemetry.observe(metrics.WRITE_BATCH, 7.0)

    status, text = read(server, "/metrics")
    assert status == 200
    assert 'jobs_processed_total{provider="finnhub",type="bars_1m"} 3.0' in text
    assert f"# HELP jobs_processed_total {metrics.JOBS_PROCESSED.help}" in text
    assert 'ingestion_lag_seconds{interval="1m"} 12.5' in text
    assert 'write_batch_ms_bucket{le="10.0"} 1.0' in text
    assert "process_resident_memory_bytes" in text


def test_every_metric_of_the_catalogue_can_be_made(telemetry: Telemetry) -> None:
    for metric in metrics.CATALOGUE:
        labels = ["x"] * len(metric.labels)
        if metric.kind == "counter":
            telemetry.count(metric, *labels)
        elif metric.kind == "gauge":
            telemetry.set(metric, 1.0, *labels)
        else:
            telemetry.observe(metric, 1.0, *labels)

    shown = {family.name for family in telemetry.registry.collect()}
    assert {metric.name.removesuffix("_total") for metric in metrics.CATALOGUE} <= shown


def test_health_is_told_by_status_and_facts(
    server: TelemetryServer, state: list[tuple[bool, Facts]]
) -> None:
    status, text = read(server, "/healthz")
    assert (status, json.loads(text)) == (200, {"ok": True, "queue": "collect:T0"})

    state.append((False, {"queue": "collect:T0"}))
    assert read(server, "/healthz")[0] == 503
    assert read(server, "/else")[0] == 404


def test_a_taken_port_is_a_usage_error(telemetry: Telemetry, server: TelemetryServer) -> None:
    with pytest.raises(UsageError, match=f"METRICS_PORT {server.port} can't be opened"):
        TelemetryServer(telemetry, lambda: (True, {}), server.port)


def test_the_port_is_published_in_a_file(server: TelemetryServer, tmp_path: Path) -> None:
    server.write_port(tmp_path / "port")

    assert (tmp_path / "port").read_text() == f"{server.port}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["port"]
