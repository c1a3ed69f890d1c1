"""Every process kind is one command, the same under a Procfile, compose and Kubernetes."""

import subprocess
import sys

import pytest

from ops.stack import MEMORY
from tests.deploy.manifests import (
    MIGRATE,
    PROCESS_KINDS,
    ROOT,
    command_line,
    compose,
    container,
    dockerfile,
    kubernetes,
    procfile,
)

_ALLOCATOR = [f"{name}={value}" for name, value in MEMORY.items()]
_PREFIX = " ".join(["METRICS_PORT=0", *_ALLOCATOR, ""])


def test_the_procfile_starts_every_process_kind() -> None:
    bare = {kind: line.removeprefix(_PREFIX) for kind, line in procfile().items()}

    assert bare == PROCESS_KINDS


def test_processes_of_one_procfile_do_not_fight_for_a_port() -> None:
    fixed = [kind for kind, line in procfile().items() if not line.startswith(_PREFIX)]

    assert fixed == ["exporter"], "the one that Prometheus scrapes"


def test_the_image_tells_the_allocator_what_ops_does() -> None:
    assert set(_ALLOCATOR) <= set(dockerfile().split())


def test_compose_starts_every_process_kind() -> None:
    ours = {n: s for n, s in compose()["services"].items() if s["image"].startswith("gapless:")}
    commands = {name: command_line(service["command"]) for name, service in ours.items()}

    assert commands == {**PROCESS_KINDS, "migrate": MIGRATE}


def test_kubernetes_starts_every_process_kind() -> None:
    deployments = kubernetes("Deployment")

    assert {
        n: command_line(container(d)["command"]) for n, d in deployments.items()
    } == PROCESS_KINDS
    assert command_line(container(kubernetes("Job")["migrate"])["command"]) == MIGRATE


@pytest.mark.parametrize("command", [*PROCESS_KINDS.values(), MIGRATE])
def test_the_command_is_understood(command: str) -> None:
    words = command.split()
    assert words[0] == "python"

    done = subprocess.run(
        [sys.executable, *words[1:], "--help"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
