-- name: claim
-- Claim under the token, read with a lock in the same statement; one row of NULLs says that the lease holds.
WITH lease AS (
    SELECT l.token FROM leader_lease l
    WHERE l.name = %(lease)s AND l.token = %(token)s AND l.expires_at > clock_timestamp()
    FOR SHARE
),
claimed AS (
    INSERT INTO sweep_slots (kind, tier, slot_ts, phase, token, claimed_at)
    SELECT u.kind, u.tier, u.slot_ts, u.phase, l.token, gapless_now()
    FROM lease l
    CROSS JOIN unnest(%(kinds)s::text[], %(tiers)s::text[], %(slot_ts)s::timestamptz[], %(phases)s::int4[])
        AS u(kind, tier, slot_ts, phase)
    ORDER BY u.kind, u.tier, u.slot_ts, u.phase
    ON CONFLICT (kind, tier, slot_ts, phase) DO NOTHING
    RETURNING kind, tier, slot_ts, phase
)
SELECT c.kind, c.tier, c.slot_ts, c.phase FROM claimed c
UNION ALL
SELECT NULL, NULL, NULL, NULL FROM lease

-- name: mark_pushed
UPDATE sweep_slots s
SET pushed_at = gapless_now(), jobs = u.jobs
FROM unnest(%(kinds)s::text[], %(tiers)s::text[], %(slot_ts)s::timestamptz[], %(phases)s::int4[], %(jobs)s::int4[])
    AS u(kind, tier, slot_ts, phase, jobs)
WHERE s.kind = u.kind AND s.tier = u.tier AND s.slot_ts = u.slot_ts AND s.phase = u.phase AND s.pushed_at IS NULL

-- name: unpushed
SELECT s.kind, s.tier, s.slot_ts, s.phase
FROM sweep_slots s
WHERE s.pushed_at IS NULL AND s.slot_ts >= %(since)s
ORDER BY s.slot_ts, s.kind, s.tier, s.phase

-- name: newest
SELECT s.kind, s.tier, max(s.slot_ts) FROM sweep_slots s GROUP BY s.kind, s.tier

-- name: reopen
-- Daily slots that were pushed since an instant are pushed again: their jobs may be lost, and nothing else asks for them.
UPDATE sweep_slots s
SET pushed_at = NULL
WHERE s.kind IN ('bars_eod', 'reread') AND s.pushed_at >= %(since)s AND s.jobs > 0
