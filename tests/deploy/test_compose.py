"""docker-compose.yml: valid, healthy in order, restarted, bounded, and without a password in it."""

import subprocess
import sys

import pytest

from tests.deploy.manifests import MIGRATE, PROCESS_KINDS, ROOT, compose

SERVICES = compose()["services"]
SERVERS = {"timescaledb", "redis"}


def test_it_follows_the_compose_specification() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.compose-spec", "docker-compose.yml"),
        ],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_it_holds_the_servers_the_migration_and_every_process_kind() -> None:
    assert set(SERVICES) == {*SERVERS, "migrate", *PROCESS_KINDS}


@pytest.mark.parametrize("kind", PROCESS_KINDS)
def test_a_process_waits_for_its_servers_and_its_schema(kind: str) -> None:
    assert SERVICES[kind]["depends_on"] == {
        "migrate": {"condition": "service_completed_successfully"},
        "redis": {"condition": "service_healthy"},
        "timescaledb": {"condition": "service_healthy"},
    }


@pytest.mark.parametrize("kind", PROCESS_KINDS)
def test_a_process_is_probed_restarted_and_given_time_to_stop(kind: str) -> None:
    service = SERVICES[kind]

    assert service["healthcheck"]["test"] == ["CMD", "python", "/healthz.py"]
    assert service["restart"] == "unless-stopped"
    assert service["stop_grace_period"] == "30s"
    assert service["read_only"] is True


def test_the_migration_runs_once_and_may_fail_while_the_server_starts() -> None:
    service = SERVICES["migrate"]

    assert " ".join(service["command"]) == MIGRATE
    assert service["restart"].startswith("on-failure")
    assert service["healthcheck"] == {"disable": True}


@pytest.mark.parametrize("name", SERVICES)
def test_logs_are_bounded(name: str) -> None:
    options = SERVICES[name]["logging"]["options"]

    assert set(options) == {"max-size", "max-file"}


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_is_pinned_probed_kept_on_a_volume_and_published_nowhere(name: str) -> None:
    service = SERVICES[name]
    tag = service["image"].partition(":")[2]

    assert tag
    assert not tag.startswith("latest")
    assert service["healthcheck"]["test"]
    assert [v.split(":")[0] for v in service["volumes"]] == [name]
    assert "ports" not in service


def test_redis_appends_every_write_to_its_file_and_evicts_nothing() -> None:
    command = SERVICES["redis"]["command"][-1]

    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_what_is_published_is_reachable_from_this_machine_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert published == ["127.0.0.1:9108:9108"]


def test_passwords_come_from_the_environment_and_their_absence_stops_the_start() -> None:
    secrets = [
        value
        for service in SERVICES.values()
        for name, value in service.get("environment", {}).items()
        if "PASSWORD" in name or name in {"REDISCLI_AUTH", "REDIS_URL"}
    ]

    assert secrets
    assert all("${POSTGRES_PASSWORD:?" in s or "${REDIS_PASSWORD:?" in s for s in secrets)
