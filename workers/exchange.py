"""One exchange with a provider, in a thread of the pool: send, parse, assess, tell the router."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from core.errors import BadDataError, GaplessError, ProviderError, UsageError
from core.sessions import Calendar
from core.words import Capability
from db.candles import Payload, Refusal
from db.universe import Member
from providers.base import Call, Page, Raw
from routing.router import Lease
from workers.assess import assess
from workers.context import Context
from workers.doubts import Item
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


class StaleError(GaplessError):
    """The lease's tokens were forfeited before the call could leave; lease anew."""


@dataclass(slots=True)
class Flight:
    """A call that may leave, and the questions that it puts."""

    lease: Lease
    call: Call
    questions: Sequence[Question]
    bars: int
    """How many may come of it."""
    raw: Raw | None = None
    """The reply, once it is there."""


@dataclass(slots=True)
class Landed:
    """What came of a call."""

    results: list[Result]
    rest: Sequence[Question] = ()
    """What a full page left out, to be asked next."""


@dataclass(slots=True)
class Exchange:
    """How the calls of one batch are made."""

    context: Context
    capability: Capability
    pinned: bool
    """Whether nobody else may be asked, not even for a second opinion."""
    timeout_s: float
    """Longest call, real seconds."""
    before: Callable[[], None] | None = None
    """Called before each request leaves."""

    def make(self, flight: Flight) -> Landed:
        """One call and what comes of it.

        Raises:
            StaleError: it must not leave any more.
            UsageError: nobody published the calendar that its bars are read by.
        """
        lease, call, questions = flight.lease, flight.call, flight.questions
        if not lease.fresh():
            raise StaleError("the budget's tokens were forfeited before the call left")
        clock = self.context.clock
        calendar = self._calendar(questions[0].member)
        if self.before is not None:
            self.before()
        started, asked_at = clock.monotonic(), clock.now()
        try:
            raw = flight.raw = lease.provider.send(call, self._limit_s(lease))
            page = lease.provider.parse(call, raw, calendar)
        except ProviderError as error:
            lease.failed(error, clock.monotonic() - started, endpoint=call.endpoint)
            return Landed(all_unanswered(lease, questions, error, asked_at, flight.raw))
        latency_s = clock.monotonic() - started
        lease.arrived()
        answerable, rest = without_rest(questions, page)
        results = [self._judge(lease, question, page, asked_at) for question in answerable]
        router = None if self.pinned else self.context.router
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
        return Landed(with_payload(results, payload), rest)

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
