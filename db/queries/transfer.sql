-- name: names
-- Names with their validity inside a window (NULL: no bound), in the order of an export. A name counts as it is known
-- now: a rename corrects what bars are called.
SELECT n.symbol_id, n.name, nullif(greatest(n.valid_from, coalesce(%(start)s::timestamptz, '-infinity')), '-infinity'),
       nullif(least(n.valid_to, coalesce(%(end)s::timestamptz, 'infinity')), 'infinity')
FROM gapless_names(%(symbols)s::text[], 'infinity') n
WHERE n.valid_to > coalesce(%(start)s::timestamptz, '-infinity')
  AND n.valid_from < coalesce(%(end)s::timestamptz, 'infinity')
ORDER BY n.name COLLATE "C", n.valid_from

-- name: export_intraday
-- Every revision of one symbol: the order is the key's, so nothing is sorted and nothing waits in memory.
SELECT %(symbol)s::text AS symbol, gapless_interval(c.interval_s) AS "interval", c.ts, NULL::date AS session,
       s.name AS provider, s.adjustment, c.as_of, gapless_status(c.status) AS status, c.asked_at,
       c.open, c.high, c.low, c.close, c.volume, c.vwap, c.trade_count, c.reason
FROM candles_intraday c
JOIN sources s ON s.provider_id = c.provider_id
WHERE c.symbol_id = %(symbol_id)s AND c.interval_s = 60
  AND c.ts >= coalesce(%(low)s::timestamptz, '-infinity') AND c.ts < coalesce(%(high)s::timestamptz, 'infinity')
  AND c.as_of <= %(as_of)s::timestamptz
  AND (%(providers)s::text[] IS NULL OR s.name = ANY (%(providers)s::text[]))
ORDER BY c.ts, c.provider_id, c.as_of

-- name: export_daily
SELECT %(symbol)s::text AS symbol, '1d'::text AS "interval", c.ts, c.session,
       s.name AS provider, s.adjustment, c.as_of, gapless_status(c.status) AS status, c.asked_at,
       c.open, c.high, c.low, c.close, c.volume, c.vwap, c.trade_count, c.reason
FROM candles_eod c
JOIN sources s ON s.provider_id = c.provider_id
WHERE c.symbol_id = %(symbol_id)s
  AND c.ts >= coalesce(%(low)s::timestamptz, '-infinity') AND c.ts < coalesce(%(high)s::timestamptz, 'infinity')
  AND c.as_of <= %(as_of)s::timestamptz
  AND (%(providers)s::text[] IS NULL OR s.name = ANY (%(providers)s::text[]))
ORDER BY c.session, c.provider_id, c.as_of

-- name: adjustment
SELECT s.adjustment FROM sources s WHERE s.provider_id = %(provider_id)s

-- name: retention_cut
-- What lies before is gone or may go at any time.
SELECT max(r.before_ts) FROM retention_cuts r WHERE r.kind = 'candles'

-- name: hold_horizon
-- Until it is released, readers' horizon stays below now; the key comes back for the release.
SELECT h.key, pg_advisory_lock_shared(gapless_horizon_class(), h.key)
FROM (
    SELECT (CASE WHEN k.key > 2147483647 THEN k.key - 4294967296 ELSE k.key END)::integer AS key
    FROM (SELECT gapless_horizon_key(gapless_now()) AS key OFFSET 0) k
    OFFSET 0
) h

-- name: release_horizon
SELECT pg_advisory_unlock_shared(gapless_horizon_class(), %(key)s)

-- name: ensure_cursors
-- Committed before the write, so that the write only locks.
INSERT INTO ingestion_cursor (symbol_id, interval_s, provider_id)
SELECT u.symbol_id, %(interval_s)s, %(provider_id)s
FROM unnest(%(ids)s::int4[]) AS u(symbol_id)
ORDER BY u.symbol_id
ON CONFLICT (symbol_id, interval_s, provider_id) DO NOTHING

-- name: lock_cursors
-- In key order, as every writer does. A series that was never asked here has no last_asked_at.
SELECT c.symbol_id, c.last_as_of, c.last_asked_at
FROM ingestion_cursor c
WHERE c.interval_s = %(interval_s)s AND c.provider_id = %(provider_id)s AND c.symbol_id = ANY (%(ids)s::int4[])
ORDER BY c.symbol_id
FOR UPDATE OF c

