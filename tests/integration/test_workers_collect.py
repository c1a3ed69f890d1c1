"""Live batches on a real database and a real Redis: who is asked, what is written, what is left."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from core.bars import Bar
from core.errors import (
    BadDataError,
    MalformedPayloadError,
    NotEntitledError,
    ProviderUnavailableError,
    RateLimitedError,
    SymbolNotFoundError,
)
from core.windows import Window
from core.words import Capability, Share, Tier
from db import universe
from db.pool import connect
from providers.base import Call, Limit, Page, SessionNotReadyError
from tests.workers_world import (
    CLOSE,
    MINUTE,
    OPEN,
    Scripted,
    World,
    at,
    bar,
    every_minute,
    metric,
    quote,
    refusing,
)
from workers import writing
from workers.collect import collect
from workers.queues import CollectJob, Kind
from workers.stopping import HandedBackError

pytestmark = pytest.mark.integration

LATER = at("15:30:00")


@pytest.fixture
def world(database_url: str, redis_url: str) -> Iterator[World]:
    """A market half an hour after the open, at real speed."""
    with World(database_url, redis_url, at("15:05:10")) as made:
        yield made


def live(*symbols: str, start: str = "15:03:00", end: str = "15:05:00", **changes) -> CollectJob:
    facts = {
        "kind": Kind.BARS_1M,
        "tier": Tier.T0,
        "slot": at("15:05:00"),
        "symbols": symbols,
        "not_after": LATER,
        "start": at(start),
        "end": at(end),
        **changes,
    }
    return CollectJob(**facts)


def quotes(*symbols: str, **changes) -> CollectJob:
    return live(*symbols, kind=Kind.QUOTES_L1, **changes)


def test_a_batch_is_asked_written_and_the_cursor_advanced(world: World) -> None:
    world.load("A", "B")
    one = Scripted("one", world.clock)
    context = world.context(one)

    counts = collect(context, live("A", "B"))

    assert counts == {"asked": 2, "answered": 2, "failed": 0}
    assert world.stored("A") == {
        at("15:03:00"): (13.0, "one"),
        at("15:04:00"): (14.0, "one"),
    }
    (covered, unsettled) = world.rows(
        "SELECT covered::text, unsettled::text FROM ingestion_cursor JOIN universe USING (symbol_id)"
        " WHERE symbol = 'B'"
    )[0]
    assert "15:03:00+00" in covered
    assert "15:05:00+00" in unsettled, "the last minute had not settled"
    assert metric(context, "jobs_processed_total", type="bars_1m", provider="one") == 1
    assert world.rows("SELECT count(*) FROM provider_payloads") == [(2,)]


def test_the_same_batch_again_adds_nothing(world: World) -> None:
    world.load("A", "B")
    context = world.context(Scripted("one", world.clock))
    collect(context, live("A", "B"))
    before = world.rows("SELECT count(*) FROM candles_intraday")

    collect(context, live("A", "B"))

    assert world.rows("SELECT count(*) FROM candles_intraday") == before == [(4,)]


def test_the_symbols_of_a_failing_source_are_asked_of_the_next(world: World) -> None:
    names = [f"S{n}" for n in range(6)]
    world.load(*names)
    one = Scripted("one", world.clock, refusing(ProviderUnavailableError("refused")))
    two = Scripted("two", world.clock)

    counts = collect(world.context(one, two), live(*names))

    assert counts["answered"] == 6
    assert Counter(two.asked()) == Counter(names)
    assert {source for _, source in world.stored("S5").values()} == {"two"}


def test_a_poison_symbol_does_not_sink_its_batch(world: World) -> None:
    names = [f"S{n}" for n in range(8)]
    world.load(*names)

    def script(call: Call, asked_at: datetime) -> Page:
        if "S3" in call.symbols:
            raise MalformedPayloadError("garbage")
        return every_minute(call, asked_at)

    one = Scripted("one", world.clock, script, batch=50)

    counts = collect(world.context(one), live(*names))

    assert counts == {"asked": 8, "answered": 7, "failed": 1}
    assert len(one.sent[0].symbols) == 8
    assert all(len(call.symbols) == 1 for call in one.sent[1:]), "asked again, alone"
    assert world.stored("S3") == {}
    assert len(world.stored("S4")) == 2
    assert world.rows(
        "SELECT symbol, outcome, code FROM fetch_evidence JOIN universe USING (symbol_id)"
        " WHERE outcome <> 'lacked'"
    ) == [("S3", "refused", "malformed")]


def test_a_symbol_that_one_source_does_not_know_is_asked_of_another(world: World) -> None:
    world.load("A", "B")

    def script(call: Call, asked_at: datetime) -> Page:
        page = every_minute(call, asked_at)
        known = {symbol: bars for symbol, bars in page.bars.items() if symbol != "B"}
        return Page(bars=known, problems={"B": SymbolNotFoundError("B is unknown")})

    one, two = Scripted("one", world.clock, script, batch=10), Scripted("two", world.clock)

    assert collect(world.context(one, two), live("A", "B"))["answered"] == 2
    assert two.asked() == ["B"]


def test_what_nobody_answers_is_evidence_and_left_to_the_gap_pass(world: World) -> None:
    world.load("A")
    down = refusing(ProviderUnavailableError("503 from the front door", status=503))

    counts = collect(
        world.context(Scripted("one", world.clock, down), Scripted("two", world.clock, down)),
        live("A"),
    )

    assert counts == {"asked": 1, "answered": 0, "failed": 1}
    assert world.rows(
        "SELECT name, outcome, code, start_ts, end_ts FROM fetch_evidence JOIN sources USING (provider_id)"
    ) == [("two", "failed", "unavailable", at("15:03:00"), at("15:05:00"))]


def test_backpressure_is_waited_for_and_is_no_failure(world: World) -> None:
    world.load("A")
    answers = iter([RateLimitedError("slow down", retry_after_s=0.2)])

    def script(call: Call, asked_at: datetime) -> Page:
        for error in answers:
            raise error
        return every_minute(call, asked_at)

    one = Scripted("one", world.clock, script, limits_=(Limit("1s", 50, 1.0, "key"),))

    assert collect(world.context(one), live("A"))["answered"] == 1
    assert len(one.sent) == 2


def test_a_source_whose_session_is_being_made_is_waited_for_when_it_is_the_only_one(
    world: World,
) -> None:
    world.load("A")
    answers = iter([SessionNotReadyError("the crumb is being fetched")])

    def script(call: Call, asked_at: datetime) -> Page:
        for error in answers:
            raise error
        return every_minute(call, asked_at)

    one = Scripted("one", world.clock, script)

    assert collect(world.context(one), live("A"))["answered"] == 1
    assert len(one.sent) == 2


def test_a_source_whose_session_is_being_made_yields_to_the_next(world: World) -> None:
    world.load("A")
    one = Scripted("one", world.clock, refusing(SessionNotReadyError("the crumb is being fetched")))
    two = Scripted("two", world.clock)

    assert collect(world.context(one, two), live("A"))["answered"] == 1
    assert (len(one.sent), len(two.sent)) == (1, 1)


def test_what_the_plan_does_not_include_goes_elsewhere(world: World) -> None:
    world.load("A", "B")
    one = Scripted("one", world.clock, refusing(NotEntitledError("no candles on this plan")))
    two = Scripted("two", world.clock)
    context = world.context(one, two)

    assert collect(context, live("A", "B"))["answered"] == 2
    assert context.router.eligible(Capability.BARS_1M) == ["two"]


def test_a_batch_that_comes_too_late_is_dropped_and_counted(world: World) -> None:
    world.load("A")
    one = Scripted("one", world.clock)
    context = world.context(one)

    assert collect(context, quotes("A", not_after=at("15:05:05"))) == {"stale": 1}
    assert one.sent == []
    assert metric(context, "jobs_stale_total", type="quotes_l1", tier="T0") == 1
    assert metric(context, "slots_missed_total", type="quotes_l1", tier="T0") == 1


def test_symbols_that_the_universe_does_not_know_are_left_out(world: World) -> None:
    world.load("A")
    one = Scripted("one", world.clock)

    assert collect(world.context(one), live("A", "GHOST"))["asked"] == 1
    assert one.asked() == ["A"]


def test_nobody_is_asked_for_time_in_which_the_exchange_is_closed(world: World) -> None:
    world.load("A")
    one = Scripted("one", world.clock)

    counts = collect(world.context(one), live("A", start="14:20:00", end="14:25:00"))

    assert counts == {"asked": 0, "answered": 0, "failed": 0}
    assert one.sent == []


def test_the_budget_holds_a_batch_back(world: World) -> None:
    names = [f"S{n}" for n in range(12)]
    world.load(*names)
    one = Scripted("one", world.clock, limits_=(Limit("1s", 5, 1.0, "key"),))
    began = world.clock.monotonic()

    assert collect(world.context(one), live(*names))["answered"] == 12
    assert world.clock.monotonic() - began >= 1.5, "three windows of five calls"


def test_a_source_without_budget_yields_to_the_next(world: World) -> None:
    names = [f"S{n}" for n in range(6)]
    world.load(*names)
    one = Scripted("one", world.clock, limits_=(Limit("60s", 2, 60.0, "key"),))
    two = Scripted("two", world.clock)

    assert collect(world.context(one, two), live(*names))["answered"] == 6
    assert (len(one.sent), len(two.sent)) == (2, 4)


def test_a_long_window_is_asked_in_the_sources_own_pieces(world: World) -> None:
    world.load("A")
    one = Scripted("one", world.clock, span=timedelta(minutes=10))

    collect(world.context(one), live("A", start="14:30:00", end="15:00:00"))

    assert [(c.window.start, c.window.end) for c in one.sent if c.window] == [
        (at("14:30:00"), at("14:40:00")),
        (at("14:40:00"), at("14:50:00")),
        (at("14:50:00"), at("15:00:00")),
    ]
    assert len(world.stored("A")) == 30


def test_what_a_reply_left_out_is_asked_next_and_only_what_it_answered_is_covered(
    world: World,
) -> None:
    world.load("A", "B", "C")
    whole = Window(at("14:30:00"), at("15:00:00"))
    cut = at("14:40:00")

    asked: list[tuple[tuple[str, ...], Window | None]] = []

    def by_pages(call: Call, asked_at: datetime) -> Page:
        asked.append((call.symbols, call.window))
        found = every_minute(call, asked_at).bars
        if call.symbols != ("A", "B", "C"):
            return Page(bars=found)
        # B broke off after ten minutes; C was to come on the next page.
        bars = {"A": found["A"], "B": [b for b in found["B"] if b.ts < cut], "C": ()}
        return Page(bars=bars, rest={"B": Window(cut, whole.end), "C": whole})

    one = Scripted("one", world.clock, script=by_pages, batch=3)

    counts = collect(world.context(one), live("A", "B", "C", start="14:30:00", end="15:00:00"))

    assert counts == {"asked": 3, "answered": 3, "failed": 0}
    assert asked == [
        (("A", "B", "C"), whole),
        (("B",), Window(cut, whole.end)),
        (("C",), whole),
    ]
    assert [len(world.stored(symbol)) for symbol in "ABC"] == [30, 30, 30]
    assert world.rows("SELECT count(*) FROM fetch_evidence") == [(0,)]


def test_a_missing_minute_is_evidence(world: World) -> None:
    world.load("A")

    def script(call: Call, _asked_at: datetime) -> Page:
        return Page(bars={"A": [bar(at("15:01:00"))]})

    collect(world.context(Scripted("one", world.clock, script)), live("A", start="15:01:00"))

    assert world.rows(
        "SELECT settled, lacking::text FROM fetch_evidence WHERE outcome = 'lacked' ORDER BY settled"
    )[-1][0]


def test_an_open_bar_is_not_stored(world: World) -> None:
    world.load("A")

    collect(world.context(Scripted("one", world.clock)), live("A", end="15:06:00"))

    assert max(world.stored("A")) == at("15:04:00")


def test_an_open_bar_is_stored_as_partial_on_demand(world: World) -> None:
    world.load("A")

    collect(
        world.context(Scripted("one", world.clock), store_partial=True), live("A", end="15:06:00")
    )

    assert world.rows(
        "SELECT ts, status FROM candles WHERE symbol = 'A' AND status = 'partial'"
    ) == [(at("15:05:00"), "partial")]


def test_quotes_are_stored_when_they_change(world: World) -> None:
    world.load("A", "B")

    def script(call: Call, _asked_at: datetime) -> Page:
        return Page(quotes={symbol: quote(at("15:05:00"), 10.0) for symbol in call.symbols})

    one = Scripted("one", world.clock, script, batch=50)
    context = world.context(one)

    assert collect(context, quotes("A", "B"))["answered"] == 2
    collect(context, quotes("A", "B"))

    assert len(one.sent) == 2
    assert world.rows("SELECT symbol, last, provider FROM quotes ORDER BY symbol") == [
        ("A", 10.0, "one"),
        ("B", 10.0, "one"),
    ]


def test_a_symbol_left_out_of_the_quotes_is_asked_of_another_source(world: World) -> None:
    world.load("A", "B")

    def half(call: Call, _asked_at: datetime) -> Page:
        return Page(quotes={s: quote(at("15:05:00"), 10.0) for s in call.symbols if s != "B"})

    def whole(call: Call, _asked_at: datetime) -> Page:
        return Page(quotes={s: quote(at("15:05:01"), 10.0) for s in call.symbols})

    one, two = Scripted("one", world.clock, half, batch=50), Scripted("two", world.clock, whole)

    assert collect(world.context(one, two), quotes("A", "B"))["answered"] == 2
    assert two.asked() == ["B"]


def test_daily_bars_are_stored_by_session(world: World) -> None:
    world.load("A")
    world.jump(at("21:31:00"))

    def script(call: Call, _asked_at: datetime) -> Page:
        return Page(bars={"A": [bar(OPEN, 50.0, session=OPEN.date())]})

    job = live("A", kind=Kind.BARS_EOD, start="14:30:00", end="21:00:00", not_after=at("23:00:00"))

    assert collect(world.context(Scripted("one", world.clock, script)), job)["answered"] == 1
    assert world.stored("A", "1d") == {OPEN: (50.0, "one")}
    assert (
        world.rows("SELECT covered FROM ingestion_cursor WHERE interval_s = 86400")[0][0][0].upper
        == CLOSE
    )


def test_a_reread_asks_only_the_source_that_it_is_pinned_to(world: World) -> None:
    world.load("A")
    world.jump(at("21:31:00"))
    one, two = Scripted("one", world.clock), Scripted("two", world.clock)

    def restated(call: Call, asked_at: datetime) -> Page:
        page = every_minute(call, asked_at)
        changed: list[Bar] = [
            bar(b.ts, 99.0) if b.ts == at("15:00:00") else b for b in page.bars["A"]
        ]
        return Page(bars={"A": changed})

    context = world.context(one, two)
    job = live("A", start="14:30:00", end="21:00:00", provider="two", kind=Kind.REREAD)
    job = CollectJob.from_wire({**job.to_wire(), "not_after": "2024-03-05T23:00:00Z"})
    collect(context, job)
    two.script = restated
    collect(context, job)

    assert one.sent == []
    assert len(two.sent) == 2
    assert world.rows(
        "SELECT ts, close, status FROM candles WHERE status <> 'final' AND \"interval\" = '1m'"
    ) == [(at("15:00:00"), 99.0, "revised")]


def test_bars_of_long_windows_are_written_before_they_fill_the_memory(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "MOST_BARS", {Share.LIVE: 60})
    names = ("A", "B", "C", "D", "E", "F")
    world.load(*names)
    context = world.context(Scripted("one", world.clock))

    assert collect(context, live(*names, start="14:30:00", end="15:00:00"))["answered"] == 6

    written = "SELECT count(*) FROM candles_intraday GROUP BY xmin::text"
    counts = [row[0] for row in world.rows(written)]
    assert sum(counts) == 6 * 30
    assert max(counts) < 60 + 30


def test_a_stop_hands_the_batch_back_with_what_was_answered_written(world: World) -> None:
    names = [f"S{n}" for n in range(40)]
    world.load(*names)
    one = Scripted("one", world.clock, limits_=(Limit("60s", 10, 60.0, "key"),))
    context = world.context(one)

    def script(call: Call, asked_at: datetime) -> Page:
        world.stop.request()
        return every_minute(call, asked_at)

    one.script = script

    with pytest.raises(HandedBackError):
        collect(context, live(*names))

    assert world.stop.remaining_s() > 2
    assert world.rows("SELECT count(DISTINCT symbol_id) FROM candles_intraday") == [(10,)]


def test_an_adapter_that_trips_over_a_reply_is_a_failed_source(world: World) -> None:
    world.load("A")

    def script(_call: Call, _asked_at: datetime) -> Page:
        raise KeyError("chart")

    one, two = Scripted("one", world.clock, script), Scripted("two", world.clock)

    assert collect(world.context(one, two), live("A"))["answered"] == 1
    assert {source for _, source in world.stored("A").values()} == {"two"}


def test_a_bar_that_can_not_be_is_quarantined(world: World) -> None:
    world.load("A")

    def script(call: Call, _asked_at: datetime) -> Page:
        rejects = [("A", at("15:03:00"), "low 0.0 is not above 0")]
        return Page(bars={"A": [bar(at("15:04:00"))]}, rejects=rejects)

    collect(world.context(Scripted("one", world.clock, script)), live("A"))

    assert world.rows("SELECT ts, reason FROM quarantine") == [
        (at("15:03:00"), "low 0.0 is not above 0")
    ]


def test_gap_seconds_tell_how_old_bars_were_when_they_got_stored(world: World) -> None:
    world.load("A")
    context = world.context(Scripted("one", world.clock))

    collect(context, live("A"))

    assert metric(context, "gap_seconds_count", interval="1m", tier="T0") == 1
    age = metric(context, "gap_seconds_sum", interval="1m", tier="T0")
    assert age is not None
    assert 10 <= age < 20, "the bar of 15:04 ended at 15:05:00 and was stored after 15:05:10"
    lag = metric(context, "ingestion_lag_seconds", interval="1m")
    assert lag is not None
    assert 10 <= lag < 20


def test_hints_are_followed_where_the_operator_allows_it(world: World) -> None:
    world.load("A")
    one, two = Scripted("one", world.clock), Scripted("two", world.clock)

    collect(world.context(one, two), live("A", provider="two"))

    assert (len(one.sent), len(two.sent)) == (1, 0), "overriding is off by default"
    assert Share.LIVE == "live"


def test_bad_data_of_the_only_source_is_not_asked_for_at_once_again(world: World) -> None:
    world.load("A")
    one = Scripted("one", world.clock, refusing(BadDataError("stale since 14:00")))

    assert collect(world.context(one), live("A"))["failed"] == 1
    assert len(one.sent) == 1
    assert timedelta(minutes=1) == MINUTE


def test_a_symbol_whose_calendar_is_not_published_is_left_out(world: World) -> None:
    world.load("A")
    universe.load(world.db, [("X", Tier.T0, "MARS", "")], "test", replace=False)

    assert collect(world.context(Scripted("one", world.clock)), live("X", "A", "A")) == {
        "asked": 1,
        "answered": 1,
        "failed": 0,
    }


def test_answers_in_hand_survive_a_database_that_drops_its_connections(world: World) -> None:
    world.load("A", "B")

    def script(call: Call, asked_at: datetime) -> Page:
        with connect(world.database_url, application="killer") as conn:
            # The other call's own connection is spared.
            conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name <> 'killer'"
            )
        return every_minute(call, asked_at)

    one = Scripted("one", world.clock, script)

    assert collect(world.context(one), live("A", "B"))["answered"] == 2
    assert len(world.stored("B")) == 2
    assert len(one.sent) == 2, "nobody was asked twice for it"
