"""Finds out sources that answer well-formed untruths, by asking another source now and then.

A small share of the answers is held against a second source of the same adjustment, where the budget
that live work leaves permits it; answers that look wrong are held first. The second source's word
decides about the first one's answer only: it is never stored in its place.

What this process finds out of a source it tells the breaker, which opens for the fleet. Real time,
but for the ages of prices. Thread-safe.
"""

import logging
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final, Literal

from core import metrics
from core.clock import Clock
from core.errors import ProviderError
from core.telemetry import Telemetry
from core.windows import Window
from core.words import Capability, Interval
from providers.base import Page, Request
from routing.lease import Lease
from routing.router import Router
from workers import plausible
from workers.doubts import Doubts, Item
from workers.plausible import Difference, Liar, Price

log = logging.getLogger(__name__)

GRAY: Final = ("wrong prices", "incomplete", "stale")
"""Reasons with which a breaker is opened here; a source that comes back from one is on trial."""
_SAMPLED: Final = 50
"""One of so many answers is held against a second source without any suspicion."""
_EARNED, _FIRST_CREDIT, _MOST_CREDIT = 0.03, 5.0, 10.0
"""Second calls that an answer earns: suspicion or not, they stay a few in a hundred."""
_LOOK_BACK = timedelta(minutes=5)
"""Newest part of an answer that is compared."""
_WAIT_S = 1.5
"""Longest wait of an answer for the second opinion on another one."""
_STRIKES, _OF, _WITHIN_S = 3, 5, 60.0
"""So many of the last so many opinions within this against a source open its breaker."""
_DISBELIEVED_S = 3.0
"""Suspicious answers of a source that was just refuted are refused unasked."""
_CROWD_S, _CROWD, _CROWD_LEAST = 10.0, 16, 8
"""When so many of the last so many symbols moved grossly, it is not the market."""

Finding = Literal["honest", "lies", "unknown"]


@dataclass(slots=True)
class _Case:
    """What this process thinks of one source and capability."""

    free: threading.Condition = field(default_factory=threading.Condition)
    busy: bool = False
    credit: float = _FIRST_CREDIT
    answers: int = 0
    disbelieved_until: float = float("-inf")
    opinions: deque[tuple[float, str, str]] = field(
        default_factory=lambda: deque[tuple[float, str, str]](maxlen=_OF)
    )
    """When, of which symbol, and what speaks against the source; empty for nothing."""
    crowd: dict[int, tuple[float, bool]] = field(default_factory=dict[int, tuple[float, bool]])
    """The last symbols that were answered: when, and whether the price moved grossly."""


