"""Backfill rows: taken once, within the fleet's concurrency, never lost, never asked for ever."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from core.words import Interval, Tier
from db import backfill, inbox
from db.backfill import Finish, NewJob
from db.inbox import Element
from db.pool import connect
from tests.storage import OPEN, answer, bar, put, rows, span, symbols

pytestmark = pytest.mark.integration


def job(symbol_id, start=0, end=10, **more):
    facts = {"tier": Tier.T0, "origin": "gap"} | more
    return NewJob(symbol_id, Interval.M1, span(start, end), **facts)


def claim(db, ids, owner="w1", most=8, lease_s=30.0):
    return backfill.claim(db, ids, owner, lease_s, most)


def finish(db, *outcomes):
    with db.transaction() as conn:
        return backfill.finish(conn, *outcomes)


def state(db, job_id):
    [(found, attempts, reason)] = rows(
        db, "SELECT state, attempts, reason FROM backfill_jobs WHERE job_id = %s", job_id
    )
    return found, attempts, reason


def windows(db):
    found = rows(db, "SELECT start_ts, end_ts FROM backfill_jobs ORDER BY job_id")
    return [((a - OPEN).seconds // 60, (b - OPEN).seconds // 60) for a, b in found]


def test_a_window_that_is_open_is_enqueued_once(db, symbol):
    operator = job(symbol, origin="operator")
    [first] = backfill.enqueue(db, [operator])
    assert backfill.enqueue(db, [operator, operator]) == []
    assert len(backfill.enqueue(db, [job(symbol, origin="operator", provider="csv")])) == 1
    claim(db, [first])
    assert backfill.enqueue(db, [operator]) == [], "running is open"
    finish(db, Finish(first, "w1", "done"))
    assert len(backfill.enqueue(db, [operator])) == 1


def test_a_gap_asks_only_for_what_no_open_row_asks(db, symbol):
    backfill.enqueue(db, [job(symbol, 2, 4), job(symbol, 6, 7)])
    backfill.enqueue(db, [job(symbol, 0, 10)])
    assert windows(db) == [(2, 4), (6, 7), (0, 2), (4, 6), (7, 10)]


def test_a_gap_that_was_given_up_or_cancelled_is_left_alone_for_a_day(db, symbol):
    [failed] = backfill.enqueue(db, [job(symbol, 0, 2, max_attempts=1)])
    [cancelled] = backfill.enqueue(db, [job(symbol, 4, 6)])
    claim(db, [failed])
    finish(db, Finish(failed, "w1", "pending", "nobody answers"))
    backfill.cancel(db, [cancelled])
    backfill.enqueue(db, [job(symbol, 0, 6)])
    assert windows(db)[2:] == [(2, 4)]
    with db.transaction() as conn:
        conn.execute("UPDATE backfill_jobs SET finished_at = finished_at - interval '25 hours'")
    backfill.enqueue(db, [job(symbol, 0, 6)])
    assert windows(db)[3:] == [(0, 2), (4, 6)]


def test_a_claim_takes_a_row_once_and_says_what_to_ask(db, symbol):
    ids = backfill.enqueue(db, [job(symbol, provider="csv", not_after=None)])
    [taken] = claim(db, ids)
    assert claim(db, ids, "w2") == []
    assert (taken.symbol, taken.calendar, taken.interval, taken.window) == (
        "SPY",
        "NYSE",
        Interval.M1,
        span(0, 10),
    )
    assert (taken.provider, taken.attempts, taken.answered_by) == ("csv", 1, ())


def test_concurrency_is_the_fleets_and_what_exceeds_it_is_due_again_at_once(db, symbol):
    ids = backfill.enqueue(db, [job(symbol, n, n + 1, origin="operator") for n in range(12)])
    backfill.mark_dispatched(db, ids, 60)
    assert len(claim(db, ids[:4], "w1", most=5)) == 4
    assert [j.job_id for j in claim(db, ids[4:8], "w2", most=5)] == [ids[4]]
    assert backfill.due(db, Tier.T0, 100, 50) == ids[5:8]


def test_claimers_that_race_stay_within_the_concurrency(db, symbol):
    ids = backfill.enqueue(db, [job(symbol, n, n + 1, origin="operator") for n in range(40)])
    with ThreadPoolExecutor(6) as pool:
        claims = list(pool.map(lambda w: claim(db, ids, f"w{w}", most=7), range(6)))
    taken = [j.job_id for found in claims for j in found]
    assert len(taken) == len(set(taken)) == 7


def test_tiers_have_places_of_their_own(db, symbol):
    jobs = [job(symbol, n, n + 1, tier=(Tier.T0, Tier.T1)[n % 2]) for n in range(6)]
    assert len(claim(db, backfill.enqueue(db, jobs), most=2)) == 4


def test_due_gives_twice_the_concurrency_ahead_and_nothing_pushed_lately(db, symbol):
    ids = backfill.enqueue(db, [job(symbol, n, n + 1, origin="operator") for n in range(10)])
    assert backfill.due(db, Tier.T0, 100, 2) == ids[:4]
    backfill.mark_dispatched(db, ids[:4], 60)
    assert backfill.due(db, Tier.T0, 100, 2) == []
    assert backfill.due(db, Tier.T1, 100, 2) == []
    assert backfill.due(db, Tier.T0, 1, 8) == [ids[4]]


def test_a_row_waits_for_its_market_time_and_its_next_try(db, symbol):
    later = db.clock.now() + timedelta(hours=1)
    ids = backfill.enqueue(
        db,
        [job(symbol, 0, 1, not_before=later), job(symbol, 2, 3), job(symbol, 4, 5, not_after=OPEN)],
    )
    claim(db, [ids[1]])
    finish(db, Finish(ids[1], "w1", "pending", "no budget", next_try_in_s=60))
    assert backfill.due(db, Tier.T0, 10, 8) == []
    assert claim(db, ids) == [], "not wanted any more is not worth a call"
    assert backfill.reap(db) == 1
    assert state(db, ids[2])[0] == "failed"
    assert state(db, ids[2])[2].startswith("expired")


def test_attempts_count_and_the_last_one_parks_the_row_with_its_reason(db, symbol):
    [row] = backfill.enqueue(db, [job(symbol, max_attempts=2)])
    claim(db, [row])
    finish(db, Finish(row, "w1", "pending", "timeout"))
    assert state(db, row) == ("pending", 1, "timeout")
    claim(db, [row])
    finish(db, Finish(row, "w1", "pending", "timeout again"))
    assert state(db, row) == ("failed", 2, "timeout again")
    assert backfill.retry(db, None) == 1
    assert state(db, row) == ("pending", 0, None)


def test_an_attempt_in_which_nobody_was_asked_is_given_back(db, symbol):
    [row] = backfill.enqueue(db, [job(symbol, max_attempts=1)])
    for _ in range(3):
        claim(db, [row])
        finish(db, Finish(row, "w1", "pending", "no route", spent=False))
    assert state(db, row) == ("pending", 0, "no route")


def test_who_answered_is_remembered(db, symbol):
    [row] = backfill.enqueue(db, [job(symbol)])
    for source in ("yfinance", "finnhub", "yfinance"):
        claim(db, [row])
        finish(db, Finish(row, "w1", "pending", "lacks", answered_by=(source,)))
    [taken] = claim(db, [row])
    assert taken.answered_by == ("finnhub", "yfinance")


def test_a_worker_that_died_loses_its_rows_and_its_word(db, symbol, wait_until):
    [row] = backfill.enqueue(db, [job(symbol)])
    claim(db, [row], "dead", lease_s=0.05)
    wait_until(lambda: backfill.reap(db) == 1)
    assert state(db, row)[0] == "pending"
    claim(db, [row], "alive")
    assert finish(db, Finish(row, "dead", "done")) == set()
    assert finish(db, Finish(row, "alive", "done")) == {row}


def test_rows_that_expire_at_once_are_reaped_a_few_at_a_time_after_those_of_the_dead(
    db, symbol, monkeypatch
):
    monkeypatch.setattr(backfill, "REAPED", 2)
    past = db.clock.now() - timedelta(minutes=1)
    late = backfill.enqueue(db, [job(symbol, 2 * n, 2 * n + 1, not_after=past) for n in range(3)])
    [dead] = backfill.enqueue(db, [job(symbol, 8, 9)])
    claim(db, [dead], "dead")
    rows(
        db,
        "UPDATE backfill_jobs SET lease_expires = '-infinity' WHERE state = 'running' RETURNING 1",
    )
    assert backfill.due(db, Tier.T0, 10, 8) == [], "nobody wants them, reaped or not"
    assert [backfill.reap(db), state(db, dead)[0]] == [2, "pending"]
    assert [backfill.reap(db), backfill.reap(db)] == [2, 0]
    assert {state(db, row)[0] for row in late} == {"failed"}


def test_a_worker_that_dies_every_time_parks_the_row(db, symbol, wait_until):
    [row] = backfill.enqueue(db, [job(symbol, max_attempts=2)])
    for _ in range(2):
        claim(db, [row], "dead", lease_s=0.01)
        wait_until(lambda: backfill.reap(db) == 1)
    assert state(db, row)[0] == "failed"
    assert "lease of dead ran out" in state(db, row)[2]


def test_a_heartbeat_keeps_a_row_and_tells_what_is_lost(db, symbol, wait_until):
    one, two = backfill.enqueue(db, [job(symbol, 0, 1), job(symbol, 2, 3)])
    claim(db, [one], "w1", lease_s=0.3)
    claim(db, [two], "w2")
    assert backfill.heartbeat(db, [one, two], "w1", 60) == {one}
    wait_until(
        lambda: rows(
            db,
            "SELECT clock_timestamp() > min(lease_expires) - interval '59.5 s' FROM backfill_jobs",
        )
    )
    assert backfill.reap(db) == 0


def test_outcomes_commit_with_their_bars_or_not_at_all(db, symbol):
    one, two = backfill.enqueue(db, [job(symbol, 0, 1), job(symbol, 2, 3)])
    claim(db, [one, two])
    put(db, answer(symbol, [bar(0)]), finished_jobs=[Finish(one, "w1", "done")])
    assert state(db, one)[0] == "done"
    with pytest.raises(Exception, match="not ascending"):
        put(
            db,
            answer(symbol, [bar(3), bar(2)], window=span(2, 4)),
            finished_jobs=[Finish(two, "w1", "done")],
        )
    assert state(db, two)[0] == "running"


def test_operators_hold_back_let_go_and_end_rows(db, symbol):
    ids = backfill.enqueue(db, [job(symbol, n, n + 1, origin="operator") for n in range(3)])
    assert backfill.pause(db, ids[:2]) == 2
    assert backfill.due(db, Tier.T0, 10, 8) == [ids[2]]
    assert backfill.resume(db, [ids[0]]) == 1
    assert backfill.cancel(db, None) == 3
    assert backfill.states(db, ids) == dict.fromkeys(ids, "cancelled")
    assert backfill.retry(db, None) == 0, "all means failed ones"
    assert backfill.retry(db, [ids[0]]) == 1
    listed = backfill.list_jobs(db, state="cancelled")
    assert [(row["symbol"], row["interval"], row["state"]) for row in listed] == [
        ("SPY", "1m", "cancelled")
    ] * 2


def test_a_retry_never_makes_two_open_rows_of_one_window(db, symbol):
    operator = job(symbol, origin="operator")
    for _ in range(2):
        [row] = backfill.enqueue(db, [operator])
        backfill.cancel(db, [row])
    [open_] = backfill.enqueue(db, [operator])
    both = [row for (row,) in rows(db, "SELECT job_id FROM backfill_jobs")]
    assert backfill.retry(db, both) == 0
    backfill.cancel(db, [open_])
    assert backfill.retry(db, both) == 1


def test_depth_counts_what_waits_by_tier(db, symbol):
    backfill.enqueue(db, [job(symbol, 0, 1), job(symbol, 2, 3), job(symbol, 4, 5, tier=Tier.T2)])
    depth = backfill.depth(db)
    assert {tier: count for tier, (count, _) in depth.items()} == {
        Tier.T0: 2,
        Tier.T1: 0,
        Tier.T2: 1,
    }
    assert depth[Tier.T1][1] is None
    assert 0 <= (depth[Tier.T0][1] or 0) < 60


class TestCoordinatorsRows:
    """The element of a backfill is done when the last of its rows is."""

    def element(self, db, *names):
        symbols(db, *names)
        [inbox_id] = inbox.receive(
            db, [Element("e1", "market:backfills:T0", b"{}", {"v": 1}, "backfill", names)]
        ).values()
        inbox.dispatchable(db, 10, 60)
        with db.transaction() as conn:
            found = dict(conn.execute("SELECT symbol, symbol_id FROM universe").fetchall())
        jobs = [
            job(found[name], n, n + 1, origin="coordinator", inbox_id=inbox_id)
            for name in names
            for n in range(2)
        ]
        return inbox_id, backfill.enqueue(db, jobs)

    def inbox_row(self, db):
        [found] = rows(db, "SELECT state, remaining, reason FROM rlc_inbox")
        return found

    def test_all_rows_done_is_done(self, db):
        _, ids = self.element(db, "BAC", "SPY")
        claim(db, ids)
        finish(db, *(Finish(row, "w1", "done") for row in ids[:-1]))
        assert self.inbox_row(db)[0] == "dispatched"
        finish(db, Finish(ids[-1], "w1", "done"))
        assert self.inbox_row(db) == ("done", [], None)

    def test_one_row_failed_is_dead_with_its_reason(self, db):
        _, ids = self.element(db, "SPY")
        claim(db, ids)
        finish(db, Finish(ids[0], "w1", "failed", "beyond look-back"))
        finish(db, Finish(ids[1], "w1", "done"))
        assert self.inbox_row(db) == ("dead", ["SPY"], "failed: beyond look-back")

    def test_an_element_has_rows_of_its_own_beside_others_for_the_same_window(self, db, symbol):
        backfill.enqueue(db, [job(symbol, 0, 1, origin="operator")])
        _, ids = self.element(db, "SPY")
        assert len(ids) == 2

    def test_the_last_two_rows_may_end_at_once(self, db, wait_until):
        """Each writer sees the other's row still running; whoever comes second has to look again."""
        _, [one, two] = self.element(db, "SPY")
        claim(db, [one, two])
        waiting = (
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database()"
        )
        # The owner sees what other sessions wait for.
        with connect(db.url) as owner, ThreadPoolExecutor(1) as pool:
            with db.transaction() as first:
                backfill.finish(first, Finish(one, "w1", "done"))
                later = pool.submit(finish, db, Finish(two, "w1", "done"))
                wait_until(lambda: owner.execute(waiting).fetchall())
            assert later.result(timeout=10) == {two}
        assert self.inbox_row(db) == ("done", [], None)

    def test_a_second_dispatch_makes_no_second_row_of_what_has_ended(self, db):
        inbox_id, ids = self.element(db, "BAC", "SPY")
        claim(db, ids[:1])
        finish(db, Finish(ids[0], "w1", "done"))
        [(symbol_id,)] = rows(db, "SELECT symbol_id FROM backfill_jobs WHERE job_id = %s", ids[0])
        again = job(symbol_id, 0, 1, origin="coordinator", inbox_id=inbox_id)
        assert backfill.enqueue(db, [again]) == []
        assert rows(db, "SELECT count(*) FROM backfill_jobs") == [(len(ids),)]

    def test_an_element_whose_rows_have_ended_unseen_is_settled(self, db):
        inbox_id, _ = self.element(db, "SPY")
        rows(
            db,
            "UPDATE backfill_jobs SET state = 'done', finished_at = gapless_now() RETURNING job_id",
        )
        backfill.settle(db, [inbox_id])
        assert self.inbox_row(db) == ("done", [], None)

    def test_an_element_that_has_ended_otherwise_is_not_settled(self, db):
        inbox_id, _ = self.element(db, "SPY")
        rows(
            db,
            "UPDATE backfill_jobs SET state = 'done', finished_at = gapless_now() RETURNING job_id",
        )
        inbox.mark_dead(db, inbox_id, "unknown symbol")
        backfill.settle(db, [inbox_id])
        assert self.inbox_row(db) == ("dead", ["SPY"], "unknown symbol")

    def test_an_element_whose_rows_an_operator_cancels_is_dead(self, db):
        _, ids = self.element(db, "SPY")
        backfill.cancel(db, ids[:1])
        assert self.inbox_row(db)[0] == "dispatched"
        backfill.cancel(db, ids[1:])
        assert self.inbox_row(db) == ("dead", ["SPY"], "cancelled: cancelled by an operator")


