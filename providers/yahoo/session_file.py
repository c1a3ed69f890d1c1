"""The file by which the processes of a host share one Yahoo session, and the rest between tries."""

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

_REST_S, _LONGEST_REST_S = 15.0, 120.0


@dataclass(frozen=True, slots=True)
class YahooSession:
    """What a quote call carries."""

    cookie: str
    """Value of the Cookie header."""
    crumb: str
    made_at: float
    """Epoch seconds of the machine's clock."""


@dataclass(frozen=True, slots=True)
class SessionState:
    """The last session, and how the last try to make one went."""

    session: YahooSession | None = None
    tried_at: float = 0.0
    """Epoch seconds of the machine's clock; 0 for never."""
    failures: int = 0
    """Tries in a row that gave no session."""
    error: str = ""
    """Why the last try gave none: ``rate_limited``, ``refused``, ``unavailable``; else empty."""
    detail: str = ""

    def usable_after(self, refused_at: float) -> bool:
        """Whether the session is newer than the newest one that Yahoo refused."""
        return self.session is not None and self.session.made_at > refused_at

    def rest_s(self, now: float) -> float:
        """Real seconds until the host may try again; 0 or less when it may.

        15 s after a try, doubled with each failure in a row, at most 2 minutes.
        """
        passed = now - self.tried_at
        if passed < 0:  # the machine's clock was set back
            return 0.0
        return min(_REST_S * 2 ** min(self.failures, 8), _LONGEST_REST_S) - passed

    def after(self, answer: Mapping[str, str], tried_at: float, made_at: float) -> "SessionState":
        """The state after the helper's answer."""
        if "error" in answer:
            return SessionState(
                None, tried_at, self.failures + 1, answer["error"], answer.get("detail", "")
            )
        return SessionState(YahooSession(answer["cookie"], answer["crumb"], made_at), tried_at)


class SessionFile:
    """One file per base URL, readable by its owner only; memory stands in where there is no disk."""

    def __init__(self, folder: Path, base_url: str) -> None:
        digest = hashlib.sha256(base_url.encode()).hexdigest()[:8]
        self._path = folder / f"yahoo-session-{digest if base_url else 'real'}.json"
        self._memory = SessionState()

    def read(self) -> SessionState:
        """The newest state that any process wrote; one that can't be read counts as none."""
        try:
            fields: dict[str, Any] = json.loads(self._path.read_text())
            session = fields.pop("session")
            found = SessionState(YahooSession(**session) if session else None, **fields)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return self._memory
        return max(found, self._memory, key=lambda state: state.tried_at)

    def write(self, state: SessionState) -> None:
        """Replace the state in one step."""
        fresh = self._path.with_suffix(f".{os.getpid()}.new")
        try:
            fresh.unlink(missing_ok=True)
            # Secrets: the file is never readable by others, not even for a moment.
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as file:
                json.dump(asdict(state), file)
            fresh.replace(self._path)
        except OSError as error:
            log.warning("Yahoo's session is not shared", extra={"why": str(error)})
        # Last: who is handed the session from here finds the folder at rest.
        self._memory = state

    @contextmanager
    def locked(self) -> Generator[None]:
        """Hold the host's lock on making a session; without a folder to lock in, go on alone."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = self._path.with_suffix(".lock").open("a")
        except OSError:
            yield
            return
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
