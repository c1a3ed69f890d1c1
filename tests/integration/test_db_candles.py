"""The write path of bars keeps every revision once, by the rules, whatever comes twice or late."""

import zlib
from datetime import date, timedelta
from typing import Any

import pytest

from core.errors import UsageError
from core.windows import Window
from core.words import Interval
from db.candles import Failure, Payload, Refusal
from tests.storage import (
    LONG_AFTER,
    MINUTE,
    OPEN,
    answer,
    at,
    bar,
    daily,
    put,
    revisions,
    rows,
    span,
    symbols,
)

pytestmark = pytest.mark.integration

PARTIAL, FINAL, REVISED, WITHDRAWN = 0, 1, 2, 3


def test_the_first_closed_version_is_final(db, symbol):
    result = put(db, answer(symbol, [bar(0), bar(1)]))
    assert (result.final, result.unchanged) == (2, 0)
    assert revisions(db, symbol) == [(0, FINAL, 10.0, 100.0), (1, FINAL, 10.0, 100.0)]


def test_an_identical_bar_adds_nothing(db, symbol):
    put(db, answer(symbol, [bar(0), bar(1)]))
    again = put(db, answer(symbol, [bar(0), bar(1)], asked=LONG_AFTER + MINUTE))
    assert (again.final, again.revised, again.unchanged) == (0, 0, 2)
    assert len(revisions(db, symbol)) == 2


def test_a_different_bar_is_revised_with_its_reason_and_a_later_as_of(db, symbol):
    first = put(db, answer(symbol, [bar(0), bar(1)]))
    second = put(
        db, answer(symbol, [bar(0), bar(1, 11.0)], asked=LONG_AFTER + MINUTE), reason="late trades"
    )
    assert second.revised == 1
    assert second.as_of > first.as_of
    assert revisions(db, symbol)[1:] == [(1, FINAL, 10.0, 100.0), (1, REVISED, 11.0, 100.0)]
    assert rows(db, "SELECT reason FROM candles_intraday ORDER BY as_of, ts") == [
        (None,),
        (None,),
        ("late trades",),
    ]


def test_a_value_that_comes_back_is_a_revision_of_its_own(db, symbol):
    for number, close in enumerate((10.0, 11.0, 10.0)):
        put(db, answer(symbol, [bar(0, close)], asked=LONG_AFTER + number * MINUTE))
    assert [close for _, _, close, _ in revisions(db, symbol)] == [10.0, 11.0, 10.0]


def test_an_unknown_volume_never_replaces_a_known_one(db, symbol):
    put(db, answer(symbol, [bar(0, volume=5.0), bar(1, volume=5.0, trade_count=7)]))
    result = put(
        db,
        answer(symbol, [bar(0, volume=None), bar(1, 12.0, volume=None)], asked=LONG_AFTER + MINUTE),
    )
    assert (result.unchanged, result.revised) == (1, 1)
    newest = rows(
        db, "SELECT close, volume, trade_count FROM candles_intraday ORDER BY as_of DESC LIMIT 1"
    )
    assert newest == [(12.0, 5.0, 7)]


def test_a_volume_that_becomes_known_is_a_revision_and_zero_is_not_unknown(db, symbol):
    put(db, answer(symbol, [bar(0, volume=None)]))
    put(db, answer(symbol, [bar(0, volume=0.0)], asked=LONG_AFTER + MINUTE))
    assert [volume for *_, volume in revisions(db, symbol)] == [None, 0.0]


def test_a_partial_bar_grows_and_ends_as_final_even_when_its_numbers_stay(db, symbol):
    ask: Any = {"window": span(0, 1), "settled": OPEN}
    put(db, answer(symbol, [bar(0, partial=True)], asked=at(0.3), **ask))
    put(db, answer(symbol, [bar(0, partial=True)], asked=at(0.4), **ask))
    put(db, answer(symbol, [bar(0, 11.0, partial=True)], asked=at(0.6), **ask))
    put(db, answer(symbol, [bar(0, 11.0)], asked=at(1.1), **ask))
    assert [row[1:3] for row in revisions(db, symbol)] == [
        (PARTIAL, 10.0),
        (PARTIAL, 11.0),
        (FINAL, 11.0),
    ]


def test_a_partial_bar_never_replaces_a_closed_one(db, symbol):
    put(db, answer(symbol, [bar(0)]))
    result = put(db, answer(symbol, [bar(0, 11.0, partial=True)], asked=LONG_AFTER + MINUTE))
    assert result.unchanged == 1
    assert len(revisions(db, symbol)) == 1


