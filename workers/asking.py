"""Puts questions to providers, as many at once as places and budget allow.

The calls run in the process's pool. The batch's own thread hands out the first ones, whatever has to
wait, and what is asked again; a thread of the pool that has ended a call takes the next one itself.
Whatever happens to a question comes back as one result: answered, or unanswered with the error.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from math import ceil

from core.errors import (
    DeadlineExceededError,
    GaplessError,
    MalformedPayloadError,
    NoRouteError,
    ProviderError,
    RateLimitedError,
    UsageError,
)
from core.words import Capability, Interval, Share
from providers.base import Request
from workers.calls import Flights, Landing
from workers.context import Context
from workers.exchange import Exchange, Flight, Landed, StaleError
from workers.in_hand import MOST_BARS
from workers.questions import (
    Question,
    Result,
    Unanswered,
    all_unanswered,
)

log = logging.getLogger(__name__)

_TICK_S = 0.05
"""Real seconds after which the batch looks up from waiting for calls or budget."""
_LOOKED_S = 0.5
"""Real seconds after its last look in which calls of a batch are begun without its own thread.

One that writes for longer, hangs or has failed is asked for nothing more.
"""
_AGAIN_AFTER_S = 0.5
_AGAIN_MOST_S = 5.0
"""Real seconds before a question is put again to a source that was not ready for it; they double."""
_TRIES = 4


@dataclass(slots=True)
class Asking:
    """The questions of one batch and one capability, until each has its result."""

    context: Context
    capability: Capability
    share: Share
    deadline: float
    """Monotonic seconds after which nobody is asked any more."""
    hint: str | None = None
    only: str | None = None
    """Ask this source and no other."""
    timeout_s: float = 3.0
    """Longest call, real seconds."""
    patience_s: float = 10.0
    """Real seconds without a lease after which what still waits is given up."""
    before: Callable[[], None] | None = None
    """Called before each request leaves, by the thread that sends it."""
    _waiting: dict[frozenset[str], deque[Question]] = field(
        default_factory=dict[frozenset[str], deque[Question]]
    )
    """Questions by the sources that they are barred from, each in its order."""
    _flying: Flights[Flight, Landed] = field(init=False)
    """Calls on the wire; its lock guards every field here that changes."""
    _unasked: list[Result] = field(default_factory=list[Result])
    """Questions that ended without a call."""
    _in_hand: int = 0
    """Bars that calls on the wire may bring, and those that the batch has not taken."""
    _placeless: bool = False
    """Whether the last look found no free place."""
    _moved: float = field(init=False)
    """When a call was last started or ended, monotonic."""
    _looked: float = field(init=False)
    """When the batch's thread last looked, monotonic."""

    def __post_init__(self) -> None:
        exchange = Exchange(
            self.context, self.capability, self.only is not None, self.timeout_s, self.before
        )
        self._flying = Flights(self.context.calls, exchange.make, self._following, self._urgent)
        self._moved = self._looked = self.context.clock.monotonic()

    def add(self, questions: Iterable[Question]) -> None:
        """Put questions, asked in their order."""
        with self._flying.lock:
            for question in questions:
                self._waiting.setdefault(question.barred, deque()).append(question)

    def results(self) -> Iterator[list[Result]]:
        """What has come in since the last look, perhaps nothing, until every question has ended."""
        while self._unfinished():
            results, bars = self._hand_out(), 0
            if self._flying or self._placeless:
                for landing in self._flying.landed(_TICK_S):
                    results += self._land(landing)
                    bars += landing.argument.bars
                    # Nothing that was taken is kept alive by what waits for more.
                    del landing
            yield results
            del results
            with self._flying.lock:
                self._in_hand -= bars

    def again(self, result: Unanswered) -> bool:
        """Put a failed question again where that may help; False when it has ended.

        Backpressure is waited for. A refusal that is nobody's fault costs nothing: another source
        is asked. A failure spends the fleet's retry budget, goes to another source and goes alone,
        so that one bad symbol can't sink the others twice.
        """
        question, error, source = result.question, result.error, result.source
        if source is None or self.over or question.tries + 1 >= _TRIES:
            return False
        question = replace(question, blame=result)
        if isinstance(error, RateLimitedError):
            return self._later(question)
        barred = question.barred | {source}
        others = self._others(barred)
        if not error.counts_against_health:
            if others:
                self.add([replace(question, barred=barred)])
            return bool(others) or (error.retryable and self._later(question))
        # The only source may be asked again without the symbol that spoilt the call of many.
        if not others and result.crowd == 1:
            return False
        if result.lease is None or not result.lease.retry_allowed():
            return False
        barred = barred if others else question.barred
        self.add([replace(question, barred=barred, tries=question.tries + 1, alone=True)])
        return True

    def _later(self, question: Question) -> bool:
        pause_s = min(_AGAIN_AFTER_S * 2**question.waits, _AGAIN_MOST_S)
        later = self.context.clock.monotonic() + pause_s
        self.add([replace(question, not_before=later, waits=question.waits + 1)])
        return True

    @property
    def over(self) -> bool:
        """Whether the time for asking has passed."""
        return self.context.stop.finish_now or self.context.clock.monotonic() >= self.deadline

    @property
    def _full(self) -> bool:
        return self._in_hand >= MOST_BARS[self.share]

    def _unfinished(self) -> bool:
        with self._flying.lock:
            return bool(self._waiting or self._flying or self._unasked)

    def _hand_out(self) -> list[Result]:
        """Start calls while there are questions, places and budget; returns what ended unasked."""
        with self._flying.lock:
            self._looked = self.context.clock.monotonic()
            self._placeless = False
            for barred in list(self._waiting):
                while barred in self._waiting:
                    if self.over:
                        self._give_up(barred)
                        break
                    if not self._hand_out_one(barred):
                        break
            ended, self._unasked = self._unasked, []
        return ended

    def _hand_out_one(self, barred: frozenset[str]) -> bool:
        """Start one call; False when this group of questions has to wait."""
        clock, patience = self.context.clock, 0.0 if self._flying else _TICK_S
        if self._waiting[barred][0].not_before > clock.monotonic():
            clock.sleep(patience)
            return False
        if self._full:
            return False
        if not self._flying.wish():
            self._placeless = True
            return False
        begun = False
        try:
            flight = self._route(barred, patience)
            if flight is not None:
                self._flying.begin(flight)
                begun = True
        except NoRouteError as error:
            if error.retry_at is None or clock.monotonic() - self._moved > self.patience_s:
                self._give_up(barred, error)
            return False
        finally:
            if not begun:
                self.context.calls.give_back()
        return True

    def _following(self) -> Flight | None:
        """The next call for a thread of the pool that has a place; what has to wait is left alone."""
        now = self.context.clock.monotonic()
        if now - self._looked > _LOOKED_S or self.over or self._full:
            return None
        for barred in list(self._waiting):
            if self._waiting[barred][0].not_before > now:
                continue
            # Whether to wait or to give up is decided by the batch's own thread.
            with suppress(NoRouteError):
                flight = self._route(barred, 0.0)
                if flight is not None:
                    return flight
        return None

    def _route(self, barred: frozenset[str], patience: float) -> Flight | None:
        """Lease a source and plan a call of it; None when its plan was refused.

        Raises:
            NoRouteError: nobody can be asked within so many real seconds.
        """
        clock = self.context.clock
        lease = self.context.router.acquire(
            self.capability,
            share=self.share,
            hint=self.hint,
            pinned=self.only,
            exclude=barred,
            deadline=min(self.deadline, clock.monotonic() + patience),
        )
        questions = self._take(barred, lease.spec.batch)
        request = Request(
            self.capability, tuple(q.member.symbol for q in questions), questions[0].window
        )
        try:
            first, *rest = lease.provider.plan(request)
        except ProviderError as error:
            lease.release()
            asked_at = clock.now()
            for question in questions:
                refused = Unanswered(question, error, lease.source, asked_at)
                if not self.again(refused):
                    self._unasked.append(refused)
            return None
        by_symbol = {question.member.symbol: question for question in questions}
        for call in reversed(rest):
            # Longer or wider than one call: the rest is asked next, of whoever is free then.
            self._put_first(
                replace(by_symbol[symbol], window=call.window) for symbol in call.symbols
            )
        self._moved = clock.monotonic()
        sent = [replace(by_symbol[symbol], window=first.window) for symbol in first.symbols]
        # All of a call share window and calendar.
        bars = len(sent) * self._expected(sent[0])
        self._in_hand += bars
        return Flight(lease, first, sent, bars)

    def _land(self, landing: Landing[Flight, Landed]) -> list[Result]:
        self._moved = self.context.clock.monotonic()
        flight, landed, error = landing.argument, landing.returned, landing.error
        if landed is not None:
            self._put_first(landed.rest)
            return landed.results
        if isinstance(error, StaleError):
            flight.lease.release()
            self._put_first(flight.questions)
            return []
        if isinstance(error, GaplessError):
            flight.lease.release()
            return [Unanswered(question, error) for question in flight.questions]
        # An adapter tripped over the reply: the source's word can't be used, the batch goes on.
        log.error("reply could not be read", exc_info=error, extra={"source": flight.lease.source})
        malformed = MalformedPayloadError(
            f"{flight.call.endpoint}: {type(error).__name__}: {error}"
        )
        flight.lease.failed(malformed, 0.0, endpoint=flight.call.endpoint)
        return all_unanswered(
            flight.lease, flight.questions, malformed, self.context.clock.now(), flight.raw
        )

    def _take(self, barred: frozenset[str], batch: int) -> list[Question]:
        """The next questions that fit into one call."""
        waiting = self._waiting[barred]
        taken = [waiting.popleft()]
        first = taken[0]
        while waiting and len(taken) < batch and not first.alone:
            other = waiting[0]
            if other.alone or other.window != first.window:
                break
            if other.member.calendar != first.member.calendar:
                break
            if any(other.member.symbol_id == taker.member.symbol_id for taker in taken):
                # The reply could not tell the two questions apart.
                break
            taken.append(waiting.popleft())
        if not waiting:
            del self._waiting[barred]
        return taken

    def _put_first(self, questions: Iterable[Question]) -> None:
        with self._flying.lock:
            for question in reversed(list(questions)):
                self._waiting.setdefault(question.barred, deque()).appendleft(question)

    def _give_up(self, barred: frozenset[str], error: GaplessError | None = None) -> None:
        reason = error or DeadlineExceededError(f"no time left to ask for {self.capability}")
        self._unasked += [Unanswered(question, reason) for question in self._waiting.pop(barred)]

    def _others(self, barred: frozenset[str]) -> frozenset[str]:
        """Sources that may be asked instead; none where the questions are pinned to one."""
        if self.only is not None:
            return frozenset()
        return frozenset(self.context.router.eligible(self.capability)) - barred

    def _urgent(self, landing: Landing[Flight, Landed]) -> bool:
        """What may be asked again is decided at once, and so is what others wait for."""
        landed = landing.returned
        return (
            self._full
            or landed is None
            or bool(landed.rest)
            or any(isinstance(result, Unanswered) for result in landed.results)
        )

    def _expected(self, question: Question) -> int:
        """Bars that the calendar lets expect of an answer, at least one; a quote is as one."""
        interval, window = self.capability.interval, question.window
        if interval is None or window is None:
            return 1
        with suppress(UsageError):
            calendar = self.context.reference.calendar(question.member.calendar)
            if interval is Interval.D1:
                return max(1, sum(1 for _ in calendar.between(window)))
            hours = sum((part.length for part in calendar.trading(window)), timedelta(0))
            return max(1, ceil(hours / interval.delta))
        return 1
