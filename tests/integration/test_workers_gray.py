"""Sources that answer well-formed untruths: refused, put aside, found out, and not mixed in."""

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from core.bars import Bar, Quote
from core.errors import BadDataError, MalformedPayloadError
from core.words import Capability, Tier
from db import quarantine
from providers.base import Call, Page
from tests.servers import WaitUntil
from tests.workers_world import MINUTE, Scripted, World, at, bar, metric, refusing
from workers.collect import collect
from workers.context import Context
from workers.queues import CollectJob, Kind

pytestmark = pytest.mark.integration

NAMES = [f"S{n}" for n in range(40)]


@pytest.fixture
def world(database_url: str, redis_url: str) -> Iterator[World]:
    with World(database_url, redis_url, at("15:20:00")) as made:
        made.load(*NAMES)
        yield made


def flat(call: Call, asked_at: datetime) -> Page:
    """A quiet market: every minute at about its symbol's price."""
    assert call.window is not None
    minutes = int(call.window.length / MINUTE)
    starts = [call.window.start + n * MINUTE for n in range(minutes)]
    bars = [bar(ts, 100.0 + ts.minute / 100) for ts in starts if ts + MINUTE <= asked_at]
    return Page(bars=dict.fromkeys(call.symbols, bars))


def changed(change: Callable[[Bar], Bar | None]) -> Callable[[Call, datetime], Page]:
    def script(call: Call, asked_at: datetime) -> Page:
        page = flat(call, asked_at)
        return Page(
            bars={
                name: [new for one in bars if (new := change(one)) is not None]
                for name, bars in page.bars.items()
            }
        )

    return script


def scaled(factor: float) -> Callable[[Call, datetime], Page]:
    return changed(
        lambda b: replace(
            b,
            open=b.open * factor,
            high=b.high * factor,
            low=b.low * factor,
            close=b.close * factor,
        )
    )


def sweep(
    context: Context, world: World, names: Sequence[str] = NAMES, kind: Kind = Kind.BARS_1M
) -> dict[str, int]:
    """One slot: the last two closed minutes of every symbol."""
    now = world.clock.now()
    end = now.replace(second=0, microsecond=0)
    quotes_only = kind is Kind.QUOTES_L1
    return collect(
        context,
        CollectJob(
            kind=kind,
            tier=Tier.T0,
            slot=end,
            symbols=tuple(names),
            not_after=now + timedelta(minutes=5),
            start=None if quotes_only else end - 3 * MINUTE,
            end=None if quotes_only else end,
        ),
    )


def minute(world: World, to: str) -> None:
    world.jump(at(to))


def state(context: Context, source: str, capability: Capability = Capability.BARS_1M) -> str:
    context.router.status()
    return context.router.breaker(source, capability).current_state


def closes(world: World, source: str) -> set[float]:
    found = world.rows("SELECT DISTINCT close FROM candles_all WHERE provider = %s", source)
    return {close for (close,) in found}


def test_a_source_whose_prices_are_a_tenth_too_high_is_refused_and_its_breaker_opens(
    world: World,
) -> None:
    one, two = Scripted("one", world.clock, flat), Scripted("two", world.clock, flat)
    context = world.context(one, two)
    minute(world, "15:30:30")
    assert sweep(context, world)["answered"] == 40
    one.script = scaled(1.1)
    minute(world, "15:31:30")

    assert sweep(context, world)["answered"] >= 30

    assert state(context, "one") == "open"
    assert context.router.breaker("one", Capability.BARS_1M).pair.view.standing.why.startswith(
        "wrong prices"
    )
    assert max(closes(world, "one")) < 101
    assert closes(world, "two")
    rows = world.rows("SELECT reason FROM quarantine")
    assert rows
    assert metric(context, "quarantined_total", provider="one", code="bad_data") == len(rows)
    payload = world.rows("SELECT payload FROM quarantine LIMIT 1")[0][0]
    assert json.loads(zlib.decompress(payload))["close"] == pytest.approx(110, rel=0.01)
    with world.db.transaction() as conn:
        shown = quarantine.recent(conn, timedelta(hours=1))
    assert shown["one"].count == len(rows)


