-- Begin counting a source's windows, or obey a 429.
--
-- Key space: as lease.lua. ARGV: 1 count of segments, 3 numbers each; then the act and its numbers:
--   'born'  full(0|1), then for each key its window + guard: begin to count; full: as if the window were used up
--   'pause' market seconds to wait (0: none given): shrink by a third and pause
local t = redis.call('TIME')
local real = tonumber(t[1]) + tonumber(t[2]) / 1e6
local a, segments = 2, tonumber(ARGV[1])
local now = real
for i = 1, segments do
  local rs, ms, sp = tonumber(ARGV[a]), tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2])
  if i == 1 or rs <= real then now = ms + (real - rs) * sp end
  a = a + 3
end
local act = ARGV[a]
if act == 'born' then
  local full = ARGV[a + 1] == '1'
  for k = 1, #KEYS do
    if redis.call('HSETNX', KEYS[k], 'born', string.format('%.6f', now)) == 1 and full then
      redis.call('HSET', KEYS[k], 'full_until', string.format('%.6f', now + tonumber(ARGV[a + 1 + k])))
    end
  end
  return 1
end
local wait = tonumber(ARGV[a + 1])
for k = 1, #KEYS do
  local shrink = tonumber(redis.call('HGET', KEYS[k], 'shrink') or '1')
  redis.call('HSET', KEYS[k], 'shrink', tostring(math.max(0.1, shrink * 0.67)), 'shrunk_at', string.format('%.6f', now))
  local until_ = tonumber(redis.call('HGET', KEYS[k], 'pause_until') or '0')
  if now + wait > until_ then redis.call('HSET', KEYS[k], 'pause_until', string.format('%.6f', now + wait)) end
end
return 1
