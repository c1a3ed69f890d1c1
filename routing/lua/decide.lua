-- May this call go to this source? The breaker's state is the fleet's; all times are the server's, in ms.
--
-- Key space: KEYS[1] = gapless:breaker:<source>:<capability>, a hash:
--   state closed|open|half_open|ramp, reason, opened_at, open_ms, opens (openings in a row),
--   probe (token), probe_until, stage (percent of traffic in ramp), stage_at, passed_at, count (decisions in ramp),
--   b<second>, f<second> calls and failures by second, run (hard failures in a row), auth (auth errors in a row)
-- ARGV: token of the caller.  Returns {verdict 'yes'|'no'|'probe', state, ms until it may change, reason}
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local f = redis.call('HMGET', KEYS[1], 'state', 'opened_at', 'open_ms', 'probe_until', 'stage', 'passed_at', 'count', 'reason', 'stage_at')
local state = f[1] or 'closed'
local reason = f[8] or ''
if state == 'closed' then return {'yes', 'closed', 0, ''} end
if state == 'ramp' then
  local stage, count = tonumber(f[5]), redis.call('HINCRBY', KEYS[1], 'count', 1)
  -- Where little is asked, a share of it would be nothing: one call a half second always passes.
  if (count * stage) % 100 < stage or now - tonumber(f[6] or '0') >= 500 then
    redis.call('HSET', KEYS[1], 'passed_at', now)
    return {'yes', 'ramp', 0, reason}
  end
  return {'no', 'ramp', 100, reason}
end
local ends = tonumber(f[2]) + tonumber(f[3])
if state == 'open' and now < ends then return {'no', 'open', ends - now, reason} end
if state == 'open' then
  redis.call('HSET', KEYS[1], 'state', 'half_open', 'probe_until', 0)
  f[4] = '0'
end
if now < tonumber(f[4] or '0') then return {'no', 'half_open', tonumber(f[4]) - now, reason} end
redis.call('HSET', KEYS[1], 'probe', ARGV[1], 'probe_until', now + 5000)
return {'probe', 'half_open', 0, reason}
