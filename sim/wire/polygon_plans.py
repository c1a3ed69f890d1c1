"""What each plan of Polygon's includes, and how it refuses the rest."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")
NO_TIMEFRAME = (
    "Your plan doesn't include this data timeframe. Please upgrade your plan at "
    "https://massive.com/pricing"
)
NO_DATA = (
    "You are not entitled to this data. Please upgrade your plan at https://massive.com/pricing"
)
_YEAR = 365 * 86_400


@dataclass(frozen=True, slots=True)
class Plan:
    """One plan for stocks; how late its feed is, is the source's ``delay_s``."""

    history_s: float | None
    """How far back, None: all there is."""
    today: bool
    """Whether the current day in New York is included."""
    snapshot: bool
    trades: bool
    """Whether a snapshot has the last trade."""
    quotes: bool
    """Whether a snapshot has the last quote."""

    def reaches(self, start: float, end: float, now: float) -> bool:
        """Whether bars of ``[start, end)`` may be asked for at ``now``, market epoch seconds."""
        if self.history_s is not None and start < now - self.history_s:
            return False
        return self.today or end <= midnight(now)


PLANS: Mapping[str, Plan] = {
    "basic": Plan(2 * _YEAR, today=False, snapshot=False, trades=False, quotes=False),
    "starter": Plan(5 * _YEAR, today=True, snapshot=True, trades=False, quotes=False),
    "developer": Plan(10 * _YEAR, today=True, snapshot=True, trades=True, quotes=False),
    "advanced": Plan(None, today=True, snapshot=True, trades=True, quotes=True),
}


def midnight(instant: float) -> float:
    """New York's midnight at or before an instant, epoch seconds."""
    there = datetime.fromtimestamp(instant, UTC).astimezone(NEW_YORK)
    return there.replace(hour=0, minute=0, second=0, microsecond=0, fold=0).timestamp()
