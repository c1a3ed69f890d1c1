"""What a reply says, as a second source could say it, and what of it is not believed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from core.bars import Bar, Quote
from core.sessions import Calendar
from db.universe import Member
from workers import plausible
from workers.plausible import Price


@dataclass(frozen=True, slots=True)
class Item:
    """One symbol's answer, as it would be stored."""

    member: Member
    calendar: Calendar | None
    bars: Sequence[Bar]
    settled: Sequence[datetime]
    """Starts of the bars that were to be there, settled."""
    quote: Quote | None = None

    @property
    def says(self) -> bool:
        """Whether it says anything, if only that bars lack."""
        return self.quote is not None or bool(self.bars) or bool(self.settled)

    @property
    def lacks(self) -> bool:
        """Whether settled bars did not come."""
        sent = {bar.ts for bar in self.bars}
        return any(ts not in sent for ts in self.settled)

    def price(self) -> Price | None:
        """The newest price of the answer."""
        if self.quote is not None:
            value = plausible.worth(self.quote)
            return None if value is None else Price(self.quote.ts, value)
        return Price(self.bars[-1].ts, self.bars[-1].close) if self.bars else None


@dataclass(frozen=True, slots=True)
class Doubts:
    """What is not believed of a reply."""

    refused: Mapping[str, str] = field(default_factory=dict[str, str])
    """Symbol -> why its answer is refused."""
    accused: str = ""
    """Why the source's breaker is to be opened at once; empty when it is not."""
