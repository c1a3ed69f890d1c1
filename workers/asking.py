"""Puts questions to providers: route, fetch, parse, assess, as many at once as places and budget allow.

The calls run in the process's pool. The batch's own thread hands out the first ones, whatever has to
wait, and what is asked again; a thread of the pool that has ended a call takes the next one itself.
Whatever happens to a question comes back as one result: answered, or unanswered with the error.
"""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from math import ceil

from core.errors import (
    BadDataError,
    DeadlineExceededError,
    GaplessError,
    MalformedPayloadError,
    NoRouteError,
    ProviderError,
    RateLimitedError,
    UsageError,
)
from core.sessions import Calendar
from core.words import Capability, Share
from db.candles import Payload, Refusal
from db.universe import Member
from providers.base import Call, Page, Raw, Request
from routing.router import Lease
from workers.assess import assess
from workers.calls import Flights, Landing
from workers.context import Context
from workers.in_hand import MOST_BARS
from workers.plausible import is_old, quote_problem, shown
from workers.questions import (
    Answered,
    Question,
    Result,
    Unanswered,
    all_unanswered,
    doubted,
    with_payload,
    without_rest,
)
from workers.second_opinion import Item

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


class _StaleError(GaplessError):
    """The lease's tokens were forfeited before the call could leave; lease anew."""


@dataclass(slots=True)
class _Flight:
    lease: Lease
    call: Call
    questions: Sequence[Question]
    bars: int
    """How many may come of it."""
    raw: Raw | None = None
    """The reply, once it is there."""


