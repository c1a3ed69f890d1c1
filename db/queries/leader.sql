-- name: acquire
-- A lease that reaches further ahead than any does was taken before the clock was put back; its holder, if it lives, is
-- fenced off by the token.
INSERT INTO leader_lease AS l (name, holder, token, expires_at)
VALUES (%(name)s, %(holder)s, 1, clock_timestamp() + make_interval(secs => %(ttl_s)s))
ON CONFLICT (name) DO UPDATE
SET holder = excluded.holder, token = l.token + 1, expires_at = excluded.expires_at
WHERE l.expires_at <= clock_timestamp() OR l.expires_at > clock_timestamp() + interval '5 minutes'
RETURNING token

-- name: renew
UPDATE leader_lease l
SET expires_at = clock_timestamp() + make_interval(secs => %(ttl_s)s)
WHERE l.name = %(name)s AND l.holder = %(holder)s AND l.token = %(token)s

-- name: release
UPDATE leader_lease l
SET expires_at = '-infinity'
WHERE l.name = %(name)s AND l.holder = %(holder)s AND l.token = %(token)s
