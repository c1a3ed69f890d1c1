-- name: lock_enqueue
SELECT pg_advisory_xact_lock(hashtextextended('gapless backfill enqueue', 0))

-- name: enqueue
-- New rows, minus what is open or parked for rows that a gap pass found.
WITH asked AS (
    SELECT u.*, u.n AS place
    FROM unnest(%(symbol_ids)s::int4[], %(intervals)s::int4[], %(starts)s::timestamptz[], %(ends)s::timestamptz[],
                %(tiers)s::text[], %(origins)s::text[], %(providers)s::text[], %(not_before)s::timestamptz[],
                %(not_after)s::timestamptz[], %(inbox_ids)s::int8[], %(max_attempts)s::int4[]) WITH ORDINALITY
        AS u(symbol_id, interval_s, start_ts, end_ts, tier, origin, provider, not_before, not_after, inbox_id,
             max_attempts, n)
    -- An element that is dispatched again gets no second row where it has one, ended or not.
    WHERE NOT EXISTS (
        SELECT 1 FROM backfill_jobs k
        JOIN rlc_inbox i ON i.inbox_id = k.inbox_id
        WHERE k.inbox_id = u.inbox_id AND k.symbol_id = u.symbol_id AND k.interval_s = u.interval_s
          AND k.start_ts = u.start_ts AND k.end_ts = u.end_ts AND k.created_at >= i.received_at)
),
hull AS (
    SELECT a.symbol_id, a.interval_s, min(a.start_ts) AS start_ts, max(a.end_ts) AS end_ts
    FROM asked a
    WHERE a.origin = 'gap'
    GROUP BY a.symbol_id, a.interval_s
),
held AS (
    SELECT h.symbol_id, h.interval_s, range_agg(tstzrange(j.start_ts, j.end_ts)) AS span
    FROM hull h
    JOIN backfill_jobs j
        ON j.symbol_id = h.symbol_id AND j.interval_s = h.interval_s
        AND j.start_ts < h.end_ts AND j.end_ts > h.start_ts
        AND (j.state IN ('pending', 'running', 'paused')
             OR j.state IN ('failed', 'cancelled')
                AND j.finished_at > gapless_now() - make_interval(secs => %(parked_s)s))
    GROUP BY h.symbol_id, h.interval_s
)
INSERT INTO backfill_jobs (symbol_id, interval_s, start_ts, end_ts, tier, origin, provider, not_before, not_after,
                           inbox_id, max_attempts, created_at)
SELECT a.symbol_id, a.interval_s, lower(p.part), upper(p.part), a.tier, a.origin, a.provider, a.not_before, a.not_after,
       a.inbox_id, a.max_attempts, gapless_now()
FROM asked a
LEFT JOIN held h ON a.origin = 'gap' AND h.symbol_id = a.symbol_id AND h.interval_s = a.interval_s
CROSS JOIN LATERAL unnest(
    tstzmultirange(tstzrange(a.start_ts, a.end_ts)) - coalesce(h.span, '{}')) AS p(part)
ORDER BY a.place, lower(p.part)
ON CONFLICT (symbol_id, interval_s, start_ts, end_ts, coalesce(provider, ''), coalesce(inbox_id, 0))
    WHERE state IN ('pending', 'running', 'paused') DO NOTHING
RETURNING job_id

-- name: due
-- Pending rows of a tier whose try is due, that are still wanted and were not pushed lately, within what may be in flight.
-- A dispatch that reaches further ahead than any does is of a time before the clock was put back.
SELECT j.job_id
FROM backfill_jobs j
WHERE j.state = 'pending' AND j.tier = %(tier)s
  AND j.next_try <= clock_timestamp()
  AND (j.dispatched_until IS NULL OR j.dispatched_until <= clock_timestamp()
       OR j.dispatched_until > clock_timestamp() + interval '5 minutes')
  AND (j.not_before IS NULL OR j.not_before <= gapless_now())
  AND (j.not_after IS NULL OR j.not_after > gapless_now())
