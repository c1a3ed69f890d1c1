-- name: write_lock
-- Announce a write of knowledge; released at commit.
SELECT gapless_write_lock()

-- name: stamp
-- Knowledge time of an announced write that holds its row locks.
SELECT gapless_stamp()

-- name: lock_name
-- One writer at a time of what has a name; released at commit.
SELECT pg_advisory_xact_lock(hashtextextended('gapless ' || %(name)s, 0))

-- name: end_stuck
SELECT gapless_end_stuck_writes(%(s)s)
