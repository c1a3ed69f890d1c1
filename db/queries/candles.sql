-- name: lock_and_advance
-- Lock the series of a batch in key order, then read the clock for its as_of, then advance the cursors: what was settled
-- when it was asked is covered, the rest is still open to change; lacked follows the newest answer, an answer older than
-- that adds only to what nobody asked before. Says what matters of the cursors as they were: how many there are, those
-- whose window was asked before, those that lacked a bar in it. Bars are read in a later statement, whose snapshot sees
-- what a writer before us committed. Windows and asks are few and shared: a series names its own by number.
WITH locked AS MATERIALIZED (
    SELECT c.symbol_id, c.last_as_of, c.last_answered_at, w.number, u.lacking,
           c.covered && w.asked OR c.unsettled && w.asked
               OR c.folded_to > lower(w.asked) AND c.covered_before && w.asked AS touched,
           CASE WHEN c.lacked && w.asked THEN c.lacked * tstzmultirange(w.asked) END AS lacked
    FROM unnest(%(ids)b::int4[], %(numbers)b::int4[], %(lacking)b::text[]) AS u(symbol_id, number, lacking)
    CROSS JOIN LATERAL (
        SELECT n.number, tstzrange((%(starts)b::timestamptz[])[n.number], (%(ends)b::timestamptz[])[n.number]) AS asked
        FROM (SELECT coalesce(u.number, 1) AS number) n
    ) w
    JOIN ingestion_cursor c ON c.symbol_id = u.symbol_id
    WHERE c.interval_s = %(interval_s)s
      AND c.provider_id = (SELECT s.provider_id FROM sources s WHERE s.name = %(source)s)
    ORDER BY c.symbol_id
    FOR UPDATE OF c
), stamped AS MATERIALIZED (
    SELECT gapless_stamp(coalesce(max(l.last_as_of), '-infinity')) AS as_of FROM locked l
), advanced AS (
    UPDATE ingestion_cursor c
    SET covered = CASE WHEN isempty(n.settled) THEN c.covered ELSE c.covered + n.settled END,
        unsettled = CASE
            WHEN c.folded_to > n.start_ts THEN (c.unsettled + n.unsettled) - (gapless_covered(c) + n.settled)
            WHEN isempty(n.settled) THEN (c.unsettled + n.unsettled) - c.covered
            ELSE (c.unsettled + n.unsettled) - (c.covered + n.settled) END,
        lacked = CASE
            WHEN isempty(c.lacked) AND isempty(n.lacking) THEN c.lacked
            WHEN n.asked_at >= coalesce(c.last_answered_at, '-infinity') THEN (c.lacked - n.settled) + n.lacking
            ELSE c.lacked + (n.lacking - gapless_covered(c) - c.unsettled) END,
        last_as_of = stamped.as_of,
        last_asked_at = greatest(c.last_asked_at, n.asked_at),
        last_answered_at = greatest(c.last_answered_at, n.asked_at),
        updated_at = stamped.as_of
    FROM (
        SELECT l.symbol_id, w.asked_at, w.start_ts,
               -- An empty range where the whole window is settled, or none of it.
               tstzmultirange(tstzrange(w.start_ts, w.cut)) AS settled,
               tstzmultirange(tstzrange(w.cut, w.end_ts)) AS unsettled,
               coalesce(l.lacking, '{}')::tstzmultirange AS lacking
        FROM locked l
        CROSS JOIN LATERAL (
            SELECT (%(ask_starts)b::timestamptz[])[l.number] AS start_ts, (%(ask_cuts)b::timestamptz[])[l.number] AS cut,
                   (%(ask_ends)b::timestamptz[])[l.number] AS end_ts, (%(asked)b::timestamptz[])[l.number] AS asked_at
        ) w
        WHERE w.asked_at IS NOT NULL
    ) n, stamped
    WHERE c.symbol_id = n.symbol_id AND c.interval_s = %(interval_s)s
      AND c.provider_id = (SELECT s.provider_id FROM sources s WHERE s.name = %(source)s)
)
SELECT count(*), (SELECT s.provider_id FROM sources s WHERE s.name = %(source)s),
       (SELECT stamped.as_of FROM stamped),
       array_agg(l.symbol_id) FILTER (WHERE l.touched),
       array_agg(l.symbol_id) FILTER (WHERE l.lacked IS NOT NULL),
       array_agg(l.lacked) FILTER (WHERE l.lacked IS NOT NULL),
       array_agg(l.last_answered_at) FILTER (WHERE l.lacked IS NOT NULL)
