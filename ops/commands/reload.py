"""``ops reload``: check the settings file, publish it, and see every process take it on."""

import argparse
import getpass
from collections.abc import Callable, Sequence
from pathlib import Path

from core.clock import Clock
from core.errors import SettingsError, UsageError
from core.settings import adopt, load, shared_of
from db import settings_versions
from db.live_settings import POLL_S
from db.settings_versions import Version, Word
from ops import output
from ops.connect import database, settings
from ops.registering import Commands

_WITHIN_S = 5.0
"""Real seconds for which processes are waited for; they take two at most."""
_QUIET_S = POLL_S + 0.2


def register(commands: Commands) -> None:
    command = commands.add_parser(
        "reload",
        help="bring a changed settings file into force, without a restart",
        epilog="Example: ops reload. A file with a mistake changes nothing; every mistake is listed.",
    )
    command.add_argument(
        "--settings", type=Path, default=Path(".env"), help="the settings file (default: .env)"
    )
    command.add_argument("--json", action="store_true")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Publish and wait; 1 when the file is invalid or a process does not take it on."""
    path: Path = options.settings
    if not path.is_file():
        raise UsageError(
            f"settings file {path} does not exist; copy .env.example to start one, "
            "or name yours with --settings"
        )
    try:
        own, content = load(path), shared_of(path)
        adopt(own, content)
    except SettingsError as error:
        print(f"{path}: {error}\nnothing was changed")
        return 1
    config = settings()
    with database(config) as db:
        who = f"{getpass.getuser()}: ops reload {path}"
        with settings_versions.listening(config.database_url) as hear:
            version, _ = settings_versions.publish(db, content, who=who, again=True)
            with db.session() as conn:
                kinds = settings_versions.processes(conn)
            words = _hear(hear, version.number, kinds, db.clock)
    return _report(version, kinds, words, as_json=options.json)


def _hear(
    hear: Callable[[float], Word | None], version: int, kinds: set[str], clock: Clock
) -> list[Word]:
    """What the processes say of this version, until one of every kind has spoken and all is quiet."""
    words: dict[str, Word] = {}
    until = clock.monotonic() + (_WITHIN_S if kinds else 0.0)
    while (left_s := until - clock.monotonic()) > 0:
        # When every kind has spoken, a second process of a kind follows within a look's time.
        word = hear(min(left_s, _QUIET_S))
        if word is not None and word.version >= version:
            words[word.process] = word
        if word is None and kinds <= {said.application for said in words.values()}:
            break
    return sorted(words.values(), key=lambda word: word.process)


def _report(version: Version, kinds: set[str], words: Sequence[Word], *, as_json: bool) -> int:
    silent = sorted(kinds - {word.application for word in words})
    refused = [word for word in words if word.problem]
    kept = sorted({name.upper() for word in words for name in word.kept})
    if as_json:
        output.as_json(
            {
                "version": version.number,
                "settings": dict(version.content),
                "in_force": [word.process for word in words if not word.problem],
                "refused": {word.process: word.problem for word in refused},
                "silent": silent,
                "kept_by_environment": kept,
            }
        )
        return 1 if silent or refused else 0
    names = ", ".join(sorted(name.upper() for name in version.content)) or "nothing but defaults"
    print(f"version {version.number} published: {names}")
    print(f"in force in {len(words) - len(refused)} processes" + ("" if kinds else ": none runs"))
    if kept:
        print(f"the environment of some stands above the file: {', '.join(kept)}")
    for word in refused:
        print(f"{word.process} keeps its old settings: {word.problem}")
    for name in silent:
        print(f"{name} did not answer within {_WITHIN_S:.0f} s; see its log")
    return 1 if silent or refused else 0
