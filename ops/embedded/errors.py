"""What can go wrong with servers that we run ourselves; each message carries its mend."""

import errno
import re
from pathlib import Path

from core.errors import GaplessError

_CAUSE = re.compile(r"(FATAL|PANIC|error): .*|[^:]*configuration parameter .*|invalid value for .*")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class ServerError(GaplessError):
    """A server of ours can't do its work."""

    code = "server"


class AlreadyRunningError(ServerError):
    """Another live process owns this state folder."""

    code = "already_running"


class StateFolderError(ServerError):
    """A folder that we need can't be used: not writable, not ours, not reachable."""

    code = "state_folder"


class NoSpaceError(StateFolderError):
    """The disk is full."""

    code = "no_space"


class ServiceUserError(ServerError):
    """As root, no unprivileged user can run the servers."""

    code = "service_user"


class BinariesMissingError(ServerError):
    """No usable server program is installed."""

    code = "binaries_missing"


class VersionMismatchError(ServerError):
    """The stored data belongs to another version of the server."""

    code = "version_mismatch"


class PortTakenError(ServerError):
    """Another program listens on the port that the user chose."""

    code = "port_taken"


class ServerStartError(ServerError):
    """A server did not come up; the message quotes its log."""

    code = "server_start"


def folder_error(error: OSError, path: Path, doing: str) -> StateFolderError:
    """Say what a failed file operation means for the user: a full disk, or a folder to mend."""
    where = error.filename or path
    if error.errno in _FULL:
        return NoSpaceError(f"no space left on the disk of {where} while {doing}; free some space")
    return StateFolderError(
        f"{error.strerror or error} ({where}) while {doing}; make {path} writable for this user "
        "or choose another state folder"
    )


def start_error(what: str, said: str, folder: Path) -> ServerError:
    """The error that fits what a server program said before it gave up."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    # The stated causes, else the last words.
    causes = [match.group() for line in lines if (match := _CAUSE.search(line))]
    cause = "; ".join(dict.fromkeys(causes)) or (lines or ["it said nothing"])[-1]
    if "No space left on device" in said:
        return NoSpaceError(f"no space left on the disk of {folder}; free some space ({cause})")
    if any(sign in said for sign in ("Permission denied", "Read-only file system")):
        return StateFolderError(f"{what}: {cause}; make {folder} writable or choose another folder")
    if "reading the append only file" in said:
        mend = f"move {folder / 'valkey' / 'appendonlydir'} away and start again: it holds queued work, "
        return ServerStartError(f"{what}: {cause}; {mend}which is made anew, and no market data")
    return ServerStartError(f"{what}: {cause}")
