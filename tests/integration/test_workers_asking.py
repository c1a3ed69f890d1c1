"""A batch's questions in the shared pool: each asked once, and none for a batch that has ended badly."""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import pytest

from core.windows import Window
from core.words import Capability, Share
from providers.base import Call, Page
from tests.workers_world import OPEN, Scripted, World, bar, window
from workers.asking import Asking
from workers.context import Context
from workers.questions import Answered, Question

pytestmark = pytest.mark.integration


@pytest.fixture
def world(database_url: str, redis_url: str) -> Iterator[World]:
    with World(database_url, redis_url, OPEN + timedelta(minutes=40)) as made:
        yield made


def asking(context: Context, *symbols: str) -> Asking:
    return asking_for(context, window("14:30", "14:32"), symbols)


def asking_for(context: Context, asked: Window, symbols: Sequence[str]) -> Asking:
    made = Asking(
        context, Capability.BARS_1M, Share.LIVE, deadline=context.clock.monotonic() + 30.0
    )
    members = context.reference.resolve(symbols)
    made.add(Question(members[name], asked) for name in symbols)
    return made


def test_batches_that_share_few_places_ask_every_symbol_once(world: World) -> None:
    source = Scripted("one", world.clock, latency_s=0.002)
    context = world.context(source, worker_threads=3)
    names = [f"S{number}" for number in range(120)]
    world.load(*names)
    batches = [asking(context, *names[part::4]) for part in range(4)]
    answered: list[str] = []

    def run(batch: Asking) -> None:
        for results in batch.results():
            answered.extend(r.question.member.symbol for r in results if isinstance(r, Answered))

    threads = [threading.Thread(target=run, args=(batch,)) for batch in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert Counter(answered) == Counter(names)
    assert Counter(source.asked()) == Counter(names)
    context.close()


def test_nothing_more_is_asked_for_a_batch_whose_thread_looks_no_more(
    world: World, wait_until
) -> None:
    source = Scripted("one", world.clock, latency_s=0.05)
    context = world.context(source, worker_threads=2)
    names = [f"S{number}" for number in range(200)]
    world.load(*names)
    abandoned = asking(context, *names).results()
    next(abandoned)
    ended = threading.Event()

    def nothing_flies() -> bool:
        places = [context.calls.reserve() for _ in range(2)]
        for place in places:
            if place:
                context.calls.give_back()
        if all(places):
            ended.set()
        return ended.is_set()

    wait_until(nothing_flies, seconds=20, what="the pool is free again")
    # 200 symbols take two places five seconds.
    assert len(source.sent) < 150
    context.close()


def test_long_windows_wait_at_the_source_rather_than_in_memory(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Windows of 25 minutes: the call that reaches the limit is the third.
    monkeypatch.setattr("workers.asking.MOST_BARS", {Share.LIVE: 60})
    source = Scripted("one", world.clock)
    context = world.context(source, worker_threads=8)
    names = [f"S{number}" for number in range(30)]
    world.load(*names)
    taken: list[str] = []
    for results in asking_for(context, window("14:31", "14:56"), names).results():
        # However long the batch takes to write what it was handed.
        world.clock.sleep(0.02)
        assert len(source.sent) <= len(taken) + 3
        taken += [r.question.member.symbol for r in results if isinstance(r, Answered)]
    assert Counter(taken) == Counter(names)
    context.close()


def test_a_night_in_a_window_counts_for_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 390 bars are expected of a day, 1,440 minutes long: the call that reaches the limit is the third.
    monkeypatch.setattr("workers.asking.MOST_BARS", {Share.LIVE: 1_000})
    source = Scripted("one", world.clock, script=flat_day, latency_s=0.05)
    context = world.context(source, worker_threads=8)
    names = [f"S{number}" for number in range(12)]
    world.load(*names)
    most = 0
    taken = 0
    midnight = OPEN.replace(hour=0, minute=0) - timedelta(days=1)
    day = Window(midnight, midnight + timedelta(days=1))
    for results in asking_for(context, day, names).results():
        most = max(most, len(source.sent) - taken)
        taken += sum(isinstance(result, Answered) for result in results)
    assert (taken, most) == (12, 3)
    context.close()


def flat_day(call: Call, _asked_at: datetime) -> Page:
    """A session at one price."""
    assert call.window is not None
    opens = call.window.start.replace(hour=14, minute=30)
    bars = [bar(opens + timedelta(minutes=n), 10.0) for n in range(390)]
    return Page(bars=dict.fromkeys(call.symbols, bars))
