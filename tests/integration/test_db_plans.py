"""The hot statements use the key, and what they read does not grow with history."""

from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest

from core.words import Tier
from db.sql import sql
from tests.storage import LONG_AFTER, MINUTE, OPEN, at, rows, span, symbols

pytestmark = pytest.mark.integration

SYMBOLS = 10
DAYS = 5
BARS = 390


@pytest.fixture
def history(db) -> dict[str, int]:
    """Ten symbols, five days of a session each, two sources, a revision of every tenth bar."""
    ids = symbols(db, *(f"S{n:02}" for n in range(SYMBOLS)))
    with db.transaction() as conn:
        conn.execute("INSERT INTO sources (name) VALUES ('yfinance'), ('finnhub')")
        conn.execute(
            """
            INSERT INTO candles_intraday (symbol_id, interval_s, ts, as_of, asked_at, open, high, low, close, volume,
                                          provider_id, status)
            SELECT s, 60, t.ts, t.ts + r * interval '2 minutes', t.ts, 1, 2, 1, 1 + r, 5, p, r
            FROM unnest(%(ids)s::int4[]) s, generate_series(0, %(days)s - 1) d, generate_series(0, 389) m,
                 generate_series(1, 2) p, generate_series(1, 2) r,
                 LATERAL (SELECT %(open)s + d * interval '1 day' + m * interval '1 minute' AS ts) t
            WHERE r = 1 OR m %% 10 = 0
            """,
            {"ids": list(ids.values()), "days": DAYS, "open": OPEN},
        )
        conn.execute(
            "INSERT INTO ingestion_cursor (symbol_id, interval_s, provider_id, covered)"
            " SELECT s, 60, p, tstzmultirange(tstzrange(%(open)s, %(open)s + interval '5 days'))"
            " FROM unnest(%(ids)s::int4[]) s, generate_series(1, 2) p",
            {"ids": list(ids.values()), "open": OPEN},
        )
    return ids


@pytest.fixture
def owner(database_url, history):
    # Only the owner may ANALYZE.
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("SET jit = off")
        conn.execute("ANALYZE")
        yield conn


def plan(conn, statement: str, parameters=None) -> list[dict]:
    """Every node of a statement's plan as it ran."""
    with conn.transaction(force_rollback=True):
        [(found,)] = conn.execute(
            "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) " + statement, parameters
        ).fetchall()
    return list(walk(found[0]["Plan"]))


def walk(node: dict) -> Iterator[dict]:
    yield node
    for child in node.get("Plans", []):
        yield from walk(child)


def scans(nodes: list[dict], table: str) -> list[dict]:
    return [node for node in nodes if node.get("Relation Name") == table]


def read_rows(nodes: list[dict], table: str) -> float:
    """Rows that the scans of a table fetched, filtered ones included."""
    return sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in scans(nodes, table)
    )


def on_the_key(nodes: list[dict], table: str) -> bool:
    found = scans(nodes, table)
    return bool(found) and all(node.get("Index Name") == f"{table}_pkey" for node in found)


ONE_DAY = "ts >= '2026-03-04 14:30Z' AND ts < '2026-03-04 21:00Z'"
STORED_A_DAY = 2 * (BARS + BARS / 10)
"""Rows of a symbol-day: both sources, revisions included."""


@pytest.mark.parametrize("view", ["candles", "candles_all"])
def test_a_view_reads_one_symbols_day_by_the_key_without_sorting_bars(owner, view):
    nodes = plan(
        owner, f"SELECT * FROM {view} WHERE symbol = 'S03' AND interval = '1m' AND {ONE_DAY}"
    )
    assert on_the_key(nodes, "candles_intraday")
    assert read_rows(nodes, "candles_intraday") == STORED_A_DAY
    assert not scans(nodes, "candles_eod"), "the other interval is not even looked at"


