"""deploy/kubernetes: every process probed, bounded, unprivileged, set up by known names only."""

import shutil
import subprocess
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import (
    BASE,
    PROCESS_KINDS,
    ROOT,
    container,
    env_file,
    kubernetes,
    pod,
)

DEPLOYMENTS = kubernetes("Deployment")
WORKLOADS = {**DEPLOYMENTS, **kubernetes("Job")}
KNOWN_SETTINGS = set(env_file(ROOT / ".env.example"))
FROM_LIBPQ = {"PGPASSWORD"}


def secrets() -> dict[str, dict[str, str]]:
    path = ROOT / "deploy" / "kubernetes" / "secret.example.yaml"
    return {s["metadata"]["name"]: s["stringData"] for s in yaml.safe_load_all(path.read_text())}


@pytest.mark.parametrize("name", PROCESS_KINDS)
def test_a_process_selects_its_own_pods(name: str) -> None:
    spec = DEPLOYMENTS[name]["spec"]

    assert spec["selector"]["matchLabels"] == {"app.kubernetes.io/component": name}
    assert spec["template"]["metadata"]["labels"] == spec["selector"]["matchLabels"]


@pytest.mark.parametrize("name", PROCESS_KINDS)
@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_a_process_is_asked_for_its_health(name: str, probe: str) -> None:
    only = container(DEPLOYMENTS[name])

    assert only[probe]["httpGet"] == {"path": "/healthz", "port": "metrics"}
    assert only["ports"] == [{"name": "metrics", "containerPort": 9108}]


@pytest.mark.parametrize("name", PROCESS_KINDS)
def test_a_process_has_time_to_finish_its_work(name: str) -> None:
    assert pod(DEPLOYMENTS[name])["terminationGracePeriodSeconds"] == 30


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_pod_has_no_privilege_and_no_token(name: str) -> None:
    spec, only = pod(WORKLOADS[name]), container(WORKLOADS[name])

    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_pod_asks_for_what_it_needs_and_may_write_to_tmp_only(name: str) -> None:
    spec, only = pod(WORKLOADS[name]), container(WORKLOADS[name])

    assert set(only["resources"]["requests"]) == {"cpu", "memory"}
    assert "memory" in only["resources"]["limits"]
    assert only["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]
    assert [(v["name"], "emptyDir" in v) for v in spec["volumes"]] == [("tmp", True)]


@pytest.mark.parametrize("name", WORKLOADS)
def test_no_service_of_the_namespace_sets_one_of_our_settings(name: str) -> None:
    assert pod(WORKLOADS[name])["enableServiceLinks"] is False


@pytest.mark.parametrize("name", WORKLOADS)
def test_settings_and_secrets_that_a_pod_reads_are_described(name: str) -> None:
    sources = container(WORKLOADS[name])["envFrom"]

    assert sources[0] == {"configMapRef": {"name": "settings"}}
    assert sources[1]["secretRef"]["name"] in secrets()


def test_only_known_settings_are_set() -> None:
    for names in [env_file(BASE / "settings.env"), *secrets().values()]:
        assert set(names) <= KNOWN_SETTINGS | FROM_LIBPQ


def test_what_is_kept_elsewhere_stands_in_no_config_map() -> None:
    secret_names = {name for values in secrets().values() for name in values}

    assert secret_names & set(env_file(BASE / "settings.env")) == set()


def test_a_drained_node_takes_one_at_a_time_of_what_runs_several_times() -> None:
    several = {name for name, d in DEPLOYMENTS.items() if d["spec"]["replicas"] > 1}
    budgets = kubernetes("PodDisruptionBudget")

    assert "scheduler" in several
    assert set(budgets) == several
    for name, budget in budgets.items():
        assert budget["spec"]["maxUnavailable"] == 1
        selected = budget["spec"]["selector"]["matchLabels"]
        assert selected == DEPLOYMENTS[name]["spec"]["selector"]["matchLabels"]


def test_kustomize_renders_what_these_tests_read() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed here; it brings kustomize")
    done = subprocess.run(
        [kubectl, "kustomize", str(BASE)], check=True, capture_output=True, text=True, timeout=60
    )
    rendered = [d for d in yaml.safe_load_all(done.stdout) if d["kind"] in {"Deployment", "Job"}]

    assert {d["metadata"]["name"] for d in rendered} == {f"gapless-{name}" for name in WORKLOADS}
    for workload in rendered:
        ours = WORKLOADS[workload["metadata"]["name"].removeprefix("gapless-")]
        assert comparable(workload) == comparable(ours)


def comparable(workload: dict[str, Any]) -> dict[str, Any]:
    """A pod without what kustomize renames: the image's tag and the config map's hash."""
    only = {k: v for k, v in container(workload).items() if k not in {"image", "envFrom"}}
    return {**pod(workload), "containers": [only]}
