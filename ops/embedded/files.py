"""Folders and small files with the owner and the mode that they need, written in one step."""

import os
import uuid
from pathlib import Path

from ops.embedded.account import Account


def make_folder(path: Path, *, mode: int = 0o700, account: Account | None = None) -> None:
    """Create one folder with exactly this mode and owner; a folder that exists is left as it is.

    Raises:
        OSError: when it can't be created; the parent must exist.
    """
    try:
        path.mkdir(mode=mode)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    # The umask may have taken bits that the servers' user needs.
    path.chmod(mode)
    if account is not None:
        os.chown(path, account.uid, account.gid)


def write_file(path: Path, text: str, *, mode: int = 0o600, account: Account | None = None) -> None:
    """Replace a file in one step, never following a link that lies in its place.

    Raises:
        OSError: when it can't be written; the old file is then untouched.
    """
    # A name of its own: two threads may write the same file, the last one stands.
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            os.fchmod(file.fileno(), mode)
            if account is not None:
                os.fchown(file.fileno(), account.uid, account.gid)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
