-- name: try_turn
SELECT pg_try_advisory_lock(hashtextextended('gapless inbox ' || %(list_key)s, 0))

-- name: end_turn
SELECT pg_advisory_unlock(hashtextextended('gapless inbox ' || %(list_key)s, 0))

-- name: receive
-- New elements, and those whose id was last used so long ago that it counts as new.
INSERT INTO rlc_inbox AS i (element_id, list_key, raw, payload, kind, remaining, state, reason, not_after, received_at,
                            done_at)
SELECT u.element_id, u.list_key, u.raw, u.payload::jsonb, u.kind,
       ARRAY(SELECT s.name FROM jsonb_array_elements_text(u.symbols::jsonb) WITH ORDINALITY AS s(name, place)
             ORDER BY s.place),
       CASE WHEN u.reason IS NULL THEN 'new' ELSE 'dead' END, u.reason, u.not_after, n.market_now,
       CASE WHEN u.reason IS NOT NULL THEN n.market_now END
FROM unnest(%(element_ids)s::text[], %(list_keys)s::text[], %(raws)s::bytea[], %(payloads)s::text[], %(kinds)s::text[],
            %(symbols)s::text[], %(reasons)s::text[], %(not_after)s::timestamptz[])
    AS u(element_id, list_key, raw, payload, kind, symbols, reason, not_after)
CROSS JOIN (SELECT gapless_now() AS market_now) n
ORDER BY u.element_id
ON CONFLICT (element_id) DO UPDATE
SET list_key = excluded.list_key, raw = excluded.raw, payload = excluded.payload, kind = excluded.kind,
    remaining = excluded.remaining, state = excluded.state, reason = excluded.reason, lease_expires = NULL,
    not_after = excluded.not_after, received_at = excluded.received_at, done_at = excluded.done_at
WHERE i.state IN ('done', 'dead', 'expired')
  AND i.received_at < excluded.received_at - make_interval(secs => %(once_s)s)
RETURNING i.element_id, i.inbox_id

-- name: dispatchable
-- Elements that wait, marked and leased in the same statement: new ones in their order, then those whose lease ran out
-- first. A lease that reaches further ahead than any does was taken before the clock was put back.
WITH fresh AS (
    SELECT k.inbox_id, k.state, k.lease_expires FROM rlc_inbox k
    WHERE k.state = 'new' AND (k.not_after IS NULL OR k.not_after > gapless_now())
    ORDER BY k.inbox_id
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
),
lapsed AS (
    SELECT k.inbox_id, k.state, k.lease_expires FROM rlc_inbox k
    WHERE k.state = 'dispatched' AND k.lease_expires <= (SELECT clock_timestamp())
      AND (k.not_after IS NULL OR k.not_after > gapless_now())
    ORDER BY k.lease_expires, k.inbox_id
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
),
put_back AS (
    SELECT k.inbox_id, k.state, k.lease_expires FROM rlc_inbox k
    WHERE k.state = 'dispatched' AND k.lease_expires > (SELECT clock_timestamp()) + interval '1 hour'
      AND (k.not_after IS NULL OR k.not_after > gapless_now())
    ORDER BY k.lease_expires, k.inbox_id
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
),
chosen AS (
    SELECT w.inbox_id, w.state AS before
    FROM (SELECT * FROM fresh UNION ALL SELECT * FROM lapsed UNION ALL SELECT * FROM put_back) w
    ORDER BY w.state DESC, w.lease_expires, w.inbox_id
    LIMIT %(limit)s
),
taken AS (
    UPDATE rlc_inbox i
    SET state = 'dispatched', lease_expires = clock_timestamp() + make_interval(secs => %(lease_s)s)
    FROM chosen c
    WHERE i.inbox_id = c.inbox_id
    RETURNING i.inbox_id, i.element_id, i.kind, i.payload, i.remaining, i.not_after, i.received_at,
              c.before = 'dispatched' AS again
)
SELECT t.* FROM taken t ORDER BY t.inbox_id

-- name: strike
-- Symbols answered, or given up for a reason; who gave one up does not end well.
UPDATE rlc_inbox i
SET remaining = r.remaining,
    reason = r.reason,
    state = CASE WHEN r.remaining <> '{}' THEN i.state WHEN r.reason IS NULL THEN 'done' ELSE 'dead' END,
    lease_expires = CASE WHEN r.remaining = '{}' THEN NULL ELSE i.lease_expires END,
    done_at = CASE WHEN r.remaining = '{}' THEN gapless_now() END
FROM (
    SELECT k.inbox_id, ARRAY(SELECT s.name FROM unnest(k.remaining) WITH ORDINALITY AS s(name, place)
                             WHERE s.name <> ALL (%(symbols)s::text[]) ORDER BY s.place) AS remaining,
           CASE WHEN k.remaining && %(symbols)s::text[] THEN coalesce(%(reason)s::text, k.reason) ELSE k.reason END AS reason
    FROM rlc_inbox k
    WHERE k.inbox_id = %(inbox_id)s AND k.state IN ('new', 'dispatched')
    FOR UPDATE
) r
WHERE i.inbox_id = r.inbox_id

-- name: mark_dead
UPDATE rlc_inbox i
SET state = 'dead', reason = %(reason)s, lease_expires = NULL, done_at = gapless_now()
WHERE i.inbox_id = %(inbox_id)s AND i.state IN ('new', 'dispatched')

-- name: expire
-- Elements whose time is over; one without a time of its own is tried for so long, or until its backfill rows have ended.
UPDATE rlc_inbox i
SET state = 'expired', reason = 'not answered before ' || l.last, lease_expires = NULL, done_at = gapless_now()
FROM (SELECT k.inbox_id, coalesce(k.not_after, k.received_at + make_interval(secs => %(life_s)s)) AS last
      FROM rlc_inbox k
      WHERE k.state IN ('new', 'dispatched')
        AND (k.not_after <= gapless_now()
             OR k.not_after IS NULL AND k.kind = 'jobs'
                AND k.received_at <= gapless_now() - make_interval(secs => %(life_s)s))
      ORDER BY k.inbox_id LIMIT %(limit)s FOR UPDATE SKIP LOCKED) l
WHERE i.inbox_id = l.inbox_id

-- name: hold
-- What some elements still want, and a new lease for those that wait for it.
UPDATE rlc_inbox i
SET lease_expires = CASE WHEN i.state = 'dispatched' THEN clock_timestamp() + make_interval(secs => %(lease_s)s) END
FROM (SELECT k.inbox_id FROM rlc_inbox k
      WHERE k.inbox_id = ANY (%(ids)s) AND k.state IN ('new', 'dispatched')
      ORDER BY k.inbox_id FOR UPDATE) l
WHERE i.inbox_id = l.inbox_id
RETURNING i.inbox_id, i.remaining

-- name: counts
SELECT i.state, count(*) FROM rlc_inbox i GROUP BY i.state