@dataclass(slots=True)
class _Landed:
    results: list[Result]
    rest: Sequence[Question] = ()
    """What a full page left out, to be asked next."""


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
    _waiting: dict[frozenset[str], deque[Question]] = field(
        default_factory=dict[frozenset[str], deque[Question]]
    )
    """Questions by the sources that they are barred from, each in its order."""
    _flying: Flights[_Flight, _Landed] = field(init=False)
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
        self._flying = Flights(self.context.calls, self._call, self._following, self._urgent)
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

    def _following(self) -> _Flight | None:
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

    def _route(self, barred: frozenset[str], patience: float) -> _Flight | None:
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
        bars = _most_bars(self.capability, sent)
        self._in_hand += bars
        return _Flight(lease, first, sent, bars)

    def _call(self, flight: _Flight) -> _Landed:
        """One call, in a thread of the pool: send, parse, assess, tell the router."""
        lease, call, questions = flight.lease, flight.call, flight.questions
        if not lease.fresh():
            raise _StaleError("the budget's tokens were forfeited before the call left")
        clock = self.context.clock
        calendar = self._calendar(questions[0].member)
        started, asked_at = clock.monotonic(), clock.now()
        try:
            raw = flight.raw = lease.provider.send(call, self._limit_s(lease))
            page = lease.provider.parse(call, raw, calendar)
        except ProviderError as error:
            lease.failed(error, clock.monotonic() - started, endpoint=call.endpoint)
            return _Landed(all_unanswered(lease, questions, error, asked_at, flight.raw))
        latency_s = clock.monotonic() - started
        lease.arrived()
        answerable, rest = without_rest(questions, page)
        results = [self._judge(lease, question, page, asked_at) for question in answerable]
        router = self.context.router if self.only is None else None
        items = self._items(results, calendar)
        doubts = self.context.opinions.on(router, lease, items, self._limit_s(lease))
        answered = sum(isinstance(result, Answered) for result in results)
        results = [doubted(result, doubts, lease) for result in results]
        if (doubts.accused and lease.probe) or 2 * len(doubts.refused) > answered:
            reason = doubts.accused or next(iter(doubts.refused.values()))
            lease.failed(BadDataError(reason), latency_s, endpoint=call.endpoint)
        else:
            expected, received = self._completeness(results, calendar)
            lease.answered(
                latency_s,
                endpoint=call.endpoint,
                expected=expected,
                received=received,
                headers=raw.headers,
            )
        if doubts.accused:
            lease.accuse(doubts.accused)
        payload = Payload(lease.source, call.endpoint, call.symbols, asked_at, raw.status, raw.body)
        return _Landed(with_payload(results, payload), rest)

    def _limit_s(self, lease: Lease) -> float:
        return min(self.timeout_s, lease.spec.timeout_s)

    def _items(self, results: Sequence[Result], calendar: Calendar | None) -> list[Item]:
        """What the reply says, as a second source could say it."""
        return [
            Item(
                result.question.member,
                calendar,
                result.judged.answer.bars if result.judged else (),
                result.judged.settled if result.judged else (),
                result.quote,
            )
            for result in results
            if isinstance(result, Answered)
        ]

    def _completeness(
        self, results: Sequence[Result], calendar: Calendar | None
    ) -> tuple[int, int]:
        """What should have come of the reply by the calendar, and how much of it did.

        Bars that had settled; of quotes, while the market trades, those that are of the last minutes.
        """
        expected = received = 0
        for result in results:
            if isinstance(result, Answered) and result.judged:
                expected += result.judged.expected
                received += result.judged.received
            elif isinstance(result, Answered) and result.quote and calendar:
                session = calendar.session_at(result.asked_at)
                old = is_old(result.quote, result.asked_at, session.open if session else None)
                expected += old is not None
                received += old is False
            elif isinstance(result, Unanswered) and result.refusals:
                expected += 1
        return expected, received

    def _calendar(self, member: Member) -> Calendar | None:
        """The member's calendar; quotes do without one that nobody published."""
        try:
            return self.context.reference.calendar(member.calendar)
        except UsageError:
            if self.capability.interval is not None:
                raise
            return None

    def _judge(self, lease: Lease, question: Question, page: Page, asked_at: datetime) -> Result:
        """What the reply says to one question."""
        symbol, interval = question.member.symbol, self.capability.interval
        problem = page.problems.get(symbol)
        if interval is None and problem is None and symbol not in page.quotes:
            problem = BadDataError(f"{lease.source} left {symbol} out of its quotes")
        if problem is not None:
            return Unanswered(question, problem, lease.source, asked_at, lease)
        if interval is None or question.window is None:
            quote = page.quotes[symbol]
            wrong = quote_problem(quote)
            if wrong is not None:
                refusal = Refusal(
                    question.member.symbol_id, quote.ts, asked_at, wrong, shown(quote)
                )
                error = BadDataError(f"{lease.source}: {wrong}")
                return Unanswered(
                    question, error, lease.source, asked_at, lease, refusals=(refusal,)
                )
            return Answered(question, lease.source, asked_at, None, quote, None)
        judged = assess(
            question.member.symbol_id,
            self.context.reference.calendar(question.member.calendar),
            interval,
            lease.spec.settle,
            question.window,
            asked_at,
            page.bars.get(symbol, ()),
            ((ts, reason) for name, ts, reason in page.rejects if name == symbol),
            store_partial=self.context.settings.store_partial,
        )
        return Answered(question, lease.source, asked_at, judged, None, None)

    def _land(self, landing: Landing[_Flight, _Landed]) -> list[Result]:
        self._moved = self.context.clock.monotonic()
        flight, landed, error = landing.argument, landing.returned, landing.error
        if landed is not None:
            self._put_first(landed.rest)
            return landed.results
        if isinstance(error, _StaleError):
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

    def _urgent(self, landing: Landing[_Flight, _Landed]) -> bool:
        """What may be asked again is decided at once, and so is what others wait for."""
        landed = landing.returned
        return (
            self._full
            or landed is None
            or bool(landed.rest)
            or any(isinstance(result, Unanswered) for result in landed.results)
        )


def _most_bars(capability: Capability, questions: Sequence[Question]) -> int:
    """Bars in a reply, if the market never closed; a quote is as one."""
    interval = capability.interval
    if interval is None:
        return len(questions)
    return sum(
        1
        if question.window is None
        else ceil((question.window.end - question.window.start) / interval.delta)
        for question in questions
    )
