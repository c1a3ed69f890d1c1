"""What the database says of a bar that is missing: who was asked for it, and what became of it."""

from datetime import UTC, datetime
from typing import Any, LiteralString

import psycopg

_QUERIES: tuple[tuple[str, LiteralString], ...] = (
    (
        "covered by",
        """SELECT s.name, r, c.last_asked_at, c.last_answered_at
           FROM ingestion_cursor c JOIN symbol_names n USING (symbol_id) JOIN sources s USING (provider_id),
           LATERAL unnest(c.covered) AS r
           WHERE n.name = %(symbol)s AND c.interval_s = 60 AND r @> %(ts)s""",
    ),
    (
        "evidence",
        """SELECT s.name, e.start_ts, e.end_ts, e.asked_at, e.as_of, e.outcome, e.settled, e.lacking, e.code
           FROM fetch_evidence e JOIN symbol_names n USING (symbol_id) JOIN sources s USING (provider_id)
           WHERE n.name = %(symbol)s AND e.interval_s = 60 AND e.start_ts <= %(ts)s AND e.end_ts > %(ts)s
           ORDER BY e.as_of""",
    ),
    (
        "backfill row",
        """SELECT j.job_id, j.start_ts, j.end_ts, j.tier, j.origin, j.state, j.attempts, j.reason, j.answered_by,
                  j.created_at, j.finished_at
           FROM backfill_jobs j JOIN symbol_names n USING (symbol_id)
           WHERE n.name = %(symbol)s AND j.interval_s = 60 AND j.start_ts <= %(ts)s AND j.end_ts > %(ts)s
           ORDER BY j.job_id""",
    ),
    (
        "stored",
        """SELECT s.name, c.status, c.as_of, c.asked_at
           FROM candles_intraday c JOIN symbol_names n USING (symbol_id) JOIN sources s USING (provider_id)
           WHERE n.name = %(symbol)s AND c.interval_s = 60 AND c.ts = %(ts)s ORDER BY c.as_of""",
    ),
)


def trace(conn: psycopg.Connection[Any], symbol: str, ts: datetime) -> list[str]:
    """Lines for people about the minute that starts at ``ts``."""
    lines = [f"trace of {symbol} {ts:%H:%M}:"]
    for name, query in _QUERIES:
        rows = conn.execute(query, {"symbol": symbol, "ts": ts})
        lines += [f"  {name} " + " ".join(_shown(value) for value in row) for row in rows]
    return lines


def trace_examples(conn: psycopg.Connection[Any], examples: list[str]) -> list[str]:
    """Trace the first missing bars among the checker's examples, ``missing: SYMBOL 1m ISO: words``."""
    found: list[str] = []
    named = [words.split()[1:4] for words in examples if words.startswith("missing: ")]
    for symbol, interval, instant in named[:2]:
        if interval == "1m":
            found += trace(conn, symbol, datetime.fromisoformat(instant.rstrip(":")))
    return found


def _shown(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%H:%M:%S}"
    return str(value)
