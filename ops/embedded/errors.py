"""What can go wrong with servers that we run ourselves; each message carries its mend."""

import errno
from pathlib import Path

from core.errors import GaplessError

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
