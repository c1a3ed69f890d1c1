-- Lease tokens of one source: all of its short windows at once, or none.
--
-- Key space: KEYS[i] = gapless:budget:<source>:<limit>, a hash a rolling window:
--   born        market seconds at which counting began; absent: never seen, or forgotten by a FLUSHALL
--   full_until  market seconds until which the window counts as full
--   pause_until market seconds until which the provider asked us to wait
--   shrink      share of the limit in use after 429s, back to 1 with time; shrunk_at market seconds
--   t<i>, l<i>  units taken in bucket i of market time, in all and by live work
-- ARGV: 1 count of segments, then 3 numbers a segment (real_start, market_start, speed; none: system time);
--   then: wanted calls, share ('live'|'backfill'), and for each key: units, window s, guard s, cost of a call.
-- Returns {granted calls, market seconds to wait when none, 'ok'|'unknown'|'paused'|'full'}.
local t = redis.call('TIME')
local real = tonumber(t[1]) + tonumber(t[2]) / 1e6
local a, segments = 2, tonumber(ARGV[1])
local now = real
for i = 1, segments do
  local rs, ms, sp = tonumber(ARGV[a]), tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2])
  if i == 1 or rs <= real then now = ms + (real - rs) * sp end
  a = a + 3
end
local wanted, share = tonumber(ARGV[a]), ARGV[a + 1]
a = a + 2
local BUCKETS = 100
local granted, wait, why = wanted, 0, 'ok'
local plans = {}
for k = 1, #KEYS do
  local units, window, guard, cost = tonumber(ARGV[a]), tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3])
  a = a + 4
  local flat = redis.call('HGETALL', KEYS[k])
  local h = {}
  for i = 1, #flat, 2 do h[flat[i]] = tonumber(flat[i + 1]) end
  if not h['born'] then return {0, 0, 'unknown'} end
  local grain = window / BUCKETS
  -- A token may arrive until its use-by and the way are over: count what is older by that much too.
  local oldest = math.floor((now - window - guard) / grain)
  local used, live, first, stale = 0, 0, nil, {}
  for name, value in pairs(h) do
    local kind, index = string.match(name, '^([tl])(%d+)$')
    if kind then
      index = tonumber(index)
      if index < oldest then
        stale[#stale + 1] = name
      elseif kind == 't' then
        used = used + value
        if not first or index < first then first = index end
      else
        live = live + value
      end
    end
  end
  if #stale > 0 then redis.call('HDEL', KEYS[k], unpack(stale, 1, math.min(#stale, 4000))) end
  local limit = units
  if h['shrink'] and h['shrink'] < 1 then
    local grown = h['shrink'] + (now - h['shrunk_at']) / (10 * window)
    limit = math.max(1, math.floor(units * math.min(1, grown)))
  end
  local free = limit - used
  if share == 'backfill' then
    -- Live work keeps what it took in the last window, and a little for its return.
    local reserve = math.max(live, math.floor(units * 0.05))
    free = math.min(free, limit - reserve - (used - live))
  end
  local hold = math.max(h['full_until'] or 0, h['pause_until'] or 0)
  local calls = math.floor(free / cost)
  if hold > now then
    granted = 0
    if hold - now > wait then wait = hold - now end
    why = (h['pause_until'] or 0) > now and 'paused' or 'full'
  elseif calls < 1 then
    granted = 0
    local frees = first and ((first + 1) * grain + window + guard - now) or grain
    if frees > wait then wait = frees end
    why = 'full'
  elseif calls < granted then
    granted = calls
  end
  plans[k] = {grain = grain, cost = cost, ttl = math.ceil((window + guard) * 2) + 60}
end
if granted < 1 then return {0, tostring(math.max(wait, 0.001)), why} end
for k = 1, #KEYS do
  local index = math.floor(now / plans[k].grain)
  redis.call('HINCRBY', KEYS[k], 't' .. string.format('%.0f', index), granted * plans[k].cost)
  if share == 'live' then
    redis.call('HINCRBY', KEYS[k], 'l' .. string.format('%.0f', index), granted * plans[k].cost)
  end
end
return {granted, '0', 'ok'}