def test_an_answer_that_was_asked_before_the_stored_one_changes_nothing(db, symbol):
    put(db, answer(symbol, [bar(0, 11.0)], asked=LONG_AFTER))
    late = put(db, answer(symbol, [bar(0, 10.0)], asked=LONG_AFTER - MINUTE))
    assert late.unchanged == 1


def test_sources_and_symbols_do_not_touch_each_other(db):
    ids = symbols(db, "SPY", "BAC")
    put(db, answer(ids["SPY"], [bar(0, 10.0)]), answer(ids["BAC"], [bar(0, 20.0)]))
    put(db, answer(ids["SPY"], [bar(0, 10.5)]), source="finnhub")
    assert [row[1:3] for row in revisions(db, ids["SPY"])] == [(FINAL, 10.0), (FINAL, 10.5)]
    assert [row[1:3] for row in revisions(db, ids["BAC"])] == [(FINAL, 20.0)]


def test_two_answers_of_one_symbol_in_a_batch_are_one_version(db, symbol):
    put(
        db,
        answer(symbol, [bar(0, 11.0, volume=None), bar(1)], asked=LONG_AFTER + MINUTE),
        answer(symbol, [bar(0, 10.0, volume=7.0)], asked=LONG_AFTER),
    )
    assert revisions(db, symbol) == [(0, FINAL, 11.0, 7.0), (1, FINAL, 10.0, 100.0)]


class TestWithdrawal:
    """A bar that its source no longer has becomes a tombstone, at the second settled word."""

    def lack(self, db, symbol, asked, **more):
        return put(
            db,
            answer(symbol, [bar(0)], window=span(0, 2), asked=asked, lacking=[span(1, 2)], **more),
        )

    def test_two_settled_answers_in_a_row_without_it_withdraw_a_bar(self, db, symbol):
        put(db, answer(symbol, [bar(0), bar(1)]))
        assert self.lack(db, symbol, LONG_AFTER + MINUTE).withdrawn == 0
        result = self.lack(db, symbol, LONG_AFTER + 2 * MINUTE)
        assert (result.withdrawn, result.unchanged) == (1, 1)
        assert revisions(db, symbol)[-1] == (1, WITHDRAWN, None, None)
        assert rows(db, "SELECT ts FROM candles WHERE interval = '1m'") == [(OPEN,)]

    def test_a_tombstone_is_written_once(self, db, symbol):
        put(db, answer(symbol, [bar(0), bar(1)]))
        for number in range(1, 5):
            self.lack(db, symbol, LONG_AFTER + number * MINUTE)
        assert [row[1] for row in revisions(db, symbol)] == [FINAL, FINAL, WITHDRAWN]

    def test_the_same_answer_written_twice_is_one_word_only(self, db, symbol):
        put(db, answer(symbol, [bar(0), bar(1)]))
        self.lack(db, symbol, LONG_AFTER + MINUTE)
        assert self.lack(db, symbol, LONG_AFTER + MINUTE).withdrawn == 0

    def test_an_unsettled_absence_is_no_word(self, db, symbol):
        put(db, answer(symbol, [bar(0), bar(1)], asked=at(2)))
        for number in range(3, 6):
            assert self.lack(db, symbol, at(number), settled=at(1)).withdrawn == 0

    def test_an_answer_with_the_bar_in_between_starts_the_count_again(self, db, symbol):
        put(db, answer(symbol, [bar(0), bar(1)]))
        self.lack(db, symbol, LONG_AFTER + MINUTE)
        put(db, answer(symbol, [bar(0), bar(1)], asked=LONG_AFTER + 2 * MINUTE))
        assert self.lack(db, symbol, LONG_AFTER + 3 * MINUTE).withdrawn == 0
        assert self.lack(db, symbol, LONG_AFTER + 4 * MINUTE).withdrawn == 1

    def test_a_withdrawn_bar_that_comes_back_is_revised(self, db, symbol):
        put(db, answer(symbol, [bar(0), bar(1)]))
        self.lack(db, symbol, LONG_AFTER + MINUTE)
        self.lack(db, symbol, LONG_AFTER + 2 * MINUTE)
        put(db, answer(symbol, [bar(0), bar(1)], asked=LONG_AFTER + 3 * MINUTE))
        assert [row[1] for row in revisions(db, symbol)] == [FINAL, FINAL, WITHDRAWN, REVISED]

    def test_daily_bars_are_withdrawn_as_well(self, db, symbol):
        day = daily(date(2026, 3, 2))
        window = Window(day.ts, day.ts + timedelta(hours=6.5))
        ask: Any = {"window": window, "lacking": [window]}
        put(db, answer(symbol, [day], window=window), interval=Interval.D1)
        put(db, answer(symbol, [], asked=LONG_AFTER + MINUTE, **ask), interval=Interval.D1)
        put(db, answer(symbol, [], asked=LONG_AFTER + 2 * MINUTE, **ask), interval=Interval.D1)
        assert rows(db, "SELECT session, ts, status, close FROM candles_eod ORDER BY as_of") == [
            (date(2026, 3, 2), OPEN, FINAL, 10.0),
            (date(2026, 3, 2), OPEN, WITHDRAWN, None),
        ]


