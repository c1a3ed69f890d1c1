"""Yahoo's cookie and crumb: made by a short-lived helper process, shared by every collector of a host.

The result lies in a file that only its owner may read, under a lock, so that many processes make one
session. Making one takes seconds, so it happens in a thread of its own and callers are told that the
session is not ready; bars need none.
"""

import fcntl
import json
import logging
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from core.clock import Clock, real_timestamp
from core.errors import ProviderUnavailableError
from providers.base import SessionNotReadyError

log = logging.getLogger(__name__)

_HELPER_S = 10.0
_REST_S = 5.0
"""Real seconds between two attempts to make a session, for all processes of a host."""


@dataclass(frozen=True, slots=True)
class YahooSession:
    """What a quote call carries."""

    cookie: str
    crumb: str
    made_at: float
    """Epoch seconds of the machine's clock."""


class SessionKeeper:
    """Hands out the host's session; makes or renews it in the background."""

    def __init__(self, base_url: str, state_dir: Path, clock: Clock) -> None:
        self._base_url = base_url
        self._path = state_dir / "yahoo-session.json"
        self._clock = clock
        self._known: YahooSession | None = None
        self._refused_at = 0.0
        self._next_try = 0.0
        self._problem = "it is being made"
        self._lock = threading.Lock()
        self._maker: threading.Thread | None = None

    def current(self) -> YahooSession:
        """The session to use now.

        Raises:
            SessionNotReadyError: it is being made; ask again shortly.
        """
        with self._lock:
            if self._known is None:
                self._known = self._read()
            if self._known is not None:
                return self._known
            self._start_making()
        raise SessionNotReadyError(f"Yahoo's session is not there yet: {self._problem}")

    def refuse(self, session: YahooSession) -> None:
        """Yahoo answered 401 to this session: it is made anew, unless somebody did so already."""
        with self._lock:
            self._refused_at = max(self._refused_at, session.made_at)
            if self._known is not None and self._known.made_at <= self._refused_at:
                self._known = self._read()
            if self._known is None:
                self._start_making()

    def _start_making(self) -> None:
        now = self._clock.monotonic()
        if now < self._next_try or (self._maker is not None and self._maker.is_alive()):
            return
        self._next_try = now + _REST_S
        self._maker = threading.Thread(target=self._make, name="yahoo-session", daemon=True)
        self._maker.start()

    def _make(self) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._path.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                # Another process may have made it while we waited for the lock.
                if self._read() is None:
                    self._write(self._ask_helper())
        except (OSError, subprocess.SubprocessError, ValueError, ProviderUnavailableError) as error:
            self._problem = str(error)
            log.warning("no Yahoo session", extra={"reason": self._problem})

    def _ask_helper(self) -> YahooSession:
        question = json.dumps({"base_url": self._base_url, "timeout_s": _HELPER_S})
        done = subprocess.run(
            [sys.executable, "-m", "providers.yahoo.helper"],
            input=question,
            capture_output=True,
            text=True,
            timeout=_HELPER_S * 4,
            check=False,
        )
        answer = json.loads(done.stdout or "{}")
        if "crumb" not in answer:
            detail = answer.get("detail") or done.stderr.strip()[-200:] or f"exit {done.returncode}"
            raise ProviderUnavailableError(f"{answer.get('error', 'unavailable')}: {detail}")
        return YahooSession(answer["cookie"], answer["crumb"], real_timestamp())

    def _read(self) -> YahooSession | None:
        try:
            fields = json.loads(self._path.read_text())
            found = YahooSession(fields["cookie"], fields["crumb"], fields["made_at"])
        except (OSError, ValueError, KeyError):
            return None
        fits = fields.get("base_url") == self._base_url
        return found if fits and found.made_at > self._refused_at else None

    def _write(self, session: YahooSession) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.touch(mode=0o600)
        fields = {
            "base_url": self._base_url,
            "cookie": session.cookie,
            "crumb": session.crumb,
            "made_at": session.made_at,
        }
        fresh.write_text(json.dumps(fields))
        fresh.replace(self._path)