class TestAClockThatWasPutBack:
    """Times of the database's clock that lie further ahead than any is ever set hold nobody up."""

    def put_back(self, db):
        rows(
            db,
            "UPDATE backfill_jobs SET lease_expires = lease_expires + interval '2 hours',"
            " next_try = next_try + interval '2 hours',"
            " dispatched_until = dispatched_until + interval '2 hours' RETURNING job_id",
        )

    def test_a_dead_workers_row_comes_back_at_once(self, db, symbol):
        [row] = backfill.enqueue(db, [job(symbol)])
        claim(db, [row], "dead")
        self.put_back(db)
        assert backfill.reap(db) == 1
        assert state(db, row)[0] == "pending"
        assert finish(db, Finish(row, "dead", "done")) == set(), "and its word is nothing any more"

    def test_a_row_that_paused_is_due_at_once(self, db, symbol):
        [row] = backfill.enqueue(db, [job(symbol)])
        claim(db, [row])
        finish(db, Finish(row, "w1", "pending", "timeout", next_try_in_s=60))
        self.put_back(db)
        assert backfill.due(db, Tier.T0, 10, 8) == []
        backfill.reap(db)
        assert backfill.due(db, Tier.T0, 10, 8) == [row]

    def test_a_row_that_was_pushed_is_pushed_again(self, db, symbol):
        [row] = backfill.enqueue(db, [job(symbol)])
        backfill.mark_dispatched(db, [row], 10)
        assert backfill.due(db, Tier.T0, 10, 8) == []
        self.put_back(db)
        assert backfill.due(db, Tier.T0, 10, 8) == [row]


def test_rows_whose_worker_fell_silent_are_told_from_others(db, symbol, wait_until):
    one, two = backfill.enqueue(db, [job(symbol, 0, 1), job(symbol, 2, 3)])
    claim(db, [one], "dead", lease_s=0.01)
    wait_until(lambda: backfill.reap(db) == 1)
    assert backfill.left_by_the_dead(db, [one, two]) == [one]
    claim(db, [one])
    finish(db, Finish(one, "w1", "pending", "timeout"))
    assert backfill.left_by_the_dead(db, [one, two]) == []
