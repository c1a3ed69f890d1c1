"""The gap pass on a real database: few rows, none twice, none too early, doubts apart from holes."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from core.bars import Bar
from core.telemetry import Telemetry
from core.windows import Window
from core.words import Capability, Interval
from db import backfill, capabilities
from db.candles import Answer, Batch, write
from db.capabilities import SourceFact
from scheduler.gap_pass import GapPass
from scheduler.leader import Leader
from scheduler.planning import Planning
from tests.integration.scheduler_market import Market, at, settings_of

pytestmark = pytest.mark.integration

MINUTE = timedelta(minutes=1)
OPEN = at("2024-12-02T14:30")


class Gaps:
    """A market whose gaps are judged by hand."""

    def __init__(self, market: Market, *, sweeping: bool = False, **more: object) -> None:
        self.market = market
        self.settings = settings_of(
            market.url, "redis://unused", local_sweep_enabled=sweeping, **more
        )
        self.telemetry = Telemetry()
        self.planning = Planning(market.db, self.settings)
        self.planning.refresh()
        leader = Leader(market.db, "gaps")
        self.gap_pass = GapPass(market.db, leader, self.planning, self.settings, self.telemetry)

    def judge(self, when: datetime, *, full: bool = False) -> int:
        self.market.jump(when)
        self.planning.refresh()
        plan = self.planning.current()
        assert plan is not None
        return self.gap_pass.run(plan, full=full)

    def rows(self) -> list[tuple[str, str, str, bool]]:
        """(symbol, start, end, has to wait) of every row, by window."""
        return [
            (symbol, f"{start:%H:%M}", f"{end:%H:%M}", waits)
            for symbol, start, end, waits in self.market.ask(
                "SELECT u.symbol, j.start_ts, j.end_ts, j.not_before IS NOT NULL"
                " FROM backfill_jobs j JOIN universe u USING (symbol_id)"
                " ORDER BY j.start_ts, j.end_ts, u.symbol"
            )
        ]


@pytest.fixture
def market(database_url: str) -> Iterator[Market]:
    market = Market(database_url, "2024-12-02T14:25")
    market.trade("NYSE")
    yield market
    market.close()


def able(market: Market, *names: str) -> None:
    """These sources could answer; the policies' others could not."""
    everybody = {"finnhub", "alphavantage", "yfinance"}
    capabilities.publish(
        market.db,
        [
            SourceFact(name, capability, name in names, settle_s=60.0)
            for name in sorted(everybody)
            for capability in (Capability.BARS_1M, Capability.BARS_EOD)
        ],
    )


