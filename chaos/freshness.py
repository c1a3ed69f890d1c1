"""How long after a fault's end the live symbols are answered in time again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg

from chaos.strike import Struck
from core.words import Tier

SLO_S = 120.0
"""Market seconds: twice the interval of one minute."""
_WORST = """
SELECT max(extract(epoch FROM gapless_now() - coalesce(c.answered, %(open)s)))::float8
FROM universe u
LEFT JOIN LATERAL (
    SELECT max(k.last_answered_at) AS answered FROM ingestion_cursor k
    WHERE k.symbol_id = u.symbol_id AND k.interval_s = 60
) c ON true
WHERE u.active AND u.tier = %(tier)s
"""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one instant."""

    at_s: float
    """Real seconds after the replay began."""
    fresh: bool
    """Every T0 symbol was answered within the SLO; False also while the database is away."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """How a fault was got over."""

    kind: str
    target: str
    seconds: float
    """Real, from its end until everything was fresh again; 0 when it never left the SLO."""


@dataclass(slots=True)
class Freshness:
    """Looks at the oldest answer of T0 a few times a second, over a connection of its own."""

    url: str
    """Of the database, past every proxy."""
    open: datetime
    """The market's open, before which nothing is old."""
    looks: list[Look] = field(default_factory=list[Look])
    _conn: "psycopg.Connection[tuple[Any, ...]] | None" = None

    def look(self, now_s: float) -> None:
        """Look once; ``now_s`` real seconds after the replay began."""
        try:
            if self._conn is None:
                self._conn = psycopg.connect(self.url, autocommit=True, connect_timeout=1)
            question = {"open": self.open, "tier": Tier.T0.value}
            row = self._conn.execute(_WORST, question).fetchone()
            fresh = row is not None and row[0] is not None and float(row[0]) <= SLO_S
        except psycopg.Error:
            self.close()
            fresh = False
        self.looks.append(Look(now_s, fresh))

    def close(self) -> None:
        """Let go of the connection."""
        if self._conn is not None:
            self._conn.close()
            self._conn = None


def recoveries(struck: Sequence[Struck], looks: Sequence[Look]) -> list[Recovery]:
    """How each fault was got over.

    A stale stretch counts from the last fault that ended before it was over, whether it began before
    or after that end: a killed process makes symbols stale a little later.
    """
    ended = sorted((one for one in struck if one.ended_s is not None), key=_end)
    worst = dict.fromkeys(range(len(ended)), 0.0)
    for _, over_s in _stretches(looks):
        before = [number for number, one in enumerate(ended) if _end(one) <= over_s]
        if before:
            last = before[-1]
            worst[last] = max(worst[last], over_s - _end(ended[last]))
    return [
        Recovery(one.fault.kind.value, one.fault.target, round(worst[number], 2))
        for number, one in enumerate(ended)
    ]


def longest_stale(looks: Sequence[Look]) -> float:
    """Real seconds of the longest stale stretch."""
    return round(max((over_s - began_s for began_s, over_s in _stretches(looks)), default=0.0), 2)


def _stretches(looks: Sequence[Look]) -> Iterator[tuple[float, float]]:
    """Begin and end of each stale stretch; the market begins with one, which no fault made.

    One that lasts until the last look ends there: it was never got over.
    """
    since: float | None = None
    begun = False
    for look in looks:
        if not look.fresh and begun and since is None:
            since = look.at_s
        elif look.fresh and since is not None:
            yield since, look.at_s
            since = None
        begun = begun or look.fresh
    if since is not None:
        yield since, looks[-1].at_s


def _end(struck: Struck) -> float:
    assert struck.ended_s is not None, "only faults that have ended are asked"
    return struck.ended_s