class TestCursor:
    """The cursor says what was asked, answered and settled, and nothing else."""

    def cursor(self, db):
        found = rows(db, "SELECT covered, unsettled, lacked FROM ingestion_cursor")
        return [
            [((r.lower - OPEN) / MINUTE, (r.upper - OPEN) / MINUTE) for r in ranges]
            for ranges in found[0]
        ]

    def test_covered_ends_where_the_answer_was_settled(self, db, symbol):
        put(db, answer(symbol, [bar(0)], window=span(0, 5), asked=at(5), settled=at(4)))
        assert self.cursor(db) == [[(0, 4)], [(4, 5)], []]

    def test_only_whole_bars_are_covered(self, db, symbol):
        late = at(4.9)
        put(db, answer(symbol, [bar(1)], window=span(0.3, 4.5), asked=late, settled=at(3.4)))
        assert self.cursor(db) == [[(1, 3)], [(3, 5)], []]

    def test_a_window_in_which_no_bar_starts_covers_nothing(self, db, symbol):
        put(db, answer(symbol, [], window=span(0.3, 0.6)))
        assert self.cursor(db)[0] == []

    def test_a_later_answer_settles_the_rest(self, db, symbol):
        put(db, answer(symbol, [bar(0)], window=span(0, 5), asked=at(5), settled=at(4)))
        put(db, answer(symbol, [], window=span(3, 6), asked=at(7), settled=at(6)))
        assert self.cursor(db) == [[(0, 6)], [], []]

    def test_nothing_settled_covers_nothing(self, db, symbol):
        put(db, answer(symbol, [], window=span(3, 6), asked=at(6), settled=at(1)))
        assert self.cursor(db) == [[], [(3, 6)], []]

    def test_lacked_follows_the_newest_settled_answer(self, db, symbol):
        ask: Any = {"window": span(0, 4)}
        put(db, answer(symbol, [bar(0), bar(3)], asked=at(9), lacking=[span(1, 3)], **ask))
        assert self.cursor(db)[2] == [(1, 3)]
        put(
            db,
            answer(symbol, [bar(0), bar(2)], asked=at(10), lacking=[span(1, 2)], window=span(0, 3)),
        )
        assert self.cursor(db)[2] == [(1, 2)]
        late = [bar(0), bar(1), bar(2), bar(3)]
        put(db, answer(symbol, late, asked=at(8), **ask))
        assert self.cursor(db)[2] == [(1, 2)], "an older answer does not overrule a newer one"

    def test_a_failure_moves_nothing_but_the_time_of_asking(self, db, symbol):
        failure = Failure(symbol, span(0, 5), at(6), "failed", "timeout", "no answer within 3 s")
        put(db, failures=[failure])
        assert self.cursor(db) == [[], [], []]
        assert rows(db, "SELECT last_asked_at, last_answered_at FROM ingestion_cursor") == [
            (at(6), None)
        ]


def test_evidence_is_kept_of_what_lacked_settled_and_not(db, symbol):
    put(
        db,
        answer(symbol, [], window=span(0, 6), asked=at(6), settled=at(3), lacking=[span(2, 5)]),
    )
    found = rows(
        db, "SELECT settled, lacking, outcome, start_ts, end_ts FROM fetch_evidence ORDER BY 1"
    )
    assert [(s, m[0].lower, m[0].upper, o, a, e) for s, m, o, a, e in found] == [
        (False, at(3), at(5), "lacked", at(0), at(6)),
        (True, at(2), at(3), "lacked", at(0), at(6)),
    ]


