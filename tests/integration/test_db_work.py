"""Slots, leases and the coordinator's inbox: claimed once, fenced, never lost."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from core.errors import LeaseLostError, StorageError
from core.words import Tier
from db import inbox, leader, slots
from db.errors import DATA_EXCEPTION, sqlstate
from db.inbox import Element
from db.pool import connect
from db.slots import SlotKey
from db.sql import sql
from tests.storage import MINUTE, OPEN, answer, at, bar, put, rows

pytestmark = pytest.mark.integration


def slot(minute, phase=0):
    return SlotKey("bars_1m", Tier.T0, at(minute), phase)


def lead(db, holder="a", ttl_s=60.0) -> int:
    """Take the scheduler's lease; the token."""
    token = leader.acquire(db, "scheduler", holder, ttl_s)
    assert token is not None
    return token


class TestLeader:
    """One holder at a time, and a token that only grows."""

    def test_a_lease_is_held_by_one_and_its_token_fences(self, db):
        token = lead(db)
        assert leader.acquire(db, "scheduler", "b", 60) is None
        assert leader.acquire(db, "other", "b", 60) is not None
        assert leader.renew(db, "scheduler", "a", token, 60)
        assert not leader.renew(db, "scheduler", "b", token, 60)
        leader.release(db, "scheduler", "a", token)
        newer = lead(db, "b")
        assert newer > token
        assert not leader.renew(db, "scheduler", "a", token, 60)

    def test_a_lease_that_ran_out_goes_to_exactly_one_of_those_who_want_it(self, db, wait_until):
        old = lead(db, "dead", 0.05)
        found = []

        def somebody() -> bool:
            with ThreadPoolExecutor(5) as pool:
                found[:] = pool.map(
                    lambda n: leader.acquire(db, "scheduler", f"h{n}", 60), range(5)
                )
            return any(found)

        wait_until(somebody)
        [token] = [t for t in found if t is not None]
        assert token > old

    def test_a_lease_that_ran_out_and_nobody_took_goes_on(self, db, wait_until):
        token = lead(db, ttl_s=0.01)
        wait_until(
            lambda: rows(db, "SELECT 1 FROM leader_lease WHERE expires_at < clock_timestamp()")
        )
        assert leader.renew(db, "scheduler", "a", token, 60)

    def test_a_lease_of_before_the_clock_was_put_back_is_free_and_its_holder_fenced(self, db):
        token = lead(db)
        rows(
            db,
            "UPDATE leader_lease SET expires_at = expires_at + interval '2 hours' RETURNING token",
        )
        newer = lead(db, "b")
        assert newer > token
        assert not leader.renew(db, "scheduler", "a", token, 60)
        with pytest.raises(LeaseLostError):
            slots.claim_slots(db, token, [slot(0)])


class TestSlots:
    """A slot is claimed once, under the token in force, and pushed again until it is marked."""

    def test_a_slot_is_claimed_once(self, db):
        token = lead(db)
        assert slots.claim_slots(db, token, [slot(1), slot(0), slot(0, 1)]) == [
            slot(0),
            slot(0, 1),
            slot(1),
        ]
        assert slots.claim_slots(db, token, [slot(1), slot(2)]) == [slot(2)]
        assert slots.claim_slots(db, token, []) == []

    def test_an_old_leader_claims_nothing(self, db):
        token = lead(db)
        leader.release(db, "scheduler", "a", token)
        newer = lead(db, "b")
        with pytest.raises(LeaseLostError, match="another scheduler leads"):
            slots.claim_slots(db, token, [slot(0)])
        assert rows(db, "SELECT count(*) FROM sweep_slots") == [(0,)]
        assert slots.claim_slots(db, newer, [slot(0)]) == [slot(0)]

    def test_a_lease_that_ran_out_claims_nothing(self, db, wait_until):
        token = lead(db, ttl_s=0.01)
        wait_until(
            lambda: rows(db, "SELECT 1 FROM leader_lease WHERE expires_at < clock_timestamp()")
        )
        with pytest.raises(LeaseLostError):
            slots.claim_slots(db, token, [slot(0)])

    def test_what_was_claimed_and_not_pushed_is_found_by_the_next_leader(self, db):
        token = lead(db)
        slots.claim_slots(db, token, [slot(0), slot(1), slot(2)])
        slots.mark_pushed(db, [slot(1)], {slot(1): 12})
        assert slots.unpushed(db, OPEN) == [slot(0), slot(2)]
        assert slots.unpushed(db, at(1)) == [slot(2)]
        assert rows(db, "SELECT jobs FROM sweep_slots WHERE pushed_at IS NOT NULL") == [(12,)]
        assert slots.newest(db) == {("bars_1m", Tier.T0): at(2)}


def element(name, *symbols, **more):
    facts: dict[str, Any] = {"kind": "jobs"} | more
    payload = {"v": 1, "id": name, "symbols": list(symbols)}
    return Element(name, "market:jobs", f"raw {name}".encode(), payload, symbols=symbols, **facts)


