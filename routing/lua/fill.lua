-- Put a block of units that PostgreSQL leased into the fleet's pool, or note that its window is used up.
--
-- Key space: KEYS[1] throttle:<provider>, KEYS[2] budget:<scope>:<window>, both as in lease.lua.
-- ARGV: 1 segments (JSON), 2 share, 3 block (0: none), 4 units, 5 valid for (market us), 6 dry for (market us)
-- Returns {block, units} of what was left of the block before, to be given back to PostgreSQL; {0, 0} for nothing.
local segments, share = cjson.decode(ARGV[1]), ARGV[2]
local now = math.max(market(segments, real_now()), tonumber(redis.call('HGET', KEYS[1], 'seen') or '0'))
local v = redis.call('HMGET', KEYS[2], 'u:' .. share, 'o:' .. share)
local left = {tonumber(v[2]) or 0, tonumber(v[1]) or 0}
redis.call('HSET', KEYS[2], 'f:' .. share, 0, 'd:' .. share, whole(now + tonumber(ARGV[6])))
if tonumber(ARGV[3]) == 0 then return {0, 0} end
redis.call('HSET', KEYS[2], 'u:' .. share, ARGV[4], 'o:' .. share, ARGV[3], 't:' .. share, whole(now + tonumber(ARGV[5])))
if left[2] <= 0 then return {0, 0} end
return left
