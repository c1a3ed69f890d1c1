"""An intake in a process of its own, over the database's own clock, without any provider."""

from datetime import timedelta

from core.clock import SystemClock
from core.log import configure
from core.settings import load
from core.telemetry import Telemetry
from core.words import Capability
from db.clock import connect_clock
from db.pool import Database
from workers.intake import Intake
from workers.queues import connect
from workers.reference import Reference
from workers.stopping import Stop


def main() -> None:
    settings = load()
    configure(settings.log_level)
    clock = connect_clock(settings.database_url)
    db = Database(settings.database_url, clock, max_size=2)
    redis = connect(settings.redis_url)
    Intake(
        settings=settings,
        db=db,
        coordinator=redis,
        redis=redis,
        reference=Reference(db),
        telemetry=Telemetry(),
        stop=Stop(SystemClock()),
        providers={"one": dict.fromkeys(Capability, timedelta(days=30))},
    ).run()


if __name__ == "__main__":
    main()
