"""What a batch asks, and how each question ends: answered, or unanswered with the error."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from core.bars import Quote
from core.errors import BadDataError, GaplessError, MalformedPayloadError, ProviderError
from core.log import mask
from core.windows import Window
from db.candles import Payload, Refusal
from db.universe import Member
from providers.base import Page, Raw
from routing.router import Lease
from workers.assess import Judged
from workers.doubts import Doubts
from workers.plausible import shown


@dataclass(frozen=True, slots=True)
class Question:
    """One symbol, over one window for bars."""

    member: Member
    window: Window | None
    """None for quotes."""
    barred: frozenset[str] = frozenset()
    """Sources that are not to be asked (again)."""
    alone: bool = False
    """Not to be put together with other symbols in one call."""
    tries: int = 0
    waits: int = 0
    """How often it was put off."""
    not_before: float = 0.0
    """Monotonic seconds."""
    blame: "Unanswered | None" = None
    """How the last source asked failed."""
    tag: int = 0
    """The asker's own mark; comes back with the result."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A source answered."""

    question: Question
    source: str
    asked_at: datetime
    judged: Judged | None
    """For bars."""
    quote: Quote | None
    """For quotes."""
    payload: Payload | None
    """The raw reply; with the first symbol of a call only."""


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Nobody answered; ``source`` is None where nobody was asked."""

    question: Question
    error: GaplessError
    source: str | None = None
    asked_at: datetime | None = None
    lease: Lease | None = None
    crowd: int = 1
    """Symbols in the call that failed."""
    refusals: tuple[Refusal, ...] = ()
    """What is put aside of a reply that was refused."""


Result = Answered | Unanswered


def all_unanswered(
    lease: Lease,
    questions: Sequence[Question],
    error: ProviderError,
    asked_at: datetime,
    raw: Raw | None,
) -> list[Result]:
    """The reply as a whole is no answer; what came is put aside with the first symbol."""
    refusals: tuple[Refusal, ...] = ()
    if raw is not None and isinstance(error, (MalformedPayloadError, BadDataError)):
        first = questions[0]
        ts = first.window.start if first.window else asked_at
        reason = mask(f"{error.code}: {error}")
        refusals = (Refusal(first.member.symbol_id, ts, asked_at, reason, raw.body),)
    crowd = len(questions)
    return [
        Unanswered(
            question,
            error,
            lease.source,
            asked_at,
            lease,
            crowd,
            refusals if number == 0 else (),
        )
        for number, question in enumerate(questions)
    ]


def doubted(result: Result, doubts: Doubts, lease: Lease) -> Result:
    """The result, or its refusal where it is not believed."""
    reason = doubts.refused.get(result.question.member.symbol)
    if reason is None or not isinstance(result, Answered):
        return result
    symbol_id, at = result.question.member.symbol_id, result.asked_at
    if result.quote is not None:
        refused = [(result.quote.ts, shown(result.quote))]
    else:
        refused = (
            [(bar.ts, shown(bar)) for bar in result.judged.answer.bars] if result.judged else []
        )
    return Unanswered(
        result.question,
        BadDataError(f"{result.source}: {reason}"),
        result.source,
        at,
        lease,
        refusals=tuple(Refusal(symbol_id, ts, at, reason, payload) for ts, payload in refused),
    )


def with_payload(results: list[Result], payload: Payload) -> list[Result]:
    """The raw reply goes with the first symbol that it answered."""
    for place, result in enumerate(results):
        if isinstance(result, Answered):
            results[place] = replace(result, payload=payload)
            break
    return results


def without_rest(
    questions: Sequence[Question], page: Page
) -> tuple[list[Question], list[Question]]:
    """The questions as far as the reply answers them, and what is left of them."""
    answerable: list[Question] = []
    left: list[Question] = []
    for question in questions:
        rest, window = page.rest.get(question.member.symbol), question.window
        if rest is None or window is None:
            answerable.append(question)
            continue
        left.append(replace(question, window=rest))
        if window.start < rest.start:
            answerable.append(replace(question, window=Window(window.start, rest.start)))
    return answerable, left
