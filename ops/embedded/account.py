"""The unprivileged user that runs the servers when we are root: PostgreSQL refuses to be root."""

import logging
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass

from ops.embedded.errors import ServiceUserError

SERVICE_USER = "gapless"
"""Created on the first start as root, as a system user without login and home."""
_FALLBACK_USER = "nobody"
_SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Account:
    """A user and its main group."""

    name: str
    uid: int
    gid: int


def is_root() -> bool:
    """Whether we run as root, so that servers need an account of their own."""
    return os.geteuid() == 0


def named_account(name: str) -> Account | None:
    """The user of this name; None when there is none.

    Raises:
        ServiceUserError: when that user is root by another name.
    """
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    if entry.pw_uid == 0:
        raise ServiceUserError(
            f"user {name} has id 0; the servers need an unprivileged user of that name, "
            f"or none (it is then created): `userdel {name}`"
        )
    return Account(name, entry.pw_uid, entry.pw_gid)


def service_account() -> Account:
    """The user that runs the servers: ours, created when missing, else ``nobody``.

    Raises:
        ServiceUserError: when there is neither and none can be created.
    """
    account = named_account(SERVICE_USER)
    if account is None:
        reason = _create(SERVICE_USER)
        # Asked again whatever came of it: another start may have created the user meanwhile.
        account = named_account(SERVICE_USER)
        if account is None:
            log.warning("service user not created", extra={"user": SERVICE_USER, "reason": reason})
            account = named_account(_FALLBACK_USER)
    if account is None:
        raise ServiceUserError(
            f"as root the servers run as user {SERVICE_USER}, which can't be created, and there is "
            f"no user {_FALLBACK_USER} either; create it: `useradd --system {SERVICE_USER}`"
        )
    return account


def check_switch(account: Account) -> None:
    """Make sure that we may start programs as this user.

    Raises:
        ServiceUserError: when not, as in a container whose root is the only user that it maps.
    """
    try:
        subprocess.run(
            ["/bin/sh", "-c", ":"],
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            cwd="/",
            env={},
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise ServiceUserError(
            f"we are root, but may not run programs as user {account.name} ({error}), and PostgreSQL "
            "refuses to run as root; run as an ordinary user, or set DATABASE_URL and REDIS_URL"
        ) from error


def _create(name: str) -> str:
    """Create a system user; returns why it failed, empty when it did not."""
    program = shutil.which("useradd", path=_SYSTEM_PATH)
    if program is None:
        return "useradd is not installed"
    done = subprocess.run(
        [
            program,
            "--system",
            "--user-group",
            "--no-create-home",
            "--home-dir",
            "/nonexistent",
            "--shell",
            shutil.which("nologin", path=_SYSTEM_PATH) or "/bin/false",
            name,
        ],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": _SYSTEM_PATH, "LC_ALL": "C"},
    )
    return "" if done.returncode == 0 else done.stderr.strip()