FROM locked l

-- name: ensure_cursors
-- Empty cursors for series that were never asked; committed before the write, so that it only locks.
INSERT INTO ingestion_cursor (symbol_id, interval_s, provider_id)
SELECT u.symbol_id, %(interval_s)s, %(provider_id)s
FROM unnest(%(ids)s::int4[]) AS u(symbol_id)
ORDER BY u.symbol_id
ON CONFLICT (symbol_id, interval_s, provider_id) DO NOTHING

-- name: newest_same_window
-- Newest version of each stored bar of a batch whose answers share one window: one range a symbol.
SELECT DISTINCT ON (c.symbol_id, c.ts) c.symbol_id, c.ts, c.status, c.asked_at,
       c.open, c.high, c.low, c.close, c.volume, c.vwap, c.trade_count
FROM candles_intraday c
WHERE c.symbol_id = ANY (%(ids)b::int4[])
  AND c.interval_s = %(interval_s)b
  AND c.ts >= %(start_ts)b AND c.ts < %(end_ts)b
  AND c.provider_id = %(provider_id)b
ORDER BY c.symbol_id DESC, c.ts DESC, c.provider_id DESC, c.as_of DESC

-- name: newest_each_window
-- Newest version of each stored bar where every answer has a window of its own. The outer bounds exclude chunks.
SELECT v.symbol_id, v.ts, v.status, v.asked_at, v.open, v.high, v.low, v.close, v.volume, v.vwap, v.trade_count
FROM unnest(%(ids)b::int4[], %(starts)b::timestamptz[], %(ends)b::timestamptz[]) AS u(symbol_id, start_ts, end_ts)
CROSS JOIN LATERAL (
    SELECT DISTINCT ON (c.ts) c.*
    FROM candles_intraday c
    WHERE c.symbol_id = u.symbol_id
      AND c.interval_s = %(interval_s)b
      AND c.ts >= u.start_ts AND c.ts < u.end_ts
      AND c.ts >= %(start_ts)b AND c.ts < %(end_ts)b
      AND c.provider_id = %(provider_id)b
    ORDER BY c.ts DESC, c.provider_id DESC, c.as_of DESC
) v

-- name: newest_daily
-- Newest version of each stored daily bar in each answer's window. A session opens within a day of its date, UTC.
SELECT v.symbol_id, v.session, v.status, v.asked_at, v.open, v.high, v.low, v.close, v.volume, v.vwap, v.trade_count,
       v.ts
FROM unnest(%(ids)b::int4[], %(starts)b::timestamptz[], %(ends)b::timestamptz[]) AS u(symbol_id, start_ts, end_ts)
CROSS JOIN LATERAL (
    SELECT DISTINCT ON (c.session) c.*
    FROM candles_eod c
    WHERE c.symbol_id = u.symbol_id
      AND c.session >= (u.start_ts AT TIME ZONE 'UTC')::date - 1
      AND c.session <= (u.end_ts AT TIME ZONE 'UTC')::date + 1
      AND c.provider_id = %(provider_id)b
    ORDER BY c.session DESC, c.provider_id DESC, c.as_of DESC
) v
WHERE v.ts >= u.start_ts AND v.ts < u.end_ts

-- name: copy_intraday
COPY candles_intraday (symbol_id, interval_s, as_of, provider_id, asked_at, status, reason,
                       ts, open, high, low, close, volume, vwap, trade_count)
FROM STDIN (FORMAT BINARY)

-- name: copy_daily
COPY candles_eod (symbol_id, session, as_of, provider_id, asked_at, status, reason,
                  ts, open, high, low, close, volume, vwap, trade_count)
FROM STDIN (FORMAT BINARY)

-- name: note_asked
-- Series that were asked in vain: only when.
UPDATE ingestion_cursor c
SET last_asked_at = greatest(c.last_asked_at, n.asked_at), last_as_of = %(as_of)b, updated_at = %(as_of)b
FROM (
    SELECT u.symbol_id, max(u.asked_at) AS asked_at
    FROM unnest(%(ids)b::int4[], %(asked)b::timestamptz[]) AS u(symbol_id, asked_at)
    GROUP BY u.symbol_id
) n
WHERE c.symbol_id = n.symbol_id AND c.interval_s = %(interval_s)b AND c.provider_id = %(provider_id)b
