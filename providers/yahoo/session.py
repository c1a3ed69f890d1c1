"""Yahoo's cookie and crumb: made by a helper process, shared by every process of a host.

Bars need none. A session lives until Yahoo refuses it; then one process of the host makes a new
one, under the lock of a file, and the others read what it wrote.
"""

import json
import logging
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from core.clock import Clock, real_timestamp
from core.errors import (
    AuthRejectedError,
    ProviderError,
    ProviderUnavailableError,
)
from core.settings import environment
from providers.base import SessionNotReadyError
from providers.yahoo.session_file import SessionFile, SessionState, YahooSession

log = logging.getLogger(__name__)

_HELPER = "providers.yahoo.helper"
_REQUEST_S = 10.0
"""Real seconds for each request of the helper; it ends itself after three times that."""
_FRESH_S = 15.0
"""A session that is refused younger than this, and was never accepted, did not simply expire."""
_ENVIRONMENT = re.compile(
    r"PATH|HOME|LANG|LC_ALL|TMPDIR|TZ|LD_LIBRARY_PATH|SSL_CERT_(FILE|DIR)"
    r"|(REQUESTS|CURL)_CA_BUNDLE|(?i:(http|https|all|no)_proxy)"
)
"""What the helper may see: no key and no database of ours."""


class SessionKeeper:
    """Hands out the host's session; thread-safe."""

    def __init__(self, base_url: str, state_dir: Path, clock: Clock) -> None:
        """Args: base_url: where the helper's requests go instead of Yahoo; empty for Yahoo."""
        self._base_url = base_url
        self._clock = clock
        self._file = SessionFile(state_dir, base_url)
        self._lock = threading.Lock()
        self._known: YahooSession | None = None
        self._accepted = False
        self._refused_at = 0.0
        self._making = False
        self._closed = False
        self._process: subprocess.Popen[str] | None = None

    def session(self) -> YahooSession:
        """The session to use now; when there is none, one is made beside.

        Raises:
            SessionNotReadyError: it is still being made.
            ProviderError: Yahoo gave none lately; says when it is tried again.
        """
        with self._lock:
            known = self._known
            if known is None:
                state = self._file.read()
                known = state.session
                if known is None or not state.usable_after(self._refused_at):
                    if not self._making:
                        self._start(state)
                    raise SessionNotReadyError(
                        "Yahoo's session for quotes is being made; ask again in a few seconds"
                    )
                self._known, self._accepted = known, False
            return known

    def accepted(self, session: YahooSession) -> None:
        """Yahoo answered a call that carried this session."""
        if session is self._known:
            self._accepted = True

    def refused(self, session: YahooSession, reason: str) -> ProviderError:
        """Yahoo answered 401 or 403; the session is dropped. Returns what the call failed with.

        Sessions expire: that is an errand, not a failure. A new one that is refused at once is one.
        """
        with self._lock:
            expired = self._accepted or real_timestamp() - session.made_at > _FRESH_S
            self._refused_at = max(self._refused_at, session.made_at)
            if self._known is session:
                self._known = None
        if expired:
            return SessionNotReadyError(f"{reason}: the session expired, a new one is made")
        return AuthRejectedError(f"{reason}: a new session was refused")

    def close(self) -> None:
        """End the helper, if it runs."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()

    def _start(self, state: SessionState) -> None:
        """Make a session in a thread of its own, unless the host has to rest after the last try."""
        rest_s = state.rest_s(real_timestamp())
        if rest_s > 0:
            raise self._why_not(state, rest_s)
        if self._closed:
            raise SessionNotReadyError("Yahoo's session is not made any more: we are closing")
        self._making = True
        threading.Thread(target=self._make, name="yahoo-session", daemon=True).start()

    def _why_not(self, state: SessionState, rest_s: float) -> ProviderError:
        message = f"no Yahoo session for quotes ({state.detail}); tried again in {rest_s:.0f} s"
        if state.error == "refused":
            return AuthRejectedError(message)
        if state.error:
            # Throttled as well: backpressure would hold the source's bars, which need no session.
            return ProviderUnavailableError(message)
        return SessionNotReadyError(f"Yahoo's session was just made anew; next in {rest_s:.0f} s")

    def _make(self) -> None:
        try:
            with self._file.locked():
                # Another process may have made one, or failed, while we waited for the lock.
                state = self._file.read()
                now = real_timestamp()
                if not state.usable_after(self._refused_at) and state.rest_s(now) <= 0:
                    self._file.write(state.after(self._ask_helper(), now, real_timestamp()))
        finally:
            with self._lock:
                self._making = False

    def _ask_helper(self) -> dict[str, str]:
        """What the helper printed: cookie and crumb, or error and detail."""
        root = Path(__file__).resolve().parents[2]
        inherited = {k: v for k, v in environment().items() if _ENVIRONMENT.fullmatch(k)}
        with self._lock:
            if self._closed:
                return {"error": "unavailable", "detail": "we were closing"}
            self._process = subprocess.Popen(
                [sys.executable, "-m", _HELPER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=root,
                env=inherited | {"PYTHONPATH": str(root)},
            )
        question = json.dumps({"base_url": self._base_url, "timeout_s": _REQUEST_S})
        with self._process as process:
            try:
                out, err = process.communicate(question, timeout=_REQUEST_S * 4)
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = "", "gave no answer in time"
        try:
            answer: Any = json.loads(out)
        except ValueError:
            # stderr is a traceback; its last line says what happened.
            last = (err.strip().splitlines() or [f"status {process.returncode}"])[-1][:200]
            answer = {"error": "unavailable", "detail": f"the helper ended without one: {last}"}
        if "error" in answer:
            log.warning(
                "no Yahoo session", extra={"kind": answer["error"], "why": answer["detail"]}
            )
        else:
            log.info("made a Yahoo session")
        return answer
