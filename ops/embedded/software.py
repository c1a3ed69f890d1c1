"""Copies of server programs for a user that can't reach their installation."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ops.embedded.errors import folder_error
from ops.embedded.files import make_folder
from ops.embedded.place import Place


def may_help(program: Path, place: Place) -> bool:
    """Whether a copy can be run where the original can't: out of reach, or not executable."""
    return program.is_file() and (place.account is not None or not os.access(program, os.X_OK))


def copy_software(place: Place, name: str, program: Path, parts: Mapping[Path, str]) -> Path:
    """Copy an installation to where every user can run it, once per version; returns the copy.

    Args:
        place: Whose software folder takes the copy.
        name: Begins the copy's folder name.
        program: Tells versions apart, by its path, size and age.
        parts: Files and folders to copy, each with its place below the copy's folder.

    Raises:
        StateFolderError: when the copy can't be written.
    """
    status = program.stat()
    version = f"{program}:{status.st_size}:{status.st_mtime_ns}"
    target = place.software / f"{name}-{hashlib.sha256(version.encode()).hexdigest()[:12]}"
    try:
        if target.is_dir():
            return target
        make_folder(place.software, mode=0o755)
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=place.software))
        for source, relative in parts.items():
            _copy(source, part / relative)
        _open_to_all(part)
        try:
            part.rename(target)
        except OSError:
            # Another start was faster with the same copy.
            shutil.rmtree(part)
            if not target.is_dir():
                raise
    except OSError as error:
        raise folder_error(error, place.software, f"copying {program}") from error
    return target


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("*.a"))
    else:
        shutil.copyfile(source, target)
        target.chmod(0o755)


def _open_to_all(folder: Path) -> None:
    # Programs that anybody can install; nothing of the user's is in it.
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink():
            continue
        program = path.is_dir() or path.parent.name == "bin" or path.stat().st_mode & 0o111
        path.chmod(0o755 if program else 0o644)
