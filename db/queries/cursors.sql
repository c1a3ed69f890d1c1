-- name: covered
-- Covered windows, cut to a window where one is given.
SELECT c.symbol_id, s.name, lower(p.part), upper(p.part)
FROM ingestion_cursor c
JOIN sources s ON s.provider_id = c.provider_id
CROSS JOIN LATERAL unnest(
    gapless_covered(c) * tstzmultirange(tstzrange(%(start)s::timestamptz, %(end)s::timestamptz))) AS p(part)
WHERE c.interval_s = %(interval_s)s AND c.symbol_id = ANY (%(ids)s::int4[])
ORDER BY c.symbol_id, s.name, lower(p.part)

-- name: last_answered
SELECT c.symbol_id, max(c.last_answered_at)
FROM ingestion_cursor c
WHERE c.interval_s = %(interval_s)s
  AND (%(ids)s::int4[] IS NULL OR c.symbol_id = ANY (%(ids)s::int4[]))
  AND c.last_answered_at IS NOT NULL
GROUP BY c.symbol_id

-- name: last_quoted
SELECT h.symbol_id, max(h.updated_at)
FROM quote_heads h
WHERE (%(ids)s::int4[] IS NULL OR h.symbol_id = ANY (%(ids)s::int4[])) AND h.updated_at IS NOT NULL
GROUP BY h.symbol_id

-- name: suppliers
-- One probe of the key for each series: does the source have a bar in the window?
SELECT c.symbol_id, s.name
FROM ingestion_cursor c
JOIN sources s ON s.provider_id = c.provider_id
WHERE c.interval_s = 60 AND c.symbol_id = ANY (%(ids)s::int4[])
  AND (c.covered && tstzrange(%(start)s, %(end)s) OR c.unsettled && tstzrange(%(start)s, %(end)s)
       OR c.folded_to > %(start)s AND c.covered_before && tstzrange(%(start)s, %(end)s))
  AND EXISTS (
      SELECT 1 FROM candles_intraday b
      WHERE b.symbol_id = c.symbol_id AND b.interval_s = 60 AND b.provider_id = c.provider_id
        AND b.ts >= %(start)s AND b.ts < %(end)s)
ORDER BY c.symbol_id, s.name

-- name: fold
-- Put coverage that ended long ago aside, a few cursors at a time; a cursor in use is left for the next time.
WITH due AS MATERIALIZED (
    SELECT c.symbol_id, c.interval_s, c.provider_id
    FROM ingestion_cursor c
    WHERE lower(c.covered) < %(from)s
    ORDER BY c.symbol_id, c.interval_s, c.provider_id
    LIMIT %(rows)s
    FOR UPDATE SKIP LOCKED
)
UPDATE ingestion_cursor c
SET covered_before = c.covered_before + c.covered * tstzmultirange(tstzrange(NULL, %(to)s)),
    covered = c.covered - tstzmultirange(tstzrange(NULL, %(to)s)),
    folded_to = greatest(c.folded_to, %(to)s)
FROM due d
WHERE c.symbol_id = d.symbol_id AND c.interval_s = d.interval_s AND c.provider_id = d.provider_id
