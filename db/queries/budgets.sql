-- name: lock
-- One taker a window at a time; freed at commit.
SELECT pg_advisory_xact_lock(hashtextextended('gapless-budget:' || %(source)s || ':' || %(limit_name)s, 0))

-- name: take
-- Take up to the wanted units that the window still has; no row when it has none.
INSERT INTO budget_blocks (source, limit_name, taken_at, units)
SELECT %(source)s, %(limit_name)s, gapless_now(), f.granted
FROM (
    SELECT least(%(wanted)s, %(units)s - coalesce(sum(b.units), 0))::integer AS granted
    FROM budget_blocks b
    WHERE b.source = %(source)s AND b.limit_name = %(limit_name)s
      AND b.taken_at > gapless_now() - make_interval(secs => %(window_s)s)
) f
WHERE f.granted > 0
RETURNING units

-- name: seen
-- Remember that a source is asked; a row comes back when this is the first time.
INSERT INTO budget_sources (source, first_used) VALUES (%(source)s, gapless_now())
ON CONFLICT (source) DO NOTHING
RETURNING source

-- name: used
-- Units taken in each long window.
SELECT b.limit_name, sum(b.units)::bigint
FROM budget_blocks b
WHERE b.source = %(source)s AND b.taken_at > gapless_now() - make_interval(secs => %(window_s)s)
GROUP BY 1
