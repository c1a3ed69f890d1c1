"""Where the servers' data lies, and as whom the servers run.

Not root: in the state folder, as ourselves. Root: in a folder of its own under
``/var/lib/gapless``, as the service user, because a server can't run from a folder that its user
may not enter, and the state folder may lie behind one. A pointer file in the state folder names the
place, an owner file in the place names the state folder. The permissions of no existing folder are
ever changed.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from ops.embedded.account import Account, check_switch, is_root, named_account, service_account
from ops.embedded.errors import ServiceUserError, StateFolderError, folder_error
from ops.embedded.files import make_folder, write_file

SERVERS_ROOT = Path("/var/lib/gapless")
"""Parent of the places of all state folders that root uses on this machine."""
_POINTER = "servers.path"
_OWNER = "owner.json"


@dataclass(frozen=True, slots=True)
class Place:
    """A folder for the servers' data and the user that runs them."""

    folder: Path
    account: Account | None
    """None: as whoever we are."""
    software: Path
    """Where server programs are copied when their installation can't be reached by that user."""


def find_place(state: Path, root: Path = SERVERS_ROOT) -> Place | None:
    """The place that this state folder already uses; None when it has none. Creates nothing."""
    if not is_root():
        return Place(state, None, state / "software")
    pointer = state / _POINTER
    if pointer.exists():
        folder = Path(pointer.read_text().strip())
        owner = _read_owner(folder)
        # The pointer moves with its clone, so an owner that is gone is our own old path. A copy's
        # original still exists, and its data is never shared.
        if owner and (owner["state"] == str(state) or not Path(owner["state"]).exists()):
            return Place(folder, _recorded_account(folder, owner), root / "software")
    folder = _default_folder(state, root)
    owner = _read_owner(folder)
    if owner and owner["state"] == str(state):
        return Place(folder, _recorded_account(folder, owner), root / "software")
    return None


def make_place(state: Path, root: Path = SERVERS_ROOT) -> Place:
    """The place of this state folder, created when missing. Running it twice changes nothing.

    Raises:
        StateFolderError: when a folder can't be created or can't be reached by the servers' user.
        ServiceUserError: when no unprivileged user can be had.
    """
    try:
        place = find_place(state, root) or _create(state, root)
        if place.account is not None:
            content = {"state": str(state), "account": place.account.name}
            write_file(place.folder / _OWNER, json.dumps(content) + "\n")
            write_file(state / _POINTER, f"{place.folder}\n")
    except OSError as error:
        raise folder_error(error, root, "making the servers' folder") from error
    return place


def remove_place(state: Path, root: Path = SERVERS_ROOT) -> None:
    """Delete the servers' data of this state folder, outside it; the servers must be stopped."""
    place = find_place(state, root)
    if place is not None and place.account is not None:
        shutil.rmtree(place.folder)


def can_enter(path: Path, account: Account) -> bool:
    """Whether mode bits let this user enter a folder and all its parents."""
    for folder in (path, *path.parents):
        status = folder.stat()
        if status.st_uid == account.uid:
            allowed = status.st_mode & 0o100
        elif status.st_gid == account.gid:
            allowed = status.st_mode & 0o010
        else:
            allowed = status.st_mode & 0o001
        if not allowed:
            return False
    return True


def _create(state: Path, root: Path) -> Place:
    account = service_account()
    check_switch(account)
    if not root.parent.is_dir():
        raise StateFolderError(f"no folder {root.parent}; as root the servers' data goes below it")
    make_folder(root, mode=0o755)
    folder = _default_folder(state, root)
    if _read_owner(folder) is not None:
        # The data of a clone that once lay at our path and was moved: never share it.
        folder = folder.with_name(f"{folder.name}-{state.stat().st_ino:x}")
    # Root's own: the servers own only their data below it, so they can't plant links in our way.
    make_folder(folder, mode=0o711)
    if not can_enter(folder, account):
        raise StateFolderError(
            f"user {account.name}, who runs the servers, may not enter {folder}; let it enter each "
            f"parent folder or run as an ordinary user"
        )
    return Place(folder, account, root / "software")


def _default_folder(state: Path, root: Path) -> Path:
    return root / hashlib.sha256(str(state).encode()).hexdigest()[:12]


def _read_owner(folder: Path) -> dict[str, str] | None:
    try:
        content = json.loads((folder / _OWNER).read_text())
        return {"state": str(content["state"]), "account": str(content["account"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _recorded_account(folder: Path, owner: dict[str, str]) -> Account:
    account = named_account(owner["account"])
    if account is None:
        raise ServiceUserError(
            f"user {owner['account']}, who owns the data in {folder}, is gone; create it again: "
            f"`useradd --system {owner['account']}` and `chown -R {owner['account']} {folder}/*`"
        )
    return account
