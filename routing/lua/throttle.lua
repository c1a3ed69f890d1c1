-- Obey a 429: pause the provider for the whole fleet, and use a smaller share of its limits for a while.
--
-- Key space: KEYS[1] throttle:<provider> as in lease.lua; `shrunk_real` real time of the last shrinking.
-- ARGV: 1 segments (JSON), 2 pause (market us), 3 real us within which further 429s shrink nothing, because they
--   belong to calls that had left before; 4 factor, 5 least share, 6 market us in which a share of 1 would grow back
-- Returns market us of the pause left.
local segments = cjson.decode(ARGV[1])
local real = real_now()
local v = redis.call('HMGET', KEYS[1], 'seen', 'paused', 'factor', 'shrunk', 'shrunk_real')
local now = math.max(market(segments, real), tonumber(v[1]) or 0)
local paused = math.max(tonumber(v[2]) or 0, now + tonumber(ARGV[2]))
redis.call('HSET', KEYS[1], 'seen', whole(now), 'paused', whole(paused))
if real - (tonumber(v[5]) or 0) >= tonumber(ARGV[3]) then
  local share = 1
  if v[3] then share = math.min(1, tonumber(v[3]) + (now - tonumber(v[4])) / tonumber(ARGV[6])) end
  share = math.max(tonumber(ARGV[5]), share * tonumber(ARGV[4]))
  redis.call('HSET', KEYS[1], 'factor', string.format('%.6f', share), 'shrunk', whole(now), 'shrunk_real', whole(real))
end
return paused - now
