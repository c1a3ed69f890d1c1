"""What is built and installed: the wheel, the locks and the console scripts."""

import importlib.metadata
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.architecture.project import (
    PACKAGES,
    PYPROJECT,
    ROOT,
    clean_environment,
    imported,
    modules,
)

PROJECT = PYPROJECT["project"]
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+?)(?: ;.*)? \\$", re.MULTILINE)
FULL = (ROOT / "requirements.lock").read_text()
IMAGE = (ROOT / "deploy" / "requirements.lock").read_text()


def pins(lock: str) -> set[tuple[str, str]]:
    return {(canonicalize_name(name), version) for name, version in PIN.findall(lock)}


def asked_for(*extras: str) -> set[str]:
    """Names that the project and the given extras ask for on this machine."""
    lines = [*PROJECT["dependencies"]]
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return {canonicalize_name(Requirement(line).name) for line in lines}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_library_that_is_imported_is_asked_for(package: str) -> None:
    extras = {"sim": ("sim",), "ops": ("embedded", "sim")}.get(package, ())
    provided = importlib.metadata.packages_distributions()
    names = {
        name.partition(".")[0]
        for path in modules()
        if path.parts[0] == package
        for name in imported(path)
    }
    libraries = {
        canonicalize_name(dist)
        for name in names - set(PACKAGES) - sys.stdlib_module_names
        for dist in provided.get(name, [f"nobody's {name}"])
    }

    assert libraries - asked_for(*extras) == set()


def test_the_lock_pins_everything_that_is_asked_for() -> None:
    pinned = {name for name, _ in pins(FULL)}

    assert asked_for(*PROJECT["optional-dependencies"]) <= pinned


def test_the_image_runs_the_versions_that_the_tests_run() -> None:
    assert pins(IMAGE) <= pins(FULL)
    assert asked_for("sim") <= {name for name, _ in pins(IMAGE)}


def test_the_image_carries_no_tool_of_the_developer() -> None:
    only_dev = asked_for("dev") - asked_for("sim")

    assert only_dev & {name for name, _ in pins(IMAGE)} == set()


@pytest.mark.parametrize(
    "lock", [FULL, IMAGE], ids=["requirements.lock", "deploy/requirements.lock"]
)
def test_a_lock_has_a_hash_for_every_pin_and_names_no_index(lock: str) -> None:
    entries = [line for line in lock.splitlines() if "==" in line]

    assert len(entries) == len(PIN.findall(lock)), "each pin is followed by its hashes"
    assert "://" not in lock
    assert "--index-url" not in lock


def test_what_is_installed_is_what_the_lock_pins() -> None:
    pinned: dict[str, set[str]] = {}
    for name, version in pins(FULL):
        pinned.setdefault(name, set()).add(version)
    strays = {
        name: version
        for name, versions in pinned.items()
        for version in [installed_version(name)]
        if version is not None and version not in versions
    }

    assert strays == {}, "run make again; the environment is older than the lock"


def installed_version(name: str) -> str | None:
    """None where this platform needs no such package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def test_the_wheel_ships_every_file_of_every_package(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (wheel,) = tmp_path.glob("*.whl")
    shipped = set(zipfile.ZipFile(wheel).namelist())

    on_disk = {
        str(path.relative_to(ROOT))
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in shipped if ".dist-info/" not in name} == on_disk


@pytest.mark.parametrize("script", sorted(PROJECT["scripts"]))
def test_a_console_script_runs_from_anywhere(script: str) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / script), "--help"],
        cwd="/",
        env=clean_environment(),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    assert script in done.stdout