ORDER BY j.next_try, j.job_id
LIMIT least(%(limit)s, greatest(0, %(ahead)s - (
    SELECT count(*) FROM backfill_jobs f
    WHERE f.tier = %(tier)s
      AND (f.state = 'running' AND f.lease_expires > clock_timestamp()
           OR f.state = 'pending' AND f.dispatched_until > clock_timestamp()
              AND f.dispatched_until <= clock_timestamp() + interval '5 minutes'))))

-- name: left_by_the_dead
-- Those of some rows that were last taken by a worker which fell silent.
SELECT j.job_id
FROM backfill_jobs j
WHERE j.job_id = ANY (%(ids)s)
  AND (j.reason LIKE 'lease of %% ran out' OR j.state = 'running' AND j.lease_expires <= clock_timestamp())
ORDER BY j.attempts, j.job_id

-- name: mark_dispatched
UPDATE backfill_jobs j
SET dispatched_at = clock_timestamp(), dispatched_until = clock_timestamp() + make_interval(secs => %(seconds)s)
FROM (SELECT k.job_id FROM backfill_jobs k WHERE k.job_id = ANY (%(ids)s) AND k.state = 'pending'
      ORDER BY k.job_id FOR UPDATE) l
WHERE j.job_id = l.job_id

-- name: lock_claim
-- The tiers of the rows asked for, in order, each by its own lock.
SELECT pg_advisory_xact_lock(hashtextextended('gapless backfill claim ' || t.tier, 0))
FROM (SELECT DISTINCT j.tier FROM backfill_jobs j WHERE j.job_id = ANY (%(ids)s) ORDER BY j.tier) t

-- name: claim
-- Pending rows, and running ones whose lease has run out, up to the places that are free in their tier.
WITH free AS (
    SELECT t.tier, greatest(0, %(max_concurrency)s - count(r.job_id)) AS places
    FROM (SELECT DISTINCT j.tier FROM backfill_jobs j WHERE j.job_id = ANY (%(ids)s)) t
    LEFT JOIN backfill_jobs r ON r.tier = t.tier AND r.state = 'running' AND r.lease_expires > clock_timestamp()
    GROUP BY t.tier
),
ready AS (
    SELECT j.job_id
    FROM backfill_jobs j
    WHERE j.job_id = ANY (%(ids)s)
      AND (j.state = 'pending' AND j.next_try <= clock_timestamp()
           OR j.state = 'running' AND j.lease_expires <= clock_timestamp() AND j.attempts < j.max_attempts)
      AND (j.not_before IS NULL OR j.not_before <= gapless_now())
      AND (j.not_after IS NULL OR j.not_after > gapless_now())
    ORDER BY j.job_id
    FOR UPDATE SKIP LOCKED
),
chosen AS (
    SELECT p.job_id
    FROM (SELECT j.job_id, j.tier, row_number() OVER (PARTITION BY j.tier ORDER BY j.job_id) AS place
          FROM ready r JOIN backfill_jobs j ON j.job_id = r.job_id) p
    JOIN free f ON f.tier = p.tier AND p.place <= f.places
),
taken AS (
    UPDATE backfill_jobs j
    SET state = 'running', lease_owner = %(owner)s,
        lease_expires = clock_timestamp() + make_interval(secs => %(lease_s)s),
        attempts = j.attempts + 1, reason = NULL
    FROM chosen c
    WHERE j.job_id = c.job_id
    RETURNING j.*
)
SELECT t.job_id, t.symbol_id, n.name, u.calendar, gapless_interval(t.interval_s), t.start_ts, t.end_ts, t.tier, t.origin,
       t.provider, t.attempts, t.answered_by
FROM taken t
CROSS JOIN LATERAL (
    -- The name that the source knows the symbol by today.
    SELECT v.name
    FROM (SELECT DISTINCT ON (x.name, x.valid_from) x.name, x.valid_from, x.valid_to
          FROM symbol_names x
          WHERE x.symbol_id = t.symbol_id
          ORDER BY x.name, x.valid_from, x.as_of DESC) v
    WHERE v.valid_to > v.valid_from AND v.valid_from <= gapless_now()
    ORDER BY v.valid_to DESC, v.valid_from DESC
    LIMIT 1
) n
CROSS JOIN LATERAL (
    SELECT x.calendar FROM symbol_universe x WHERE x.symbol_id = t.symbol_id ORDER BY x.version DESC LIMIT 1
) u
ORDER BY t.job_id