def inbox_state(db, name):
    [found] = rows(db, "SELECT state, remaining FROM rlc_inbox WHERE element_id = %s", name)
    return found


class TestInbox:
    """An element is kept until it is answered, whatever is lost in between."""

    def test_an_id_counts_once_for_a_day(self, db):
        assert set(inbox.receive(db, [element("a", "SPY"), element("b", "SPY")])) == {"a", "b"}
        assert inbox.receive(db, [element("a", "BAC")]) == {}
        [first] = [d for d in inbox.dispatchable(db, 10, 60) if d.element_id == "a"]
        with db.transaction() as conn:
            inbox.answered(conn, {first.inbox_id: ["SPY"]})
        assert inbox.receive(db, [element("a", "SPY")]) == {}
        with db.transaction() as conn:
            conn.execute("UPDATE rlc_inbox SET received_at = received_at - interval '25 hours'")
        assert inbox.receive(db, [element("a", "BAC")]) == {"a": first.inbox_id}
        assert inbox_state(db, "a") == ("new", ["BAC"])
        assert inbox.receive(db, [element("b", "BAC")]) == {}, "not answered yet, however old"

    def test_what_nobody_can_execute_is_kept_byte_for_byte_with_the_reason(self, db):
        raw = b'\xff\x00{"v":'
        inbox.receive(db, [Element("x", "market:jobs", raw, None, "jobs", dead="not JSON")])
        assert rows(db, "SELECT raw, payload, state, reason FROM rlc_inbox") == [
            (raw, None, "dead", "not JSON")
        ]
        assert inbox.dispatchable(db, 10, 60) == []

    @pytest.mark.parametrize("odd", [{"element_id": "a\0b"}, {"payload": {"note": "a\0b"}}])
    def test_a_value_that_can_not_be_kept_is_told_from_a_database_that_is_away(self, db, odd):
        facts: dict[str, Any] = {"element_id": "a", "payload": {}} | odd
        with pytest.raises(StorageError) as refused:
            inbox.receive(
                db, [Element(facts["element_id"], "market:jobs", b"", facts["payload"], "jobs")]
            )
        assert (sqlstate(refused.value) or "")[:2] == DATA_EXCEPTION[:2]

    def test_an_element_is_dispatched_again_when_its_lease_runs_out(self, db, wait_until):
        inbox.receive(db, [element("a", "SPY", "BAC", "SPY")])
        [first] = inbox.dispatchable(db, 10, 0.05)
        assert (first.remaining, first.again) == (("SPY", "BAC"), False)
        with db.transaction() as conn:
            inbox.answered(conn, {first.inbox_id: ["SPY"]})
        found = []
        wait_until(lambda: found.extend(inbox.dispatchable(db, 10, 60)) or found)
        assert (found[0].remaining, found[0].again) == (("BAC",), True)
        assert inbox.dispatchable(db, 10, 60) == []

    def test_intakes_share_the_work(self, db):
        inbox.receive(db, [element(f"e{n}", "SPY") for n in range(60)])
        with ThreadPoolExecutor(4) as pool:
            taken = list(pool.map(lambda _: inbox.dispatchable(db, 20, 60), range(4)))
        ids = [d.inbox_id for found in taken for d in found]
        assert len(ids) == len(set(ids)) <= 60

    def test_the_write_that_answers_an_element_ends_it(self, db, symbol):
        [inbox_id] = inbox.receive(db, [element("a", "SPY", "BAC")]).values()
        inbox.dispatchable(db, 10, 60)
        put(db, answer(symbol, [bar(0)]), inbox={inbox_id: ["SPY"]})
        assert inbox_state(db, "a") == ("dispatched", ["BAC"])
        put(db, inbox={inbox_id: ["BAC"]})
        assert inbox_state(db, "a") == ("done", [])

    def test_elements_end_dead_or_expired_once(self, db):
        past = db.clock.now() - MINUTE
        ids = inbox.receive(
            db, [element("a", "SPY"), element("b", "SPY", not_after=past), element("c", "SPY")]
        )
        assert [d.element_id for d in inbox.dispatchable(db, 10, 60)] == ["a", "c"]
        inbox.mark_dead(db, ids["a"], "unknown symbol")
        inbox.mark_dead(db, ids["a"], "another reason")
        assert inbox.expire(db) == 1
        assert inbox.expire(db) == 0
        with db.transaction() as conn:
            inbox.answered(conn, {ids["a"]: ["SPY"], ids["b"]: ["SPY"]})
        assert inbox.counts(db) == {"dead": 1, "expired": 1, "dispatched": 1}
        assert rows(db, "SELECT reason FROM rlc_inbox WHERE state = 'dead'") == [
            ("unknown symbol",)
        ]

    def test_a_crowd_of_elements_expires_a_part_at_a_time(self, db, monkeypatch):
        monkeypatch.setattr(inbox, "EXPIRED", 2)
        past = db.clock.now() - MINUTE
        inbox.receive(db, [element(name, "SPY", not_after=past) for name in "abc"])
        assert [inbox.expire(db) for _ in range(3)] == [2, 1, 0]
        assert inbox.counts(db) == {"expired": 3}

    def test_a_deadline_in_the_future_is_kept(self, db):
        deadline = db.clock.now() + timedelta(minutes=5)
        inbox.receive(db, [element("a", "SPY", not_after=deadline)])
        assert inbox.dispatchable(db, 10, 60)[0].not_after == deadline

    def test_an_element_of_before_the_clock_was_put_back_is_dispatched_again(self, db):
        inbox.receive(db, [element("a", "SPY")])
        inbox.dispatchable(db, 10, 60)
        rows(
            db,
            "UPDATE rlc_inbox SET lease_expires = lease_expires + interval '2 hours' RETURNING 1",
        )
        assert [d.again for d in inbox.dispatchable(db, 10, 60)] == [True]

    def test_new_elements_come_before_those_whose_lease_ran_out_first(self, db):
        for name in ("a", "b", "c"):
            inbox.receive(db, [element(name, "SPY")])
            inbox.dispatchable(db, 10, 3600)
        rows(
            db,
            "UPDATE rlc_inbox SET lease_expires = clock_timestamp() - CASE element_id"
            " WHEN 'b' THEN interval '2 s' ELSE interval '1 s' END WHERE element_id <> 'c' RETURNING 1",
        )
        inbox.receive(db, [element("d", "SPY"), element("e", "SPY")])
        found = [[d.element_id for d in inbox.dispatchable(db, 1, 60)] for _ in range(5)]
        assert found == [["d"], ["e"], ["b"], ["a"], []]

    def test_a_look_for_elements_walks_only_those_that_wait(self, db):
        inbox.receive(db, [element(f"e{n}", "SPY") for n in range(2000)])
        inbox.dispatchable(db, 2000, 600)
        # The owner sees the plan with fresh statistics.
        with connect(db.url) as owner:
            owner.execute("ANALYZE rlc_inbox")
            plan = owner.execute(
                "EXPLAIN " + sql("inbox", "dispatchable"), {"limit": 100, "lease_s": 60}
            ).fetchall()
        text = "\n".join(line for (line,) in plan)
        assert "Seq Scan on rlc_inbox" not in text, text
        assert text.count("Index Cond: (lease_expires") + text.count("Index Cond: ((lease") == 2, (
            text
        )

    def test_live_work_that_nobody_ever_answers_ends_after_a_day(self, db):
        inbox.receive(db, [element("a", "SPY"), element("b", "SPY", kind="backfill")])
        rows(db, "UPDATE rlc_inbox SET received_at = received_at - interval '23 hours' RETURNING 1")
        assert inbox.expire(db) == 0
        rows(db, "UPDATE rlc_inbox SET received_at = received_at - interval '2 hours' RETURNING 1")
        assert inbox.expire(db) == 1
        assert rows(db, "SELECT element_id, state FROM rlc_inbox ORDER BY 1") == [
            ("a", "expired"),
            ("b", "new"),
        ], "a backfill ends with its rows"

    def test_what_is_still_wanted_is_known(self, db):
        ids = inbox.receive(db, [element("a", "SPY", "BAC"), element("b", "SPY")])
        inbox.dispatchable(db, 10, 60)
        with db.transaction() as conn:
            inbox.answered(conn, {ids["a"]: ["SPY"], ids["b"]: ["SPY"]})
        assert inbox.hold(db, ids.values(), 60) == {ids["a"]: frozenset({"BAC"})}

    def test_an_element_of_which_a_symbol_was_given_up_ends_with_the_reason(self, db):
        ids = inbox.receive(db, [element("a", "SPY", "BAC"), element("b", "SPY", "BAC")])
        both = [ids["a"], ids["b"]]
        with db.transaction() as conn:
            inbox.answered(conn, {ids["b"]: ["SPY"]})
        inbox.give_up(db, {key: ["SPY"] for key in both}, "no luck")
        assert inbox.counts(db) == {"new": 2}
        with db.transaction() as conn:
            inbox.answered(conn, {key: ["BAC"] for key in both})
        assert rows(db, "SELECT element_id, state, reason FROM rlc_inbox ORDER BY 1") == [
            ("a", "dead", "no luck"),
            ("b", "done", None),
        ], "what was answered before can't be given up"

    def test_an_element_that_is_worked_on_is_not_dispatched_again(self, db):
        ids = inbox.receive(db, [element("a", "SPY"), element("b", "SPY")])
        inbox.dispatchable(db, 10, 0)
        inbox.hold(db, [ids["a"]], 60)
        assert [d.element_id for d in inbox.dispatchable(db, 10, 60)] == ["b"]
