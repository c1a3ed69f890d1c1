-- name: mark
-- Whose time this database keeps.
SELECT c.mode, c.replay_id FROM market_clock c

-- name: segments
-- The replay's segments, oldest first, in epoch seconds.
SELECT extract(epoch FROM s.real_start)::float8, extract(epoch FROM s.market_start)::float8, s.speed
FROM replay_segments s
ORDER BY s.real_start

-- name: mark_replay
-- Only a database in which nothing has been written yet changes hands.
UPDATE market_clock SET mode = 'replay', replay_id = %(replay_id)s
WHERE mode = 'system' AND floor_ts = '-infinity'

-- name: add_segment
INSERT INTO replay_segments (real_start, market_start, speed)
VALUES (%(real_start)s, %(market_start)s, %(speed)s)
ON CONFLICT (real_start) DO NOTHING
