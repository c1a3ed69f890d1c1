"""What the deployment files say, read as data: Procfile, compose, Kubernetes, Dockerfile."""

import copy
import re
import shlex
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "deploy" / "kubernetes" / "base"

PROCESS_KINDS = {
    "scheduler": "python -m scheduler",
    "collect-t0": "python -m workers collect --tier T0",
    "collect-t1": "python -m workers collect --tier T1",
    "collect-t2": "python -m workers collect --tier T2",
    "backfill-t0": "python -m workers backfill --tier T0",
    "backfill-t1": "python -m workers backfill --tier T1",
    "backfill-t2": "python -m workers backfill --tier T2",
    "intake": "python -m workers intake",
    "exporter": "python -m ops exporter",
}
MIGRATE = "python -m ops migrate"


def procfile() -> dict[str, str]:
    """Process kind -> command line, as written."""
    lines = (ROOT / "Procfile").read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines)


def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def dockerfile() -> str:
    """The Dockerfile with its continued lines joined and its comments left out."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    return text.replace("\\\n", " ")


def kubernetes(kind: str) -> dict[str, dict[str, Any]]:
    """Objects of a kind by name, Deployments with the common patch merged in as kustomize does."""
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text())
    common = yaml.safe_load((BASE / "process.yaml").read_text())
    objects = [
        document
        for name in kustomization["resources"]
        for document in yaml.safe_load_all((BASE / name).read_text())
        if document["kind"] == kind
    ]
    if kind == "Deployment":
        objects = [merge(document, common) for document in objects]
    return {document["metadata"]["name"]: document for document in objects}


def merge(under: Any, patch: Any) -> Any:
    """Kubernetes' strategic merge, as far as this base needs it: its lists hold one thing each."""
    if isinstance(under, dict) and isinstance(patch, dict):
        merged = {
            k: merge(under[k], v) if k in under else copy.deepcopy(v) for k, v in patch.items()
        }
        kept = {"name": under["name"]} if "name" in under else {}
        return {**under, **merged, **kept}
    if isinstance(under, list) and isinstance(patch, list):
        return [merge(one, other) for one, other in zip(under, patch, strict=True)]
    return copy.deepcopy(patch)


def pod(workload: dict[str, Any]) -> dict[str, Any]:
    return workload["spec"]["template"]["spec"]


def container(workload: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod(workload)["containers"]
    return only


def command_line(words: list[str]) -> str:
    return shlex.join(words)


def env_file(path: Path) -> dict[str, str]:
    """Names and values of an env file, commented-out defaults included."""
    pattern = re.compile(r"^#?([A-Z][A-Za-z0-9_]*)=(.*)$", re.MULTILINE)
    return dict(pattern.findall(path.read_text()))