def test_a_full_answer_needs_no_evidence(db, symbol):
    put(db, answer(symbol, [bar(0)]))
    assert rows(db, "SELECT count(*) FROM fetch_evidence") == [(0,)]


def test_failures_refusals_and_replies_are_kept(db, symbol):
    put(
        db,
        failures=[Failure(symbol, span(0, 5), at(6), "not_entitled", "not_entitled", "plan")],
        refusals=[Refusal(symbol, at(1), at(6), "low 0 is not above 0", b'{"l":0}')],
        payloads=[Payload("yfinance", "chart", ["SPY"], at(6), 200, b"raw bytes " * 100)],
    )
    assert rows(db, "SELECT outcome, code FROM fetch_evidence ORDER BY 1") == [
        ("not_entitled", "not_entitled"),
        ("refused", "bad_row"),
    ]
    [(reason, payload)] = rows(db, "SELECT reason, payload FROM quarantine")
    assert (reason, zlib.decompress(payload)) == ("low 0 is not above 0", b'{"l":0}')
    [(status, names, body)] = rows(db, "SELECT status, symbols, body FROM provider_payloads")
    assert (status, names, zlib.decompress(body)) == (200, ["SPY"], b"raw bytes " * 100)


def test_a_batch_written_twice_leaves_every_table_as_it_was(db, symbol):
    batch: Any = {
        "failures": [Failure(symbol, span(5, 9), at(9), "failed", "timeout", "slow")],
        "refusals": [Refusal(symbol, at(3), at(9), "low is not above 0", None)],
        "payloads": [Payload("yfinance", "chart", ["SPY"], at(9), 200, b"{}")],
    }
    given = answer(symbol, [bar(0), bar(2)], window=span(0, 4), asked=at(9), lacking=[span(1, 2)])
    tables = ["candles_intraday", "fetch_evidence", "quarantine", "provider_payloads"]
    counted = "SELECT " + ", ".join(f"(SELECT count(*) FROM {table})" for table in tables)
    put(db, given, **batch)
    before = rows(db, counted)
    put(db, given, **batch)
    assert rows(db, counted) == before == [(2, 3, 1, 1)]


def test_bars_outside_of_what_was_asked_are_refused_before_anything_is_written(db, symbol):
    with pytest.raises(UsageError, match="outside of the window"):
        put(db, answer(symbol, [bar(0), bar(7)], window=span(0, 5)))
    with pytest.raises(UsageError, match="not ascending"):
        put(db, answer(symbol, [bar(1), bar(1)], window=span(0, 5)))
    assert revisions(db, symbol) == []


def test_daily_bars_are_keyed_by_session(db, symbol):
    days = [daily(date(2026, 3, 2)), daily(date(2026, 3, 3))]
    window = Window(days[0].ts, days[1].ts + timedelta(hours=6.5))
    put(db, answer(symbol, days, window=window), interval=Interval.D1)
    changed = [daily(date(2026, 3, 2)), daily(date(2026, 3, 3), 12.0)]
    result = put(
        db, answer(symbol, changed, window=window, asked=LONG_AFTER + MINUTE), interval=Interval.D1
    )
    assert (result.revised, result.unchanged) == (1, 1)
    assert rows(db, "SELECT session, status, close FROM candles_eod ORDER BY session, as_of") == [
        (date(2026, 3, 2), FINAL, 10.0),
        (date(2026, 3, 3), FINAL, 10.0),
        (date(2026, 3, 3), REVISED, 12.0),
    ]
    assert rows(db, "SELECT interval, ts, close, status FROM candles ORDER BY ts")[1] == (
        "1d",
        days[1].ts,
        12.0,
        "revised",
    )


def test_answers_with_windows_years_apart_are_compared_each_in_its_own(db):
    ids = symbols(db, "SPY", "BAC")
    old = timedelta(days=4000)
    ancient = [
        type(b)(b.ts - old, b.open, b.high, b.low, b.close, b.volume) for b in (bar(0), bar(1))
    ]
    put(db, answer(ids["SPY"], ancient), answer(ids["BAC"], [bar(0)]))
    again = put(
        db,
        answer(ids["SPY"], ancient, asked=LONG_AFTER + MINUTE),
        answer(ids["BAC"], [bar(0, 11.0)], asked=LONG_AFTER + MINUTE),
    )
    assert (again.unchanged, again.revised) == (2, 1)


def test_an_empty_batch_is_fine(db):
    result = put(db)
    assert result.final == 0
