"""What people and the coordinator ask for while everything breaks: windows to backfill, elements on lists."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import orjson
from redis.exceptions import RedisError

from chaos.world import LISTS, World
from core.errors import GaplessError
from core.windows import Window, floor_to
from core.words import Interval, Tier
from db import backfill
from db.backfill import NewJob

_MINUTE = timedelta(minutes=1)
_LEAST = timedelta(minutes=4)


@dataclass(frozen=True, slots=True)
class Asked:
    """A window that somebody was promised."""

    symbol: str
    window: Window
    """Of one-minute bars."""
    element: str | None = None
    """The coordinator's that asks for it; None: an operator does."""
    once: bool = False
    """Whether one answer of one source is all that was promised; a backfill asks the next for what lacks."""


@dataclass(frozen=True, slots=True)
class Element:
    """One element that was pushed and whose push was acknowledged."""

    id: str
    list_key: str
    raw: bytes
    pushed_s: float
    """Real seconds after the replay began."""


@dataclass(slots=True)
class Traffic:
    """Asks now and then; what it was told is taken on is remembered, to be demanded at the end."""

    world: World
    draws: random.Random
    every_s: float = 0.25
    """Real seconds between two asks, on average."""
    asked: list[Asked] = field(default_factory=list[Asked])
    elements: list[Element] = field(default_factory=list[Element])
    refused: int = 0
    """Asks that met a server that was down; nobody promised anything."""
    _next_s: float = 0.0
    _number: int = 0

    def step(self, now_s: float, market: datetime) -> None:
        """Ask once if it is time to; ``now_s`` real seconds after the replay began."""
        if now_s < self._next_s:
            return
        self._next_s = now_s + self.draws.uniform(0.5, 1.5) * self.every_s
        done = floor_to(market, _MINUTE) - 3 * _MINUTE
        if done - self.world.times.open < _LEAST:
            return
        self._number += 1
        try:
            if self.draws.random() < 0.4:
                self._enqueue(done)
            else:
                self._push(now_s, done)
        except (GaplessError, RedisError):
            self.refused += 1

    def _enqueue(self, until: datetime) -> None:
        """As ``ops enqueue-backfill`` does."""
        wanted = [(symbol, self._window(until)) for symbol in self._symbols()]
        ids = self.world.symbol_ids
        jobs = [
            NewJob(ids[symbol], Interval.M1, window, Tier.T2, "operator")
            for symbol, window in wanted
        ]
        backfill.enqueue(self.world.db, jobs)
        # The same window twice is one row, so a window may have had its row before.
        self.asked += [Asked(symbol, window) for symbol, window in wanted]

    def _push(self, now_s: float, until: datetime) -> None:
        name = f"chaos-{self.world.plan.seed}-{self._number}"
        key = self.draws.choice(LISTS)
        body: dict[str, object] = {"v": 1, "id": name, "symbols": self._symbols()}
        window = None
        if key == LISTS[0] and self.draws.random() < 0.3:
            body["type"] = "quotes_l1"
        else:
            window = self._window(until)
            body |= {
                "type": "bars_1m",
                "start": window.start.isoformat(),
                "end": window.end.isoformat(),
            }
        raw = orjson.dumps(body)
        # A coordinator that is not sure of its push repeats it: the id makes it one.
        for _ in range(self.draws.choice((1, 1, 1, 2))):
            self.world.redis.lpush(key, raw)
        self.elements.append(Element(name, key, raw, now_s))
        if window is not None:
            symbols: Sequence[str] = body["symbols"]  # pyright: ignore[reportAssignmentType] - put there above
            self.asked += [
                Asked(symbol, window, element=name, once=key == LISTS[0]) for symbol in symbols
            ]

    def _symbols(self) -> list[str]:
        """Of T2, whose minutes nobody collects unasked."""
        listed = self.world.tiers["T2"]
        return sorted(self.draws.sample(listed, min(len(listed), self.draws.choice((1, 1, 2, 4)))))

    def _window(self, until: datetime) -> Window:
        begin = self.world.times.open
        minutes = int((until - begin) / _MINUTE)
        length = self.draws.randint(2, min(minutes, 15))
        start = begin + self.draws.randint(0, minutes - length) * _MINUTE
        return Window(start, start + length * _MINUTE)