def test_a_move_that_the_other_source_confirms_is_stored_and_costs_one_call(world: World) -> None:
    one, two = Scripted("one", world.clock, flat), Scripted("two", world.clock, flat)
    context = world.context(one, two)
    minute(world, "15:30:30")
    sweep(context, world, NAMES[:1])
    one.script = two.script = scaled(1.2)
    minute(world, "15:31:30")

    assert sweep(context, world, NAMES[:1])["answered"] == 1

    assert len(two.sent) == 1
    assert max(closes(world, "one")) > 110
    assert world.rows("SELECT count(*) FROM candles_all WHERE provider = 'two'") == [(0,)]
    assert world.rows("SELECT count(*) FROM quarantine") == [(0,)]
    assert state(context, "one") == "closed"


def test_one_bad_print_is_put_aside_and_the_source_stays(world: World) -> None:
    one, two = Scripted("one", world.clock, flat), Scripted("two", world.clock, flat)
    context = world.context(one, two)
    minute(world, "15:30:30")
    sweep(context, world)

    def script(call: Call, asked_at: datetime) -> Page:
        return scaled(1.5 if call.symbols == ("S7",) else 1.0)(call, asked_at)

    one.script = script
    minute(world, "15:31:30")

    assert sweep(context, world)["answered"] == 40

    assert state(context, "one") == "closed"
    ids = world.rows("SELECT count(DISTINCT symbol_id) FROM quarantine")
    assert ids == [(1,)]
    assert world.stored("S7")[at("15:30:00")] == (pytest.approx(100.3), "two")


def test_without_a_second_source_prices_that_all_move_at_once_are_not_believed(
    world: World,
) -> None:
    one = Scripted("one", world.clock, flat)
    context = world.context(one)
    minute(world, "15:30:30")
    sweep(context, world)
    one.script = scaled(1.1)
    minute(world, "15:31:30")

    sweep(context, world)

    assert state(context, "one") == "open"
    wrong = world.rows("SELECT count(*) FROM candles_all WHERE close > 105")[0][0]
    assert wrong <= 3 * 10


def test_sources_of_another_adjustment_are_not_asked(world: World) -> None:
    one, two = Scripted("one", world.clock, flat), Scripted("two", world.clock, flat)
    specs = type(two).specs

    class Adjusted(Scripted):
        def specs(self):
            return {c: replace(s, adjustment="split") for c, s in specs(self).items()}

    other = Adjusted("two", world.clock, flat)
    context = world.context(one, other)
    minute(world, "15:30:30")
    sweep(context, world, NAMES[:1])
    one.script = scaled(1.2)
    minute(world, "15:31:30")

    sweep(context, world, NAMES[:1])

    assert other.sent == []


def test_a_source_that_drops_a_third_of_its_bars_is_found_out_by_another(world: World) -> None:
    one, two = Scripted("one", world.clock, flat), Scripted("two", world.clock, flat)
    context = world.context(one, two)
    for turn in range(25, 32):
        minute(world, f"15:{turn}:30")
        sweep(context, world)
    draws = iter(range(10**6))
    one.script = changed(lambda b: None if next(draws) % 3 == 0 else b)
    for turn in range(32, 42):
        minute(world, f"15:{turn}:30")
        sweep(context, world)
        if state(context, "one") == "open":
            break

    assert state(context, "one") == "open"
    why = context.router.breaker("one", Capability.BARS_1M).pair.view.standing.why
    assert why.startswith("incomplete: two has")


def test_minutes_that_nobody_has_are_no_source_s_fault(world: World) -> None:
    one, two = Scripted("one", world.clock, flat), Scripted("two", world.clock, flat)
    context = world.context(one, two)
    for turn in (30, 31):
        minute(world, f"15:{turn}:30")
        sweep(context, world)
    one.script = two.script = changed(lambda b: None if b.ts.minute % 2 else b)
    for turn in range(32, 37):
        minute(world, f"15:{turn}:30")
        sweep(context, world)

    assert state(context, "one") == "closed"
    assert len(two.sent) < 0.1 * len(one.sent)