-- name: undispatch
-- Rows that were pushed and could not be taken become due again.
UPDATE backfill_jobs j
SET dispatched_until = NULL
WHERE j.job_id = ANY (%(ids)s) AND j.state = 'pending' AND j.dispatched_until IS NOT NULL

-- name: heartbeat
UPDATE backfill_jobs j
SET lease_expires = clock_timestamp() + make_interval(secs => %(lease_s)s)
FROM (SELECT k.job_id FROM backfill_jobs k
      WHERE k.job_id = ANY (%(ids)s) AND k.state = 'running' AND k.lease_owner = %(owner)s
      ORDER BY k.job_id FOR UPDATE) l
WHERE j.job_id = l.job_id
RETURNING j.job_id

-- name: finish
-- The outcome of a row, taken only from its present owner.
UPDATE backfill_jobs j
SET state = CASE WHEN %(state)s = 'pending' AND %(spent)s AND j.attempts >= j.max_attempts THEN 'failed'
                 ELSE %(state)s END,
    attempts = CASE WHEN %(spent)s THEN j.attempts ELSE j.attempts - 1 END,
    lease_owner = NULL,
    lease_expires = NULL,
    reason = %(reason)s,
    next_try = clock_timestamp() + make_interval(secs => %(next_try_in_s)s),
    not_before = coalesce(%(not_before)s, j.not_before),
    dispatched_until = NULL,
    answered_by = (SELECT coalesce(array_agg(DISTINCT s.name ORDER BY s.name), '{}')
                   FROM unnest(j.answered_by || %(answered_by)s::text[]) AS s(name)),
    finished_at = CASE WHEN %(state)s <> 'pending' OR %(spent)s AND j.attempts >= j.max_attempts
                       THEN gapless_now() END
WHERE j.job_id = %(job_id)s AND j.state = 'running' AND j.lease_owner = %(owner)s
RETURNING j.job_id

-- name: lock_inbox
-- The open elements of some rows, locked in a statement before the one that judges them: of two writers that end the last
-- two rows of one element, the later has to see both.
SELECT i.inbox_id FROM rlc_inbox i
WHERE i.state IN ('new', 'dispatched')
  AND i.inbox_id IN (SELECT k.inbox_id FROM backfill_jobs k WHERE k.job_id = ANY (%(ids)s))
ORDER BY i.inbox_id
FOR UPDATE

-- name: lock_elements
SELECT i.inbox_id FROM rlc_inbox i
WHERE i.state IN ('new', 'dispatched') AND i.inbox_id = ANY (%(inbox_ids)s)
ORDER BY i.inbox_id
FOR UPDATE

-- name: settle_inbox
-- Locked elements none of whose rows is open any more: done, or dead with the reason of a row that failed. One that has
-- ended otherwise meanwhile stays as it is.
UPDATE rlc_inbox i
SET state = CASE WHEN d.failed THEN 'dead' ELSE 'done' END,
    reason = d.reason,
    remaining = CASE WHEN d.failed THEN i.remaining ELSE '{}' END,
    lease_expires = NULL,
    done_at = gapless_now()
FROM (
    SELECT x.inbox_id, bool_or(j.state IN ('failed', 'cancelled')) AS failed,
           max(concat_ws(': ', j.state, j.reason)) FILTER (WHERE j.state IN ('failed', 'cancelled')) AS reason
    FROM rlc_inbox x
    JOIN backfill_jobs j ON j.inbox_id = x.inbox_id AND j.created_at >= x.received_at
    WHERE x.inbox_id = ANY (%(inbox_ids)s)
    GROUP BY x.inbox_id
    HAVING NOT bool_or(j.state IN ('pending', 'running', 'paused'))
) d
WHERE i.inbox_id = d.inbox_id AND i.state IN ('new', 'dispatched')

