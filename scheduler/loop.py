"""Runs the scheduler's parts side by side until told to stop.

Each part is a step that does what is due and says how many real seconds it may rest. Parts have a
thread each, so that a long gap pass never makes a slot late.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from core.clock import Clock
from core.errors import GaplessError, LeaseLostError

log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 1.0


@dataclass(slots=True)
class Part:
    """One thread's work."""

    name: str
    step: Callable[[], float]
    """Does what is due; returns the real seconds to rest. Called again at once when woken."""
    wake: threading.Event = field(default_factory=threading.Event)
    """Set it to cut the rest short."""
    troubles: int = 0
    """Steps that failed in a row; 0 when all is well."""
    began: float | None = None
    """Monotonic seconds at which the step that runs now was begun."""


class Loop:
    """The parts' threads, their shared stop and what stopped them."""

    def __init__(self, parts: Sequence[Part], clock: Clock) -> None:
        self._parts = tuple(parts)
        self._clock = clock
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._run, args=(part,), name=part.name, daemon=True)
            for part in self._parts
        ]

    def start(self) -> None:
        """Start every part."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let no further step begin; safe in a signal handler and safe to call twice."""
        self._stopping.set()
        for part in self._parts:
            part.wake.set()

    @property
    def stopping(self) -> bool:
        """Whether the end has begun."""
        return self._stopping.is_set()

    def wait(self) -> None:
        """Block until somebody stops the loop."""
        self._stopping.wait()

    def join(self, part_names: Sequence[str], seconds: float) -> None:
        """Wait for these parts' running steps to end, at most ``seconds`` in all."""
        deadline = self._clock.monotonic() + seconds
        for thread in self._threads:
            if thread.name in part_names:
                thread.join(max(0.0, deadline - self._clock.monotonic()))

    @property
    def failure(self) -> BaseException | None:
        """What a part died of, if one did."""
        return self._failure

    def troubled(self) -> list[str]:
        """Parts whose last steps failed."""
        return [part.name for part in self._parts if part.troubles > 0]

    def hanging(self, part_names: Sequence[str], seconds: float) -> list[str]:
        """Those of these parts whose step has been running for longer than so many real seconds."""
        now = self._clock.monotonic()
        begun = [(part.name, part.began) for part in self._parts if part.name in part_names]
        return [name for name, began in begun if began is not None and now - began > seconds]

    def end(self, error: BaseException) -> None:
        """Stop every part because of an error."""
        self._die(error)

    def _run(self, part: Part) -> None:
        while not self._stopping.is_set():
            try:
                part.began = self._clock.monotonic()
                rest = part.step()
                part.troubles = 0
            except GaplessError as error:
                if not (error.retryable or isinstance(error, LeaseLostError)):
                    self._die(error)
                    return
                part.troubles += 1
                rest = min(_FIRST_PAUSE_S * 2 ** (part.troubles - 1), _LONGEST_PAUSE_S)
                if part.troubles in (1, 10, 100):
                    log.warning(
                        "step failed, tried again",
                        extra={"part": part.name, "times": part.troubles, "error": str(error)},
                    )
            except Exception as error:  # noqa: BLE001 - the thread's boundary: the process ends with it
                self._die(error)
                return
            part.began = None
            part.wake.wait(rest)
            part.wake.clear()

    def _die(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self.stop()