def quotes(age_s: float = 0.0, factor: float = 1.0) -> Callable[[Call, datetime], Page]:
    def script(call: Call, asked_at: datetime) -> Page:
        ts = (asked_at - timedelta(seconds=age_s)).replace(microsecond=0)
        price = 100.0 * factor
        return Page(
            quotes={
                name: Quote(ts, price - 0.01, price + 0.01, last=price) for name in call.symbols
            }
        )

    return script


@pytest.mark.parametrize("lie", [quotes(age_s=900), quotes(factor=1.1)], ids=["stale", "wrong"])
def test_quotes_that_are_old_or_wrong_open_the_breaker(
    world: World, lie: Callable[[Call, datetime], Page]
) -> None:
    one, two = Scripted("one", world.clock, quotes()), Scripted("two", world.clock, quotes())
    context = world.context(one, two)
    for turn in (31, 32):
        minute(world, f"15:{turn}:30")
        sweep(context, world, kind=Kind.QUOTES_L1)
    one.script = lie
    for turn in range(33, 41):
        minute(world, f"15:{turn}:30")
        sweep(context, world, kind=Kind.QUOTES_L1)
        if state(context, "one", Capability.QUOTES_L1) == "open":
            break

    assert state(context, "one", Capability.QUOTES_L1) == "open"
    assert two.sent


def test_crossed_quotes_are_put_aside_with_their_numbers(world: World) -> None:
    def crossed(call: Call, asked_at: datetime) -> Page:
        return Page(quotes={call.symbols[0]: Quote(asked_at, bid=101.0, ask=100.0)})

    context = world.context(Scripted("one", world.clock, crossed))
    sweep(context, world, NAMES[:1], Kind.QUOTES_L1)

    reason, interval_s, payload = world.rows("SELECT reason, interval_s, payload FROM quarantine")[
        0
    ]
    assert reason == "bid 101.0 is above ask 100.0"
    assert interval_s == 0
    assert json.loads(zlib.decompress(payload))["bid"] == 101.0


@pytest.mark.parametrize("error", [MalformedPayloadError("no JSON"), BadDataError("cut off")])
def test_a_reply_that_is_no_answer_is_put_aside_with_its_bytes_though_another_answers(
    world: World, error: Exception
) -> None:
    class Broken(Scripted):
        def parse(self, call, raw, sessions):
            raise error

    one, two = Broken("one", world.clock, flat), Scripted("two", world.clock, flat)
    context = world.context(one, two)

    assert sweep(context, world, NAMES[:1])["answered"] == 1

    reason, payload = world.rows("SELECT reason, payload FROM quarantine")[0]
    assert str(error) in reason
    assert zlib.decompress(payload) == b"reply 0 of one"


def test_a_source_that_came_back_is_not_believed_until_it_tells_the_truth(
    world: World, wait_until: WaitUntil
) -> None:
    one, two = Scripted("one", world.clock, flat), Scripted("two", world.clock, flat)
    context = world.context(one, two)
    minute(world, "15:30:30")
    sweep(context, world)
    one.script = scaled(1.1)
    minute(world, "15:31:30")
    sweep(context, world)
    assert state(context, "one") == "open"
    opened = context.router.breaker("one", Capability.BARS_1M).pair.view.standing.version

    pair = context.router.breaker("one", Capability.BARS_1M).pair

    def asking(until: Callable[[], bool]) -> Callable[[], bool]:
        def ask() -> bool:
            sweep(context, world, NAMES[:3])
            return until()

        return ask

    wait_until(asking(lambda: pair.view.standing.version > opened), seconds=8)
    assert pair.view.standing.state.value == "open", "its probe was refuted"
    one.script = flat
    wait_until(asking(lambda: pair.view.standing.share > 0), seconds=12)
    assert max(closes(world, "one")) < 101


def test_failures_of_the_second_source_are_no_news_of_the_first(world: World) -> None:
    one = Scripted("one", world.clock, flat)
    two = Scripted("two", world.clock, refusing(BadDataError("down")))
    context = world.context(one, two)
    minute(world, "15:30:30")
    sweep(context, world, NAMES[:1])
    one.script = scaled(1.2)
    minute(world, "15:31:30")

    assert sweep(context, world, NAMES[:1])["answered"] == 1
    assert two.sent
    assert state(context, "one") == "closed"