-- name: reap
-- Rows of workers that died, and rows that nobody wants any more. A lease that reaches further ahead than any does is of
-- a time before the clock was put back.
UPDATE backfill_jobs j
SET state = CASE WHEN l.expired OR j.attempts >= j.max_attempts THEN 'failed' ELSE 'pending' END,
    reason = CASE WHEN l.expired THEN 'expired: not wanted after ' || j.not_after
                  ELSE 'lease of ' || j.lease_owner || ' ran out' END,
    lease_owner = NULL,
    lease_expires = NULL,
    dispatched_until = NULL,
    finished_at = CASE WHEN l.expired OR j.attempts >= j.max_attempts THEN gapless_now() END
FROM (
    SELECT k.job_id, k.not_after IS NOT NULL AND k.not_after <= gapless_now() AS expired
    FROM backfill_jobs k
    WHERE k.state = 'running' AND k.lease_expires <= clock_timestamp()
       OR k.state = 'running' AND k.lease_expires > clock_timestamp() + interval '5 minutes'
       OR k.state = 'pending' AND k.not_after <= gapless_now()
    -- Those of the dead first: somebody waits for them.
    ORDER BY k.state DESC, k.job_id
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
) l
WHERE j.job_id = l.job_id
RETURNING j.job_id

-- name: unpostpone
-- Tries further ahead than any pause reaches were set before the clock was put back.
UPDATE backfill_jobs j
SET next_try = clock_timestamp()
FROM (SELECT k.job_id FROM backfill_jobs k
      WHERE k.state = 'pending' AND k.tier IN ('T0', 'T1', 'T2') AND k.next_try > clock_timestamp() + interval '1 hour'
      ORDER BY k.job_id LIMIT %(limit)s FOR UPDATE SKIP LOCKED) l
WHERE j.job_id = l.job_id

-- name: list
SELECT j.job_id, n.name AS symbol, gapless_interval(j.interval_s) AS "interval", j.start_ts, j.end_ts, j.tier, j.origin,
       j.provider, j.state, j.attempts, j.max_attempts, j.reason, j.answered_by, j.created_at, j.finished_at
FROM backfill_jobs j
LEFT JOIN LATERAL (
    SELECT x.name FROM symbol_names x WHERE x.symbol_id = j.symbol_id AND x.valid_from <= j.start_ts
    ORDER BY x.valid_from DESC, x.as_of DESC LIMIT 1
) n ON true
WHERE %(state)s::text IS NULL OR j.state = %(state)s
ORDER BY j.job_id DESC
LIMIT %(limit)s

-- name: states
SELECT j.job_id, j.state FROM backfill_jobs j WHERE j.job_id = ANY (%(ids)s)

-- name: same_open
-- Open rows of people that ask exactly the windows asked for.
SELECT j.job_id
FROM unnest(%(symbol_ids)s::int4[], %(intervals)s::int4[], %(starts)s::timestamptz[], %(ends)s::timestamptz[],
            %(providers)s::text[]) AS a(symbol_id, interval_s, start_ts, end_ts, provider)
JOIN backfill_jobs j
    ON j.symbol_id = a.symbol_id AND j.interval_s = a.interval_s AND j.start_ts = a.start_ts AND j.end_ts = a.end_ts
    AND coalesce(j.provider, '') = coalesce(a.provider, '') AND j.inbox_id IS NULL
WHERE j.state IN ('pending', 'running', 'paused')
ORDER BY j.job_id

-- name: progress
-- How many of some rows are in each state of a tier, and what the most tried one of them met last.
SELECT j.tier, j.state, count(*),
       (array_agg(w.words ORDER BY j.attempts DESC, j.job_id) FILTER (WHERE w.words IS NOT NULL))[1]
FROM backfill_jobs j
CROSS JOIN LATERAL (
    SELECT CASE WHEN j.reason IS NOT NULL
        THEN format('%%s tried %%s: %%s', (SELECT u.symbol FROM universe u WHERE u.symbol_id = j.symbol_id),
                    CASE j.attempts WHEN 1 THEN 'once' ELSE j.attempts || ' times' END, j.reason) END AS words
) w
WHERE j.job_id = ANY (%(ids)s)
GROUP BY j.tier, j.state

