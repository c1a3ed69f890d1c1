-- name: listed_since
-- When each active symbol joined the universe, by knowledge time.
SELECT u.symbol_id, min(u.as_of) FROM symbol_universe u WHERE u.active GROUP BY u.symbol_id

-- name: held
-- Windows that the gap pass leaves alone: open rows, and those given up or cancelled lately. Only a pending row that a
-- gap pass made may be stretched.
SELECT j.job_id, j.symbol_id, j.start_ts, j.end_ts, j.not_before,
       j.state = 'pending' AND j.origin = 'gap' AND j.provider IS NULL AND j.inbox_id IS NULL
FROM backfill_jobs j
WHERE j.interval_s = %(interval_s)s AND j.end_ts > %(start)s AND j.start_ts < %(end)s
  AND (j.state IN ('pending', 'running', 'paused')
       OR j.state IN ('failed', 'cancelled') AND j.finished_at > gapless_now() - make_interval(secs => %(parked_s)s))
ORDER BY j.symbol_id, j.start_ts, j.job_id

-- name: lock_enqueue
SELECT pg_advisory_xact_lock(hashtextextended('gapless backfill enqueue', 0))

-- name: stretch
-- A row that a worker has taken meanwhile stays as it is, and so does one whose new window another row has.
UPDATE backfill_jobs j
SET start_ts = l.start_ts, end_ts = l.end_ts
FROM (
    SELECT k.job_id, u.start_ts, u.end_ts
    FROM unnest(%(ids)s::int8[], %(starts)s::timestamptz[], %(ends)s::timestamptz[]) AS u(job_id, start_ts, end_ts)
    JOIN backfill_jobs k ON k.job_id = u.job_id
    WHERE k.state = 'pending' AND k.start_ts >= u.start_ts AND k.end_ts <= u.end_ts
      AND NOT EXISTS (SELECT 1 FROM backfill_jobs o
                      WHERE o.state IN ('pending', 'running', 'paused') AND o.symbol_id = k.symbol_id
                        AND o.interval_s = k.interval_s AND o.start_ts = u.start_ts AND o.end_ts = u.end_ts)
    ORDER BY k.job_id
    FOR UPDATE OF k
) l
WHERE j.job_id = l.job_id

-- name: end_of_day
-- Slots of the end-of-day sweeps that are pushed.
SELECT s.slot_ts, s.tier, s.phase, s.pushed_at
FROM sweep_slots s
WHERE s.kind = 'bars_eod' AND s.slot_ts >= %(since)s AND s.pushed_at IS NOT NULL
