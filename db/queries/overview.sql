-- name: coverage
-- Stretches of some symbols that touch a window; all states, the same word about a stretch once.
SELECT c.symbol, c."interval", c.start_ts, c.end_ts, c.state, c.provider, nullif(c.reason, '') AS reason,
       max(c.as_of) AS as_of, count(*) AS times
FROM coverage c
WHERE c.symbol = ANY (%(symbols)s) AND c.start_ts < %(end)s AND c.end_ts > %(start)s
  AND (%(interval)s::text IS NULL OR c."interval" = %(interval)s)
GROUP BY c.symbol, c."interval", c.start_ts, c.end_ts, c.state, c.provider, nullif(c.reason, '')
ORDER BY c.symbol, c."interval", c.start_ts, c.end_ts, c.state, c.provider

-- name: gaps
-- What is missing and not ended: waiting, running or given up.
SELECT u.symbol, u.tier, CASE j.interval_s WHEN 60 THEN '1m' ELSE '1d' END AS "interval", j.start_ts, j.end_ts,
       CASE j.state WHEN 'failed' THEN 'parked' ELSE j.state END AS state, j.attempts, j.reason,
       extract(epoch FROM gapless_now() - j.end_ts)::float8 AS age_s
FROM backfill_jobs j
JOIN universe u ON u.symbol_id = j.symbol_id
WHERE j.origin = 'gap' AND j.state IN ('pending', 'running', 'paused', 'failed')
  AND (%(tier)s::text IS NULL OR u.tier = %(tier)s)
ORDER BY j.end_ts DESC, u.symbol
LIMIT %(limit)s

-- name: asked_by_hand
SELECT j.state, count(*) AS count
FROM backfill_jobs j
WHERE j.origin IN ('operator', 'coordinator') AND j.state IN ('pending', 'running', 'paused', 'failed')
GROUP BY j.state
ORDER BY j.state

-- name: freshness
-- Per tier: symbols, those ever answered, and how far behind market time the median newest answer of 1m bars is.
SELECT u.tier, count(*) AS symbols, count(c.answered) AS answered,
       percentile_disc(0.5) WITHIN GROUP (ORDER BY c.answered) AS median_answered,
       min(c.answered) AS oldest_answered
FROM universe u
LEFT JOIN LATERAL (
    SELECT max(k.last_answered_at) AS answered FROM ingestion_cursor k WHERE k.symbol_id = u.symbol_id
) c ON true
WHERE u.active
GROUP BY u.tier
ORDER BY u.tier

-- name: by_source
-- Series that each source has answered, and when it did so last.
SELECT s.name, CASE k.interval_s WHEN 60 THEN '1m' ELSE '1d' END AS "interval", count(*) AS series,
       max(k.last_answered_at) AS last_answered_at
FROM ingestion_cursor k
JOIN sources s ON s.provider_id = k.provider_id
WHERE k.last_answered_at IS NOT NULL
GROUP BY 1, 2
ORDER BY 1, 2

-- name: estimates
-- Rows by the server's statistics, chunks included: instant on tables of any size.
SELECT coalesce(sum(r.live) FILTER (WHERE r.name LIKE 'candles%%'), 0)::bigint AS bars,
       coalesce(sum(r.live) FILTER (WHERE r.name = 'quotes_l1'), 0)::bigint AS quotes,
       pg_database_size(current_database()) AS bytes
FROM (
    SELECT root.relname AS name, greatest(c.reltuples, pg_stat_get_live_tuples(c.oid)) AS live
    FROM pg_class root
    JOIN pg_class c ON c.oid = root.oid OR c.oid IN (SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = root.oid)
    WHERE root.relnamespace = 'public'::regnamespace
      AND root.relname IN ('candles_intraday', 'candles_eod', 'quotes_l1') AND c.relkind = 'r'
) r

-- name: recent_failures
-- What went wrong most in the last hour of market time, by source and code.
SELECT s.name, e.code, count(*) AS times, max(e.as_of) AS last_at, (array_agg(e.detail ORDER BY e.as_of DESC))[1] AS detail
FROM fetch_evidence e
JOIN sources s ON s.provider_id = e.provider_id
WHERE e.outcome = 'failed' AND e.as_of > gapless_now() - interval '1 hour'
GROUP BY 1, 2
ORDER BY 3 DESC
LIMIT 10

-- name: leader
-- Who leads, and whether the lease is alive.
SELECT l.holder, l.token, l.expires_at > clock_timestamp() AS alive FROM leader_lease l WHERE l.name = 'scheduler'