-- name: stored_bars
-- Bars in the windows of some rows that have a closed version now, and those that had none before an instant.
SELECT count(*), count(*) FILTER (WHERE b.first_as_of >= %(since)s)
FROM (
    SELECT min(c.as_of) AS first_as_of
    FROM backfill_jobs j
    JOIN candles_intraday c
        ON c.symbol_id = j.symbol_id AND c.interval_s = j.interval_s AND c.ts >= j.start_ts AND c.ts < j.end_ts
    WHERE j.job_id = ANY (%(ids)s) AND c.status IN (1, 2)
    GROUP BY c.symbol_id, c.ts
    UNION ALL
    SELECT min(c.as_of)
    FROM backfill_jobs j
    JOIN candles_eod c ON c.symbol_id = j.symbol_id AND c.ts >= j.start_ts AND c.ts < j.end_ts
    WHERE j.job_id = ANY (%(ids)s) AND j.interval_s = 86400 AND c.status IN (1, 2)
    GROUP BY c.symbol_id, c.session
) b

-- name: retry
UPDATE backfill_jobs j
SET state = 'pending', attempts = 0, next_try = '-infinity', not_before = NULL, not_after = NULL, reason = NULL,
    dispatched_until = NULL, finished_at = NULL
FROM (SELECT DISTINCT ON (k.symbol_id, k.interval_s, k.start_ts, k.end_ts, coalesce(k.provider, ''),
                          coalesce(k.inbox_id, 0)) k.job_id
      FROM backfill_jobs k
      WHERE k.state IN ('failed', 'cancelled')
        AND CASE WHEN %(ids)s::int8[] IS NULL THEN k.state = 'failed' ELSE k.job_id = ANY (%(ids)s::int8[]) END
        -- A newer row for the same window may be open by now.
        AND NOT EXISTS (SELECT 1 FROM backfill_jobs o
                        WHERE o.state IN ('pending', 'running', 'paused') AND o.symbol_id = k.symbol_id
                          AND o.interval_s = k.interval_s AND o.start_ts = k.start_ts AND o.end_ts = k.end_ts
                          AND coalesce(o.provider, '') = coalesce(k.provider, '')
                          AND coalesce(o.inbox_id, 0) = coalesce(k.inbox_id, 0))
      ORDER BY k.symbol_id, k.interval_s, k.start_ts, k.end_ts, coalesce(k.provider, ''), coalesce(k.inbox_id, 0),
               k.job_id DESC) l
WHERE j.job_id = l.job_id

-- name: cancel
UPDATE backfill_jobs j
SET state = 'cancelled', reason = 'cancelled by an operator', dispatched_until = NULL, finished_at = gapless_now()
FROM (SELECT k.job_id FROM backfill_jobs k
      WHERE k.state IN ('pending', 'paused') AND (%(ids)s::int8[] IS NULL OR k.job_id = ANY (%(ids)s::int8[]))
      ORDER BY k.job_id FOR UPDATE) l
WHERE j.job_id = l.job_id
RETURNING j.job_id

-- name: pause
UPDATE backfill_jobs j
SET state = 'paused', reason = 'paused by an operator', dispatched_until = NULL
FROM (SELECT k.job_id FROM backfill_jobs k
      WHERE k.state = 'pending' AND (%(ids)s::int8[] IS NULL OR k.job_id = ANY (%(ids)s::int8[]))
      ORDER BY k.job_id FOR UPDATE) l
WHERE j.job_id = l.job_id

-- name: resume
UPDATE backfill_jobs j
SET state = 'pending', reason = NULL
FROM (SELECT k.job_id FROM backfill_jobs k
      WHERE k.state = 'paused' AND (%(ids)s::int8[] IS NULL OR k.job_id = ANY (%(ids)s::int8[]))
      ORDER BY k.job_id FOR UPDATE) l
WHERE j.job_id = l.job_id

-- name: depth
SELECT j.tier, count(*), extract(epoch FROM gapless_now() - min(j.created_at))::float8
FROM backfill_jobs j
WHERE j.state IN ('pending', 'running')
GROUP BY j.tier
