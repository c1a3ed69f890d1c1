"""What a worker process is made of, handed to every job; ``wiring`` builds it."""

from dataclasses import dataclass, field

from redis import Redis

from core.clock import Clock
from core.settings import Settings
from core.telemetry import Telemetry
from db.pool import Database
from routing.router import Router
from workers.calls import CallPool
from workers.reference import Reference
from workers.second_opinion import SecondOpinion
from workers.stopping import Stop
from workers.suspects import Suspects


@dataclass(frozen=True, slots=True)
class Setup:
    """What the settings decide; replaced as a whole when they change."""

    settings: Settings
    router: Router


@dataclass(slots=True)
class Context:
    """The parts that jobs work with; all are thread-safe."""

    setup: Setup
    """In force now: a batch that runs meets a new one with its next call."""
    clock: Clock
    db: Database
    redis: Redis
    reference: Reference
    calls: CallPool
    telemetry: Telemetry
    stop: Stop
    opinions: SecondOpinion = field(init=False)
    """What this process thinks of its sources' honesty."""
    suspects: Suspects = field(init=False)
    """Symbols whose answers may kill processes."""

    def __post_init__(self) -> None:
        self.opinions = SecondOpinion(self.clock, self.telemetry)
        self.suspects = Suspects(self.redis)

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.setup.settings

    @property
    def router(self) -> Router:
        """The router over the sources and policies in force."""
        return self.setup.router

    def close(self) -> None:
        """Let go of what only this context holds."""
        self.calls.close()
        self.router.close()