-- name: stored_intraday
-- Every stored revision in each series' window, oldest first. The outer bounds exclude chunks.
SELECT v.symbol_id, v.ts, v.as_of, v.asked_at, v.status, v.reason,
       v.open, v.high, v.low, v.close, v.volume, v.vwap, v.trade_count, v.ts
FROM unnest(%(ids)s::int4[], %(starts)s::timestamptz[], %(ends)s::timestamptz[]) AS u(symbol_id, start_ts, end_ts)
CROSS JOIN LATERAL (
    SELECT c.*
    FROM candles_intraday c
    WHERE c.symbol_id = u.symbol_id AND c.interval_s = 60
      AND c.ts >= u.start_ts AND c.ts <= u.end_ts
      AND c.ts >= %(low)s::timestamptz AND c.ts <= %(high)s::timestamptz
      AND c.provider_id = %(provider_id)s
    ORDER BY c.ts, c.as_of
) v

-- name: stored_daily
SELECT v.symbol_id, v.session, v.as_of, v.asked_at, v.status, v.reason,
       v.open, v.high, v.low, v.close, v.volume, v.vwap, v.trade_count, v.ts
FROM unnest(%(ids)s::int4[], %(starts)s::date[], %(ends)s::date[]) AS u(symbol_id, start_day, end_day)
CROSS JOIN LATERAL (
    SELECT c.*
    FROM candles_eod c
    WHERE c.symbol_id = u.symbol_id AND c.session >= u.start_day AND c.session <= u.end_day
      AND c.provider_id = %(provider_id)s
    ORDER BY c.session, c.as_of
) v

-- name: copy_intraday
COPY candles_intraday (symbol_id, interval_s, provider_id, as_of, asked_at, status, reason,
                       open, high, low, close, volume, vwap, trade_count, ts)
FROM STDIN (FORMAT BINARY)

-- name: copy_daily
COPY candles_eod (symbol_id, session, provider_id, as_of, asked_at, status, reason,
                  open, high, low, close, volume, vwap, trade_count, ts)
FROM STDIN (FORMAT BINARY)

-- name: touch_cursors
-- Writers look for stored bars only where a cursor was touched, so what is imported is at least unsettled.
UPDATE ingestion_cursor c
SET unsettled = (c.unsettled + n.span) - gapless_covered(c),
    last_as_of = greatest(c.last_as_of, n.last_as_of),
    last_asked_at = greatest(c.last_asked_at, n.last_asked_at),
    updated_at = %(as_of)s
FROM (
    SELECT u.symbol_id, range_agg(tstzrange(u.start_ts, u.end_ts)) AS span, max(u.last_as_of) AS last_as_of,
           max(u.last_asked_at) AS last_asked_at
    FROM unnest(%(ids)s::int4[], %(starts)s::timestamptz[], %(ends)s::timestamptz[], %(as_ofs)s::timestamptz[],
                %(asked)s::timestamptz[]) AS u(symbol_id, start_ts, end_ts, last_as_of, last_asked_at)
    GROUP BY u.symbol_id
) n
WHERE c.symbol_id = n.symbol_id AND c.interval_s = %(interval_s)s AND c.provider_id = %(provider_id)s

-- name: backdate_names
-- The names of restored symbols were in use before this database knew them, else no read of that past would find them.
INSERT INTO symbol_names (symbol_id, name, valid_from, valid_to, as_of)
SELECT n.symbol_id, n.name, n.valid_from, n.valid_to, '-infinity'
FROM gapless_names(NULL, 'infinity') n
WHERE n.symbol_id = ANY (%(ids)s::int4[])
ON CONFLICT (name, symbol_id, valid_from, as_of) DO NOTHING

-- name: never_asked
-- Does any of these series wait for its first answer? Series without a cursor count too.
SELECT EXISTS (
    SELECT 1
    FROM unnest(%(ids)s::int4[]) AS u(symbol_id)
    LEFT JOIN ingestion_cursor c
        ON c.symbol_id = u.symbol_id AND c.interval_s = %(interval_s)s AND c.provider_id = %(provider_id)s
    WHERE c.last_asked_at IS NULL)
