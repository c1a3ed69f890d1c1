"""Cursors against data: a window that counts as covered has its bars, or somebody's word that they lack."""

from collections import defaultdict
from typing import Any, LiteralString

import psycopg

from sim.check.stored import Stored
from sim.check.truth import TrueBar
from sim.check.words import utc

_MINUTE = 60
_COVERED: LiteralString = """
SELECT n.name, s.name, EXTRACT(EPOCH FROM lower(r))::bigint, EXTRACT(EPOCH FROM upper(r))::bigint
FROM ingestion_cursor c
JOIN symbol_names n USING (symbol_id) JOIN sources s USING (provider_id), LATERAL unnest(c.covered) AS r
WHERE c.interval_s = 60
"""
_LACKING: LiteralString = """
SELECT n.name, s.name, EXTRACT(EPOCH FROM lower(r))::bigint, EXTRACT(EPOCH FROM upper(r))::bigint
FROM fetch_evidence e
JOIN symbol_names n USING (symbol_id) JOIN sources s USING (provider_id), LATERAL unnest(e.lacking) AS r
WHERE e.interval_s = 60 AND e.settled
"""
_REFUSED: LiteralString = """
SELECT n.name, s.name, EXTRACT(EPOCH FROM q.ts)::bigint, EXTRACT(EPOCH FROM q.ts)::bigint + 60
FROM quarantine q JOIN symbol_names n USING (symbol_id) JOIN sources s USING (provider_id)
WHERE q.interval_s = 60
"""
_Series = tuple[str, str]
"""Symbol, provider."""


def ahead_of_data(
    conn: psycopg.Connection[Any], stored: Stored, truth: dict[tuple[str, int], TrueBar]
) -> list[str]:
    """Minutes that traded, count as covered by a source, and are neither stored of it nor lacked by it."""
    excused: dict[_Series, set[int]] = defaultdict(set)
    for query in (_LACKING, _REFUSED):
        for symbol, provider, start, end in conn.execute(query):
            excused[symbol, provider].update(_minutes(start, end))
    found: list[str] = []
    for symbol, provider, start, end in conn.execute(_COVERED):
        for ts in _minutes(start, end):
            bar = truth.get((symbol, ts))
            if bar is None or not bar.versions or ts in excused[symbol, provider]:
                continue
            rows = stored.bars.get(("1m", symbol, ts), ())
            if not any(row.provider == provider for row in rows):
                found.append(f"cursor_ahead: {provider} covers {symbol} {utc(ts)} without its bar")
    return found


def _minutes(start: int, end: int) -> range:
    """Starts of the minutes that touch ``[start, end)``."""
    return range(start // _MINUTE * _MINUTE, end, _MINUTE)
