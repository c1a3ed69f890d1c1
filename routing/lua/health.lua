-- State and faded health sums of many (source, capability) pairs at once.
--
-- Key space: KEYS = breaker, health, entitlement key, ... of each pair, as in report.lua and entitle.lua.
-- Returns for each pair {state, reason, ms until a probe, n, bad, lat_n, lat_ms, exp, rec, stage, entitlement}.
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local out = {}
for i = 1, #KEYS, 3 do
  local b = redis.call('HMGET', KEYS[i], 'state', 'reason', 'opened_at', 'open_ms', 'stage')
  local h = redis.call('HMGET', KEYS[i + 1], 'at', 'n', 'bad', 'lat_n', 'lat_ms', 'exp', 'rec')
  local fade = 1
  if h[1] then fade = 0.5 ^ (math.max(0, now - tonumber(h[1])) / 30000) end
  local row = {b[1] or 'closed', b[2] or '', 0}
  if b[1] == 'open' then row[3] = math.max(0, tonumber(b[3]) + tonumber(b[4]) - now) end
  for j = 2, 7 do row[#row + 1] = string.format('%.6f', tonumber(h[j] or '0') * fade) end
  row[#row + 1] = b[5] or '100'
  row[#row + 1] = redis.call('GET', KEYS[i + 2]) or ''
  out[#out + 1] = row
end
return out
