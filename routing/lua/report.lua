-- Tell how a call went: the breaker's windows and the health sums, in one step.
--
-- Key space: KEYS[1] breaker as in decide.lua; KEYS[2] = gapless:health:<source>:<capability>, a hash of sums that
-- fade with a half-life of 30 s: at (ms), n calls, bad failures, lat_n, lat_ms, exp and rec bars expected and received.
-- ARGV: outcome ok|fail|hard|auth|neutral, token, latency ms, expected, received, jitter in [0,1), reason
-- Returns {state, 1 when this call changed it}.
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local outcome, token, latency = ARGV[1], ARGV[2], tonumber(ARGV[3])
local expected, received, jitter, reason = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local bad = outcome == 'fail' or outcome == 'hard' or outcome == 'auth'

-- health
local h = redis.call('HMGET', KEYS[2], 'at', 'n', 'bad', 'lat_n', 'lat_ms', 'exp', 'rec')
local fade = 1
if h[1] then fade = 0.5 ^ (math.max(0, now - tonumber(h[1])) / 30000) end
local function sum(i, add) return string.format('%.6f', (tonumber(h[i] or '0')) * fade + add) end
if outcome ~= 'neutral' then
  redis.call('HSET', KEYS[2], 'at', now, 'n', sum(2, 1), 'bad', sum(3, bad and 1 or 0), 'lat_n', sum(4, 1),
    'lat_ms', sum(5, latency), 'exp', sum(6, expected), 'rec', sum(7, received))
  redis.call('EXPIRE', KEYS[2], 3600)
end

-- breaker
local f = redis.call('HMGET', KEYS[1], 'state', 'probe', 'opens', 'stage', 'stage_at', 'run', 'auth')
local state = f[1] or 'closed'
local function open()
  local opens = tonumber(f[3] or '0') + 1
  local ms = math.min(15000, 1000 * 2 ^ (opens - 1)) * (0.8 + 0.2 * jitter)
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'state', 'open', 'opened_at', now, 'open_ms', math.floor(ms), 'opens', opens, 'reason', reason)
  redis.call('EXPIRE', KEYS[1], 3600)
  return {'open', 1}
end
if state == 'open' then return {'open', 0} end
if state == 'half_open' then
  if f[2] ~= token then return {'half_open', 0} end
  if bad then return open() end
  if outcome == 'neutral' then
    redis.call('HSET', KEYS[1], 'probe_until', 0)
    return {'half_open', 0}
  end
  redis.call('HSET', KEYS[1], 'state', 'ramp', 'stage', 10, 'stage_at', now, 'passed_at', now, 'count', 0, 'run', 0, 'auth', 0)
  return {'ramp', 1}
end
if outcome == 'neutral' then return {state, 0} end
local second = string.format('%.0f', math.floor(now / 1000))
redis.call('HINCRBY', KEYS[1], 'b' .. second, 1)
if bad then redis.call('HINCRBY', KEYS[1], 'f' .. second, 1) end
local run = outcome == 'hard' and redis.call('HINCRBY', KEYS[1], 'run', 1) or 0
if outcome == 'ok' and f[6] and f[6] ~= '0' then redis.call('HSET', KEYS[1], 'run', 0) end
local auth = outcome == 'auth' and redis.call('HINCRBY', KEYS[1], 'auth', 1) or 0
if outcome == 'ok' and f[7] and f[7] ~= '0' then redis.call('HSET', KEYS[1], 'auth', 0) end
redis.call('EXPIRE', KEYS[1], 3600)
if auth >= 3 then return open() end
if bad then
  if run >= 5 then return open() end
  local flat, calls, failures, stale = redis.call('HGETALL', KEYS[1]), 0, 0, {}
  local oldest = math.floor(now / 1000) - 9
  for i = 1, #flat, 2 do
    local kind, at = string.match(flat[i], '^([bf])(%d+)$')
    if kind then
      if tonumber(at) < oldest then stale[#stale + 1] = flat[i]
      elseif kind == 'b' then calls = calls + tonumber(flat[i + 1])
      else failures = failures + tonumber(flat[i + 1]) end
    end
  end
  if #stale > 0 then redis.call('HDEL', KEYS[1], unpack(stale)) end
  if (state == 'ramp' and calls >= 4 and failures / calls >= 0.5) or (calls >= 20 and failures / calls >= 0.5) then
    return open()
  end
  return {state, 0}
end
if state == 'ramp' and now - tonumber(f[5]) >= 1000 then
  local stage = tonumber(f[4])
  if stage >= 50 then
    redis.call('DEL', KEYS[1])
    return {'closed', 1}
  end
  redis.call('HSET', KEYS[1], 'stage', 50, 'stage_at', now)
end
return {state, 0}