class SecondOpinion:
    """Shared by all batches of a process."""

    def __init__(self, clock: Clock, telemetry: Telemetry) -> None:
        self._clock = clock
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._cases: dict[tuple[str, Capability], _Case] = {}
        self._prices: dict[tuple[int, str], Price] = {}

    def on(
        self, router: Router | None, lease: Lease, items: Sequence[Item], timeout_s: float
    ) -> Doubts:
        """Judge one reply, asking another source where that is due.

        Args:
            router: Finds the other source; None where nobody else is to be asked.
            lease: Under which the reply came; not ended yet.
            items: What the reply says, symbol by symbol.
            timeout_s: Longest second call, real seconds.
        """
        items = [item for item in items if item.says]
        if not items or lease.spec.capability.interval is Interval.D1:
            # A day apart, splits and overnight moves are everyday.
            return Doubts()
        case = self._case(lease)
        moves = {item.member.symbol: self._move(lease, item) for item in items}
        suspects = [item for item in items if moves[item.member.symbol] > plausible.JUMP]
        gross = self._note(case, items, moves)
        if suspects:
            return self._suspected(case, router, lease, items, suspects, gross, timeout_s)
        self._believe(lease, items)
        item, sure = self._pick(case, lease, items)
        if item is None or not self._begin(case, 0.0, sure=sure):
            return Doubts()
        try:
            finding, why = self._ask(router, lease, item, timeout_s, spare=not sure)
        finally:
            self._end(case)
        refused = {item.member.symbol: why} if finding == "lies" and why.startswith(GRAY[0]) else {}
        return Doubts(refused, self._conclude(case, lease, item, finding, why))

    def _suspected(
        self,
        case: _Case,
        router: Router | None,
        lease: Lease,
        items: Sequence[Item],
        suspects: Sequence[Item],
        gross: str,
        timeout_s: float,
    ) -> Doubts:
        """Prices moved far: one suspect is put to a second source, its verdict is the others' too."""
        first = suspects[0]
        names = [item.member.symbol for item in suspects]
        trial = _on_trial(lease)
        finding: Finding = "unknown"
        why = gross
        if gross or self._clock.monotonic() < case.disbelieved_until:
            finding = "lies"
        elif self._begin(case, _WAIT_S, sure=True):
            try:
                finding, why = self._ask(router, lease, first, timeout_s, prices=True)
            finally:
                self._end(case)
        elif self._clock.monotonic() < case.disbelieved_until:
            finding = "lies"
        if finding == "unknown" and trial:
            finding, why = (
                "lies",
                f"{GRAY[0]}: nobody could confirm a move of {first.member.symbol}",
            )
        why = why or f"{GRAY[0]}: as those just refuted"
        self._believe(lease, [item for item in items if item not in suspects])
        if finding == "honest":
            self._believe(lease, suspects)
        if finding != "lies":
            return Doubts()
        case.disbelieved_until = self._clock.monotonic() + _DISBELIEVED_S
        accused = gross or self._conclude(case, lease, first, finding, why)
        return Doubts(dict.fromkeys(names, why), accused)

    def _ask(
        self,
        router: Router | None,
        lease: Lease,
        item: Item,
        timeout_s: float,
        *,
        prices: bool = False,
        spare: bool = False,
    ) -> tuple[Finding, str]:
        """Hold one symbol's answer against another source's, and a third one's where two disagree."""
        others: list[tuple[str, Difference, Liar]] = []
        asked = [lease.source]
        for _ in range(2):
            second = router and router.second(
                lease.spec.capability, asked, prices=prices or bool(others), spare=spare
            )
            if second is None:
                break
            asked.append(second.source)
            said = self._second(second, item, timeout_s)
            if said is None:
                continue
            difference, liar = self._compare(lease, second, item, said)
            if not difference.wrong:
                return self._gray(lease, second, item, difference) or ("honest", "")
            self._telemetry.count(metrics.SOURCES_DISAGREE, lease.source, second.source)
            others.append((second.source, difference, liar))
            if liar == "first":
                return "lies", self._said(item, said, second.source)
            if liar == "second":
                log.warning(
                    "prices refuted",
                    extra={
                        "source": second.source,
                        "by": lease.source,
                        "symbol": item.member.symbol,
                    },
                )
                return "honest", ""
        if len(others) >= 2:
            names = " and ".join(name for name, _, _ in others)
            return "lies", f"{GRAY[0]}: {names} both tell others for {item.member.symbol}"
        if others:
            log.warning(
                "sources disagree",
                extra={"source": lease.source, "by": others[0][0], "symbol": item.member.symbol},
            )
        return "unknown", ""

    def _gray(
        self, lease: Lease, second: Lease, item: Item, difference: Difference
    ) -> tuple[Finding, str] | None:
        """What the second has and the first lacks; no lie unless the first lacks more than usual."""
        if not difference.lacking or not (lease.incomplete() or lease.on_trial):
            return None
        if item.quote is not None:
            return "lies", f"{GRAY[2]}: {second.source} is newer for {item.member.symbol}"
        count = len(difference.lacking)
        return "lies", f"{GRAY[1]}: {second.source} has {count} bars more of {item.member.symbol}"

    def _second(self, second: Lease, item: Item, timeout_s: float) -> Page | None:
        """One call of the other source; None when it says nothing of use."""
        capability, symbol = second.spec.capability, item.member.symbol
        window = None if item.quote is not None else _newest(item)
        try:
            call = second.provider.plan(Request(capability, (symbol,), window))[0]
        except ProviderError:
            second.release()
            return None
        if not second.fresh():
            second.release()
            return None
        started = self._clock.monotonic()
        try:
            raw = second.provider.send(call, min(timeout_s, second.spec.timeout_s))
            page = second.provider.parse(call, raw, item.calendar)
        except ProviderError as error:
            second.failed(error, self._clock.monotonic() - started, endpoint=call.endpoint)
            return None
        latency_s = self._clock.monotonic() - started
        second.answered(latency_s, endpoint=call.endpoint, headers=raw.headers)
        told = symbol in page.quotes if window is None else bool(page.bars.get(symbol))
        self._telemetry.count(metrics.SECOND_OPINIONS, second.source)
        return page if told and symbol not in page.problems else None

    def _compare(
        self, lease: Lease, second: Lease, item: Item, said: Page
    ) -> tuple[Difference, Liar]:
        symbol = item.member.symbol
        before = self._prices.get((item.member.symbol_id, _family(lease)))
        if item.quote is not None:
            theirs = said.quotes[symbol]
            difference = plausible.compare_quotes(item.quote, theirs)
            ours, other = plausible.worth(item.quote), plausible.worth(theirs)
            if not difference.wrong or ours is None or other is None:
                return difference, "unknown"
            return difference, plausible.liar(before, item.quote.ts, ours, other)
        bars = said.bars[symbol]
        window = _newest(item)
        # The second need not have settled it: that there was a bar it knows already.
        settled = [ts for ts in item.settled if window.contains(ts)]
        difference = plausible.compare_bars(item.bars, bars, settled)
        if _family(lease) != _family(second):
            # Adjusted prices say nothing of others; whether there was a bar they do say.
            return replace(difference, wrong=()), "unknown"
        if not difference.wrong:
            return difference, "unknown"
        ts = difference.wrong[-1]
        ours = next(bar.close for bar in item.bars if bar.ts == ts)
        other = next(bar.close for bar in bars if bar.ts == ts)
        return difference, plausible.liar(before, ts, ours, other)

    def _said(self, item: Item, said: Page, source: str) -> str:
        symbol = item.member.symbol
        price = item.price()
        quote = said.quotes.get(symbol)
        theirs = plausible.worth(quote) if quote else said.bars[symbol][-1].close
        ours = price.value if price else None
        return f"{GRAY[0]}: {symbol} at {ours:g}, {source} says {theirs:g}"

    def _conclude(self, case: _Case, lease: Lease, item: Item, finding: Finding, why: str) -> str:
        """Why to open the breaker now; empty when what was found is not yet enough."""
        if finding == "unknown":
            return ""
        now = self._clock.monotonic()
        against = why if finding == "lies" else ""
        with case.free:
            case.opinions.append((now, item.member.symbol, against))
            recent = [one for one in case.opinions if now - one[0] <= _WITHIN_S]
        if not against:
            return ""
        struck = [one for one in recent if one[2]]
        enough = len(struck) >= _STRIKES and len({symbol for _, symbol, _ in struck}) >= 2
        return against if enough or lease.on_trial else ""

    def _pick(self, case: _Case, lease: Lease, items: Sequence[Item]) -> tuple[Item | None, bool]:
        """The answer to hold against another, and whether there is a reason besides chance."""
        with case.free:
            case.credit = min(_MOST_CREDIT, case.credit + _EARNED)
            case.answers += 1
            chance = case.answers % _SAMPLED == 0
            at = case.answers % len(items)
        trial = _on_trial(lease)
        if trial or lease.incomplete():
            return next((item for item in items if item.lacks), items[at]), True
        return (items[at], False) if chance else (None, False)

    def _begin(self, case: _Case, wait_s: float, *, sure: bool) -> bool:
        """Take the turn and the credit for a second opinion; one at a time for a source."""
        with case.free:
            if wait_s and not case.free.wait_for(lambda: not case.busy, wait_s):
                return False
            if case.busy or case.credit < 1 or self._clock.monotonic() < case.disbelieved_until:
                return False
            case.busy = True
            case.credit -= 1 if sure else 0.5
            return True

    def _end(self, case: _Case) -> None:
        with case.free:
            case.busy = False
            case.free.notify_all()

    def _note(self, case: _Case, items: Sequence[Item], moves: Mapping[str, float]) -> str:
        """Whether most symbols moved grossly at once; the accusation, or nothing."""
        now = self._clock.monotonic()
        with case.free:
            for item in items:
                case.crowd.pop(item.member.symbol_id, None)
                case.crowd[item.member.symbol_id] = (
                    now,
                    moves[item.member.symbol] > plausible.GROSS,
                )
            for old in list(case.crowd)[: -max(_CROWD, len(items))]:
                del case.crowd[old]
            recent = [moved for at, moved in case.crowd.values() if now - at <= _CROWD_S]
        moved = sum(recent)
        if moved < _CROWD_LEAST or 2 * moved < len(recent):
            return ""
        return (
            f"{GRAY[0]}: {moved} of {len(recent)} symbols moved by more than {plausible.GROSS:.0%}"
        )

    def _move(self, lease: Lease, item: Item) -> float:
        before = self._prices.get((item.member.symbol_id, _family(lease)))
        if item.quote is not None:
            price = item.price()
            return 0.0 if price is None else plausible.move(before, price.ts, price.value)
        return plausible.largest_move(before, item.bars)[0]

    def _believe(self, lease: Lease, items: Sequence[Item]) -> None:
        for item in items:
            price = item.price()
            if price is not None:
                key = (item.member.symbol_id, _family(lease))
                before = self._prices.get(key)
                if before is None or price.ts >= before.ts:
                    self._prices[key] = price

    def _case(self, lease: Lease) -> _Case:
        key = (lease.source, lease.spec.capability)
        case = self._cases.get(key)
        if case is None:
            with self._lock:
                case = self._cases.setdefault(key, _Case())
        return case


def _on_trial(lease: Lease) -> bool:
    """Whether the source comes back after it was found out."""
    return lease.on_trial and any(word in lease.opened_for for word in GRAY)


def _family(lease: Lease) -> str:
    """Prices of one family can be compared: quotes are of now, bars are adjusted or not."""
    return "quotes" if lease.spec.capability.interval is None else lease.spec.adjustment


def _newest(item: Item) -> Window:
    """The newest part of an answer that both sources must have."""
    last = max([bar.ts for bar in item.bars] + list(item.settled), default=None)
    assert last is not None, "an answer that says nothing is not compared"
    end = last + Interval.M1.delta
    starts = [bar.ts for bar in item.bars] + list(item.settled)
    return Window(max(min(starts), end - _LOOK_BACK), end)
