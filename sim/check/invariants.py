"""What must hold in any database of gapless, whatever the market did."""

from typing import Any, LiteralString

import psycopg

_DUPLICATE_BARS: LiteralString = """
SELECT count(*) FROM (
  SELECT ROW(status = 0, open, high, low, close, volume, vwap, trade_count) AS now,
         lag(ROW(status = 0, open, high, low, close, volume, vwap, trade_count)) OVER w AS before
  FROM candles_intraday
  WINDOW w AS (PARTITION BY symbol_id, interval_s, ts, provider_id ORDER BY as_of)
) r WHERE now IS NOT DISTINCT FROM before
"""
_DUPLICATE_QUOTES: LiteralString = """
SELECT count(*) FROM (
  SELECT ROW(bid, ask, bid_size, ask_size, last, last_size) AS now,
         lag(ROW(bid, ask, bid_size, ask_size, last, last_size)) OVER w AS before
  FROM quotes_l1 WINDOW w AS (PARTITION BY symbol_id, provider_id, ts ORDER BY as_of)
) r WHERE now IS NOT DISTINCT FROM before
"""
_CURSOR_AHEAD: LiteralString = """
SELECT count(*) FROM ingestion_cursor c, LATERAL unnest(c.covered) AS r WHERE upper(r) > gapless_now()
"""
_AS_OF_AHEAD: LiteralString = "SELECT count(*) FROM candles_intraday WHERE as_of > gapless_now()"
_ASKED_AFTER: LiteralString = "SELECT count(*) FROM candles_intraday WHERE asked_at > as_of"
_CLOSED_TOO_EARLY: LiteralString = """
SELECT count(*) FROM candles_intraday
WHERE status IN (1, 2) AND asked_at < ts + make_interval(secs => interval_s)
"""
_CHECKS: tuple[tuple[str, LiteralString], ...] = (
    ("duplicate_bars", _DUPLICATE_BARS),
    ("duplicate_quotes", _DUPLICATE_QUOTES),
    ("cursor_ahead", _CURSOR_AHEAD),
    ("as_of_in_the_future", _AS_OF_AHEAD),
    ("asked_after_known", _ASKED_AFTER),
    ("closed_before_its_end", _CLOSED_TOO_EARLY),
)


def check(conn: psycopg.Connection[Any]) -> dict[str, Any]:
    """Run every check; ``ok`` when all counts are 0."""
    counts: dict[str, Any] = {}
    for name, query in _CHECKS:
        row = conn.execute(query).fetchone()
        assert row is not None
        counts[name] = row[0]
    examples = [f"{name}: {count}" for name, count in counts.items() if count]
    return {**counts, "ok": not examples, "examples": examples, "simulator": False}