@pytest.mark.parametrize("function", ["gapless_best_1m", "gapless_all_1m"])
def test_an_as_of_read_is_one_range_of_the_key_a_symbol(owner, function):
    nodes = plan(
        owner,
        f"SELECT * FROM {function}(ARRAY['S03', 'S07'], '2026-03-04 14:30Z', '2026-03-04 21:00Z', now(), NULL)",
    )
    assert on_the_key(nodes, "candles_intraday")
    assert read_rows(nodes, "candles_intraday") == 2 * STORED_A_DAY


def test_the_newest_bar_of_a_symbol_reads_a_handful_of_rows(owner):
    nodes = plan(
        owner,
        "SELECT n.name, c.ts, c.close FROM gapless_names(NULL, 'infinity') n CROSS JOIN LATERAL ("
        "SELECT v.* FROM gapless_newest_intraday(n.symbol_id, 60, '-infinity', 'infinity', now()) v LIMIT 1) c",
    )
    assert on_the_key(nodes, "candles_intraday")
    assert read_rows(nodes, "candles_intraday") <= 4 * SYMBOLS


def test_a_live_batch_fetches_only_its_own_minutes(owner, history):
    nodes = plan(
        owner,
        sql("candles", "newest_same_window"),
        {
            "ids": list(history.values()),
            "interval_s": 60,
            "start_ts": at(3 * 24 * 60),
            "end_ts": at(3 * 24 * 60 + 2),
            "provider_id": 1,
        },
    )
    assert on_the_key(nodes, "candles_intraday")
    # Two minutes, the first of them revised once; rows of the other source are filtered in the index.
    assert read_rows(nodes, "candles_intraday") == 3 * SYMBOLS


def test_windows_of_their_own_are_fetched_each_by_the_key(owner, history):
    ids = list(history.values())[:5]
    nodes = plan(
        owner,
        sql("candles", "newest_each_window"),
        {
            "ids": ids,
            "starts": [at(n * 24 * 60) for n in range(5)],
            "ends": [at(n * 24 * 60 + 10) for n in range(5)],
            "interval_s": 60,
            "start_ts": at(0),
            "end_ts": at(5 * 24 * 60),
            "provider_id": 1,
        },
    )
    assert on_the_key(nodes, "candles_intraday")
    assert read_rows(nodes, "candles_intraday") == 11 * 5


def test_gaps_look_only_at_bars_in_holes(owner, history):
    ids = list(history.values())
    owner.execute(
        "UPDATE ingestion_cursor SET covered = covered - tstzmultirange(tstzrange(%s, %s)) WHERE symbol_id = %s",
        (at(10), at(20), ids[0]),
    )
    expected = [span(d * 24 * 60, d * 24 * 60 + BARS) for d in range(DAYS)]
    nodes = plan(
        owner,
        sql("gaps", "intraday"),
        {
            "interval_s": 60,
            "step": MINUTE,
            "calendars": ["NYSE"] * DAYS,
            "starts": [w.start for w in expected],
            "ends": [w.end for w in expected],
            "low": OPEN,
            "high": expected[-1].end,
            "tiers": list(Tier),
            "untils": [LONG_AFTER + timedelta(days=DAYS)] * 3,
            "sources": ["yfinance", "finnhub"],
        },
    )
    assert on_the_key(nodes, "candles_intraday")
    assert read_rows(nodes, "candles_intraday") == 2 * 11


def test_locks_and_queues_go_by_their_indexes(owner, db, history):
    with db.transaction() as conn:
        conn.execute(
            "INSERT INTO backfill_jobs (symbol_id, interval_s, start_ts, end_ts, tier, origin, state, created_at)"
            " SELECT 1, 60, now() + n * interval '1 minute', now() + n * interval '2 minutes', 'T0', 'gap',"
            " CASE WHEN n > 4990 THEN 'pending' ELSE 'done' END, now() FROM generate_series(1, 5000) n"
        )
    owner.execute("ANALYZE backfill_jobs")
    due = plan(owner, sql("backfill", "due"), {"tier": "T0", "limit": 5, "ahead": 16})
    assert read_rows(due, "backfill_jobs") < 50, "ended rows are not read"
    assert rows(db, "SELECT count(*) FROM backfill_jobs") == [(5000,)]