def answer(
    market: Market,
    symbol: str,
    start: str,
    end: str,
    *,
    lacking: tuple[str, ...] = (),
    source: str = "yfinance",
) -> None:
    """A settled answer with a bar for every minute that is not lacking."""
    window = Window(at(f"2024-12-02T{start}"), at(f"2024-12-02T{end}"))
    missing = {at(f"2024-12-02T{minute}") for minute in lacking}
    minutes = [window.start + i * MINUTE for i in range(window.length // MINUTE)]
    asked = market.clock.now()
    write(
        market.db,
        Batch(
            source,
            Interval.M1,
            [
                Answer(
                    market.ids()[symbol],
                    window,
                    asked,
                    [Bar(ts, 1.0, 1.0, 1.0, 1.0, 1.0) for ts in minutes if ts not in missing],
                    asked - MINUTE,
                    [Window(ts, ts + MINUTE) for ts in sorted(missing)],
                )
            ],
        ),
    )


def test_a_minute_is_no_gap_before_settle_cadence_and_grace_have_passed(market):
    market.enrol(T0=(1, "NYSE"))
    market.enrol(T1=(1, "NYSE"))
    able(market, "yfinance")
    gaps = Gaps(market)
    # 14:30 ends at 14:31. T0: 60 + 60 + 30 s later; T1: 60 + 300 + 30 s.
    assert gaps.judge(OPEN + timedelta(seconds=60 + 149)) == 0
    assert gaps.judge(OPEN + timedelta(seconds=60 + 150)) == 1
    assert gaps.rows() == [("T0N0", "14:30", "14:31", False)]
    gaps.judge(OPEN + timedelta(seconds=60 + 390))
    assert ("T1N0", "14:30", "14:31", False) in gaps.rows()


def test_an_outage_grows_one_row_a_symbol(market):
    market.enrol(T0=(3, "NYSE"))
    able(market, "yfinance")
    gaps = Gaps(market)
    found = sum(gaps.judge(OPEN + timedelta(minutes=m)) for m in range(1, 24))
    # 20 minutes ended at 14:50, two and a half before 14:52:30; the pass at 14:53 saw them.
    assert found == 3 * 20
    assert gaps.rows() == [(f"T0N{i}", "14:30", "14:50", False) for i in range(3)]
    assert gaps.telemetry.registry.get_sample_value("gaps_found_total", {"interval": "1m"}) == 60
    assert (
        gaps.telemetry.registry.get_sample_value("backfill_jobs_enqueued_total", {"tier": "T0"})
        == 3
    )


def test_a_row_that_runs_is_left_alone_and_a_new_one_takes_what_follows(market):
    market.enrol(T0=(1, "NYSE"))
    able(market, "yfinance")
    gaps = Gaps(market)
    gaps.judge(OPEN + timedelta(minutes=10))
    (job_id,) = (row[0] for row in market.ask("SELECT job_id FROM backfill_jobs"))
    assert backfill.claim(market.db, [job_id], "worker", 60, 8)
    gaps.judge(OPEN + timedelta(minutes=12))
    assert gaps.rows() == [("T0N0", "14:30", "14:37", False), ("T0N0", "14:37", "14:39", False)]


def test_what_is_answered_and_stored_is_no_gap(market):
    market.enrol(T0=(1, "NYSE"))
    able(market, "yfinance")
    gaps = Gaps(market)
    market.jump(OPEN + timedelta(minutes=12))
    answer(market, "T0N0", "14:30", "14:33")
    answer(market, "T0N0", "14:35", "14:40")
    assert gaps.judge(OPEN + timedelta(minutes=12)) == 2
    assert gaps.rows() == [("T0N0", "14:33", "14:35", False)]


def test_what_the_only_source_lacked_waits_a_quarter_of_an_hour_in_one_row(market):
    market.enrol(T0=(1, "NYSE"))
    able(market, "yfinance")
    gaps = Gaps(market)
    market.jump(OPEN + timedelta(minutes=12))
    answer(market, "T0N0", "14:30", "14:39", lacking=("14:31", "14:34", "14:35"))
    assert gaps.judge(OPEN + timedelta(minutes=12)) == 3
    market.jump(OPEN + timedelta(minutes=14))
    answer(market, "T0N0", "14:39", "14:41", lacking=("14:40",))
    assert gaps.judge(OPEN + timedelta(minutes=14)) == 1
    assert gaps.rows() == [("T0N0", "14:31", "14:41", True)]
    (wait,) = market.ask("SELECT not_before FROM backfill_jobs")
    assert wait[0] - (OPEN + timedelta(minutes=27)) < timedelta(seconds=1)


def test_two_sources_that_lack_a_minute_confirm_it_empty(market):
    market.enrol(T0=(1, "NYSE"))
    able(market, "yfinance", "finnhub")
    gaps = Gaps(market)
    market.jump(OPEN + timedelta(minutes=12))
    answer(market, "T0N0", "14:30", "14:39", lacking=("14:31",))
    assert gaps.judge(OPEN + timedelta(minutes=12)) == 1
    assert gaps.rows() == [("T0N0", "14:31", "14:32", True)]
    answer(market, "T0N0", "14:30", "14:39", lacking=("14:31",), source="finnhub")
    market.ask("UPDATE backfill_jobs SET state = 'done', finished_at = gapless_now() RETURNING 1")
    assert gaps.judge(OPEN + timedelta(minutes=13), full=True) == 1, "14:39 is a hole by now"
    assert market.ask("SELECT basis, to_char(start_ts, 'HH24:MI') FROM confirmed_empty") == [
        ("two_sources", "14:31")
    ]


def test_an_illiquid_symbol_is_confirmed_by_its_only_sources_second_answer(market):
    market.enrol(T0=(1, "NYSE"))
    able(market, "yfinance")
    gaps = Gaps(market)
    for minute in (12, 28):
        market.jump(OPEN + timedelta(minutes=minute))
        answer(market, "T0N0", "14:30", "14:39", lacking=("14:31",))
    gaps.judge(OPEN + timedelta(minutes=29), full=True)
    assert market.ask("SELECT basis FROM confirmed_empty") == [("only_source_twice",)]
    assert all("14:31" not in row for row in gaps.rows())


def test_a_symbol_counts_from_the_session_in_which_it_was_listed(market):
    market.enrol(T0=(1, "NYSE"))
    able(market, "yfinance")
    gaps = Gaps(market)
    market.jump("2024-12-02T15:00")
    market.enrol(T1=(1, "NYSE"))
    gaps.judge(at("2024-12-02T15:30"), full=True)
    assert gaps.rows() == [
        ("T1N0", "14:30", "15:23", False),
        ("T0N0", "14:30", "15:27", False),
    ]


def test_a_hole_of_yesterday_is_found_by_the_full_pass(market):
    market.enrol(T0=(1, "NYSE"))
    able(market, "yfinance")
    gaps = Gaps(market)
    market.jump("2024-12-02T21:10")
    answer(market, "T0N0", "14:30", "16:00")
    answer(market, "T0N0", "16:30", "21:00")
    assert gaps.judge(at("2024-12-03T14:30"), full=True) >= 30
    assert ("T0N0", "16:00", "16:30", False) in gaps.rows()


def test_half_days_and_closed_days_expect_nothing_beyond_their_hours(database_url):
    market = Market(database_url, "2024-11-27T21:30")
    market.trade("NYSE")
    market.enrol(T0=(1, "NYSE"))
    able(market, "yfinance")
    gaps = Gaps(market, backfill_chunk_minutes=6000)
    gaps.judge(at("2024-12-02T14:00"), full=True)
    rows = market.ask("SELECT interval_s, start_ts, end_ts FROM backfill_jobs ORDER BY 1")
    market.close()
    # Thanksgiving is closed; the Friday after ends at 13:00 New York.
    hours = (at("2024-11-29T14:30"), at("2024-11-29T18:00"))
    assert rows == [(60, *hours), (86_400, *hours)]


def test_long_gaps_are_cut_to_chunks(market):
    market.enrol(T0=(1, "NYSE"))
    able(market, "yfinance")
    gaps = Gaps(market, backfill_chunk_minutes=60)
    gaps.judge(at("2024-12-02T17:00"), full=True)
    assert [(start, end) for _, start, end, _ in gaps.rows()] == [
        ("14:30", "15:30"),
        ("15:30", "16:30"),
        ("16:30", "16:57"),
    ]


def test_a_daily_bar_is_no_gap_while_the_sweep_is_still_asking(market):
    market.enrol(T2=(1, "NYSE"))
    able(market, "yfinance")
    gaps = Gaps(market, sweeping=True)
    assert gaps.judge(at("2024-12-02T22:00"), full=True) == 0
    plan = gaps.planning.current()
    assert plan is not None
    (slot,) = plan.daily_of(at("2024-12-02T21:00"))
    market.ask(
        "INSERT INTO sweep_slots (kind, tier, slot_ts, phase, token, claimed_at, pushed_at)"
        " VALUES ('bars_eod', 'T2', %s, %s, 1, gapless_now(), gapless_now()) RETURNING 1",
        slot.ts,
        slot.phase,
    )
    assert gaps.judge(at("2024-12-02T22:04"), full=True) == 0
    assert gaps.judge(at("2024-12-02T22:06"), full=True) == 1
    assert market.ask("SELECT interval_s, start_ts, end_ts FROM backfill_jobs") == [
        (86_400, OPEN, at("2024-12-02T21:00"))
    ]


def test_a_daily_bar_whose_sweep_never_ran_is_a_gap_after_six_hours(market):
    market.enrol(T2=(1, "NYSE"))
    able(market, "yfinance")
    gaps = Gaps(market, sweeping=True)
    assert gaps.judge(at("2024-12-03T02:59"), full=True) == 0
    assert gaps.judge(at("2024-12-03T03:00:01"), full=True) == 1


def test_minutes_of_t2_are_nobodys_gap(market):
    market.enrol(T2=(3, "NYSE"))
    able(market, "yfinance")
    gaps = Gaps(market)
    assert gaps.judge(at("2024-12-02T18:00"), full=True) == 0


def test_what_was_given_up_is_not_found_again_the_same_day(market):
    market.enrol(T0=(1, "NYSE"))
    able(market, "yfinance")
    gaps = Gaps(market)
    gaps.judge(OPEN + timedelta(minutes=10))
    market.ask("UPDATE backfill_jobs SET state = 'failed', finished_at = gapless_now() RETURNING 1")
    assert gaps.judge(OPEN + timedelta(minutes=10, seconds=20), full=True) == 0
    assert len(gaps.rows()) == 1
