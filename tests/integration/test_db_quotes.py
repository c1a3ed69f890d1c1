"""Quotes: only changes are stored, each time of the market once, late ones in their place."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from core.bars import Quote
from db import cursors, inbox
from db.evidence import Payload
from db.inbox import Element
from db.quotes import write_quotes
from tests.storage import MINUTE, OPEN, at, rows, symbols

pytestmark = pytest.mark.integration


def quote(minute, bid=10.0, **fields):
    return Quote(at(minute), bid=bid, ask=bid + 0.01, **fields)


def stored(db):
    found = rows(db, "SELECT ts, bid FROM quotes_l1 ORDER BY ts, as_of")
    return [((ts - OPEN) / MINUTE, bid) for ts, bid in found]


def test_the_same_quote_is_stored_once(db, symbol):
    assert write_quotes(db, "finnhub", [(symbol, quote(0))]) == 1
    assert write_quotes(db, "finnhub", [(symbol, quote(0))]) == 0
    assert write_quotes(db, "yfinance", [(symbol, quote(0))]) == 1, "another source says so itself"


def test_a_new_time_or_new_values_are_stored(db, symbol):
    write_quotes(db, "finnhub", [(symbol, quote(0))])
    write_quotes(db, "finnhub", [(symbol, quote(1))])
    write_quotes(db, "finnhub", [(symbol, quote(1, 11.0))])
    assert stored(db) == [(0, 10.0), (1, 10.0), (1, 11.0)]
    assert rows(db, "SELECT ts, bid FROM quotes ORDER BY ts") == [(at(0), 10.0), (at(1), 11.0)]


def test_an_older_quote_goes_to_its_place_once_and_the_head_stays(db, symbol):
    write_quotes(db, "finnhub", [(symbol, quote(5))])
    assert write_quotes(db, "finnhub", [(symbol, quote(3, 9.0))]) == 1
    assert write_quotes(db, "finnhub", [(symbol, quote(3, 9.0))]) == 0
    assert write_quotes(db, "finnhub", [(symbol, quote(3, 9.5))]) == 1
    assert rows(db, "SELECT ts, bid FROM quote_heads") == [(at(5), 10.0)]
    assert write_quotes(db, "finnhub", [(symbol, quote(5))]) == 0


def test_a_batch_may_hold_several_times_of_a_symbol_in_any_order(db):
    ids = symbols(db, "BAC", "SPY")
    batch = [
        (ids["SPY"], quote(2)),
        (ids["BAC"], quote(1)),
        (ids["SPY"], quote(0)),
        (ids["SPY"], quote(2)),
    ]
    assert write_quotes(db, "finnhub", batch) == 3
    assert write_quotes(db, "finnhub", batch) == 0
    assert rows(db, "SELECT symbol_id, ts FROM quote_heads ORDER BY 1") == sorted(
        [(ids["BAC"], at(1)), (ids["SPY"], at(2))]
    )


def test_what_is_unknown_stays_unknown(db, symbol):
    write_quotes(db, "finnhub", [(symbol, Quote(at(0), last=5.0))])
    assert rows(db, "SELECT bid, ask, last, last_size FROM quotes") == [(None, None, 5.0, None)]


def test_every_answer_counts_as_one_even_when_nothing_changed(db, symbol):
    def answered():
        with db.transaction() as conn:
            return cursors.last_answered(conn, None, [symbol])[symbol]

    write_quotes(db, "finnhub", [(symbol, quote(0))])
    first = answered()
    write_quotes(db, "finnhub", [(symbol, quote(0))])
    assert answered() > first


def test_replies_and_elements_commit_with_the_quotes(db, symbol):
    [inbox_id] = inbox.receive(
        db, [Element("a", "market:jobs", b"{}", {"v": 1}, "jobs", ["SPY"])]
    ).values()
    reply = Payload("finnhub", "quote", ["SPY"], at(0), 200, b'{"c":1}')
    write_quotes(db, "finnhub", [(symbol, quote(0))], payloads=[reply], inbox={inbox_id: ["SPY"]})
    assert rows(db, "SELECT state FROM rlc_inbox") == [("done",)]
    assert rows(db, "SELECT endpoint FROM provider_payloads") == [("quote",)]


def test_nothing_is_fine(db):
    assert write_quotes(db, "finnhub", []) == 0


def test_writers_that_race_store_each_quote_once(db):
    ids = sorted(symbols(db, *(f"S{n}" for n in range(20))).values())
    batch = [(symbol_id, quote(minute)) for symbol_id in ids for minute in (0, 1)]

    def write(number):
        shuffled = batch[number:] + batch[:number]
        return write_quotes(db, "finnhub", shuffled)

    with ThreadPoolExecutor(6) as pool:
        added = list(pool.map(write, range(12)))
    assert sum(added) == len(batch) == rows(db, "SELECT count(*) FROM quotes_l1")[0][0]
