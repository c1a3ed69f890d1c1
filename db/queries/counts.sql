-- name: stored
-- How much there is of a window, for people who watch: reads whole tables, so not meant for years of data.
SELECT m.bars + d.bars AS bars, m.revised + d.revised AS revised, (SELECT count(*) FROM quotes_l1) AS quotes
FROM (
    SELECT count(*) AS bars, coalesce(sum(b.revised), 0)::bigint AS revised
    FROM (SELECT count(*) FILTER (WHERE c.status = 2) AS revised
          FROM candles_intraday c
          WHERE c.interval_s = 60 AND c.ts >= %(start)s AND c.ts < %(end)s AND c.status <> 0
          GROUP BY c.symbol_id, c.ts) b
) m,
(
    SELECT count(*) AS bars, coalesce(sum(b.revised), 0)::bigint AS revised
    FROM (SELECT count(*) FILTER (WHERE c.status = 2) AS revised
          FROM candles_eod c
          WHERE c.ts >= %(start)s AND c.ts < %(end)s AND c.status <> 0
          GROUP BY c.symbol_id, c.session) b
) d

-- name: gaps
-- Bars of a window that the gap pass found missing, each once however many rows asked for it: minutes, and days by
-- their session's open. Explained are those that no row which has not ended well asks for.
WITH asked AS (
    SELECT j.symbol_id, j.interval_s, j.state, tstzrange(j.start_ts, j.end_ts) AS span
    FROM backfill_jobs j
    WHERE j.origin = 'gap' AND j.start_ts < %(end)s AND j.end_ts > %(start)s
),
minutes AS (
    SELECT range_agg(a.span * tstzrange(%(start)s, %(end)s)) AS found,
           coalesce(range_agg(a.span * tstzrange(%(start)s, %(end)s)) FILTER (WHERE a.state <> 'done'), '{}') AS open
    FROM asked a
    WHERE a.interval_s = 60
    GROUP BY a.symbol_id
),
days AS (
    SELECT 1 AS found, bool_or(a.state <> 'done')::int AS open
    FROM asked a
    WHERE a.interval_s = 86400 AND a.span @> %(start)s::timestamptz
    GROUP BY a.symbol_id
),
counted AS (
    SELECT (SELECT coalesce(sum(ceil(extract(epoch FROM upper(p)) / 60) - ceil(extract(epoch FROM lower(p)) / 60)), 0)
            FROM unnest(m.found) AS p) AS found,
           (SELECT coalesce(sum(ceil(extract(epoch FROM upper(p)) / 60) - ceil(extract(epoch FROM lower(p)) / 60)), 0)
            FROM unnest(m.open) AS p) AS open
    FROM minutes m
    UNION ALL
    SELECT d.found, d.open FROM days d
)
SELECT coalesce(sum(c.found), 0)::bigint, coalesce(sum(c.found - c.open), 0)::bigint FROM counted c

-- name: open_gaps
-- Rows of gaps that have not ended.
SELECT count(*) FROM backfill_jobs j WHERE j.origin = 'gap' AND j.state IN ('pending', 'running', 'paused')

-- name: revised_examples
-- Bars of a window whose newest version is a later one, with the instant at which it was learnt; some symbol first.
SELECT c.symbol, c.ts, c.as_of
FROM candles c
WHERE c."interval" = '1m' AND c.status = 'revised' AND c.ts >= %(start)s AND c.ts < %(end)s
ORDER BY c.symbol <> %(first)s, c.symbol, c.ts
LIMIT 20

-- name: known_then
-- Close and volume of one bar as known at an instant, and now.
SELECT b.close, b.volume, n.close, n.volume
FROM candles_as_of(ARRAY[%(symbol)s], '1m', %(ts)s, %(ts)s + interval '1 minute', %(as_of)s) b
JOIN candles n ON n.symbol = b.symbol AND n."interval" = '1m' AND n.ts = b.ts
