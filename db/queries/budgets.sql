-- name: first_use
-- Remember that a scope is spent from; a row comes back when this is the first time.
INSERT INTO budget_scopes (scope, first_used, last_ts)
SELECT %(scope)s, n.now, n.now FROM (SELECT gapless_now() AS now) n
ON CONFLICT (scope) DO NOTHING
RETURNING scope

-- name: lock
-- One taker of a scope at a time, until commit; the market time that it counts with.
INSERT INTO budget_scopes AS s (scope, first_used, last_ts)
SELECT %(scope)s, n.now, n.now FROM (SELECT gapless_now() AS now) n
ON CONFLICT (scope) DO UPDATE SET last_ts = greatest(s.last_ts, gapless_now())
RETURNING s.last_ts

-- name: used
-- Units that count now: live work's, those still kept for its return included, and backfill's.
SELECT
    coalesce(sum(b.units) FILTER (WHERE b.share = 'live' AND b.counted_until > %(now)s), 0)::bigint,
    coalesce(sum(b.units) FILTER (WHERE b.share = 'live'), 0)::bigint,
    coalesce(sum(b.units) FILTER (WHERE b.share = 'backfill' AND b.counted_until > %(now)s), 0)::bigint
FROM budget_blocks b
WHERE b.scope = %(scope)s AND b.counted_until > %(now)s - %(linger)s

-- name: reuse
-- Book a block in a row that counts no more; no row when there is none.
UPDATE budget_blocks AS b
SET share = %(share)s, units = %(units)s, counted_until = %(until)s,
    block_id = DEFAULT
WHERE b.block_id = (
    SELECT o.block_id FROM budget_blocks o
    WHERE o.scope = %(scope)s AND o.counted_until <= %(now)s - %(linger)s
    ORDER BY o.counted_until
    LIMIT 1
)
RETURNING b.block_id

-- name: book
INSERT INTO budget_blocks (scope, share, units, counted_until)
VALUES (%(scope)s, %(share)s, %(units)s, %(until)s)
RETURNING block_id

-- name: refund
-- Units of a block that were never used; a block that was used again has another number.
UPDATE budget_blocks SET units = units - %(units)s WHERE block_id = %(block_id)s AND units >= %(units)s

-- name: frees
-- When the next units leave the window for a share: live work's later for backfill.
SELECT min(CASE WHEN b.share = 'live' AND %(share)s = 'backfill' THEN b.counted_until + %(linger)s ELSE b.counted_until END)
FROM budget_blocks b
WHERE b.scope = %(scope)s AND b.units > 0
  AND CASE WHEN b.share = 'live' AND %(share)s = 'backfill' THEN b.counted_until + %(linger)s ELSE b.counted_until END > %(now)s
