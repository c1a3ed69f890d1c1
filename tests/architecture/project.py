"""What the architecture tests read: the project's folder, its settings and its packages."""

import ast
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES: list[str] = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]

NOT_SHIPPED = frozenset({"bench", "chaos", "deploy", "docs", "grafana", "tests"})
"""Top-level folders that may hold Python and are no part of the wheel."""


def modules() -> list[Path]:
    """Every Python file that ships, relative to the project."""
    return sorted(
        path.relative_to(ROOT) for name in PACKAGES for path in (ROOT / name).rglob("*.py")
    )


def imported(path: Path) -> set[str]:
    """The dotted names that a module imports, wherever in it; relative to the project."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from core import clock` imports core.clock.
            whole = node.module in PACKAGES
            ends = [f".{alias.name}" for alias in node.names] if whole else [""]
            names.update(node.module + end for end in ends)
    return names


def clean_environment(**extra: str) -> dict[str, str]:
    """An environment in which nothing but the installation itself makes our packages importable."""
    return {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **extra}
