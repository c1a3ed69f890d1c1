"""The flat packages: named alike in every list, shadowed by nobody, plain inside."""

import ast
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.project import (
    NOT_SHIPPED,
    PACKAGES,
    PYPROJECT,
    ROOT,
    clean_environment,
    modules,
)

TOOL = PYPROJECT["tool"]
LAYERS = next(c for c in TOOL["importlinter"]["contracts"] if c["type"] == "layers")["layers"]


def folders_with_python() -> set[str]:
    """Top-level folders that hold Python anywhere, hidden ones and environments left out."""
    folders = (path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))
    return {
        folder.name
        for folder in folders
        if not (folder / "pyvenv.cfg").exists() and next(folder.rglob("*.py"), None)
    }


@pytest.mark.parametrize(
    ("place", "names"),
    [
        ("folders on disk", folders_with_python() - NOT_SHIPPED),
        ("import-linter root_packages", set(TOOL["importlinter"]["root_packages"])),
        ("import-linter layers", {name.strip() for row in LAYERS for name in row.split("|")}),
        ("pyright include", set(TOOL["pyright"]["include"]) - NOT_SHIPPED),
        ("pyright strict", set(TOOL["pyright"]["strict"])),
    ],
)
def test_every_list_of_packages_names_those_of_the_wheel(place: str, names: set[str]) -> None:
    assert names == set(PACKAGES), place


def test_every_folder_of_python_is_type_checked() -> None:
    tests_and_benches = folders_with_python() & {"tests", "bench"}

    assert tests_and_benches <= set(TOOL["pyright"]["include"])


def test_no_package_has_the_name_of_a_standard_module() -> None:
    assert not set(PACKAGES) & sys.stdlib_module_names


def test_no_other_distribution_provides_a_package_of_our_name() -> None:
    provided = importlib.metadata.packages_distributions()
    intruders = {name: set(provided.get(name, ())) - {"gapless"} for name in PACKAGES}

    assert not any(intruders.values()), (
        f"{intruders}: uninstall these, they shadow ours outside the project's folder"
    )


def test_outside_the_folder_our_names_mean_our_packages() -> None:
    code = (
        "import importlib, json, sys;"
        "print(json.dumps({n: importlib.import_module(n).__file__ for n in sys.argv[1:]}))"
    )
    where = subprocess.run(
        [sys.executable, "-c", code, *PACKAGES],
        cwd="/",
        env=clean_environment(),
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )

    files = json.loads(where.stdout)
    assert files == {name: str(ROOT / name / "__init__.py") for name in PACKAGES}


def test_every_folder_with_modules_is_a_package() -> None:
    folders = {path.parent for path in modules()}

    assert [str(f) for f in sorted(folders) if not (ROOT / f / "__init__.py").exists()] == []


@pytest.mark.parametrize("path", [p for p in modules() if p.name == "__init__.py"], ids=str)
def test_an_init_holds_a_docstring_only(path: Path) -> None:
    tree = ast.parse((ROOT / path).read_text())

    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


def test_no_module_is_a_drawer_for_anything() -> None:
    drawers = {"common", "helpers", "misc", "util", "utils"}
    files = [*modules(), *(p.relative_to(ROOT) for p in (ROOT / "tests").rglob("*.py"))]

    assert [str(p) for p in files if drawers & {p.stem, *p.parent.parts}] == []
